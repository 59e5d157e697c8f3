package keying

import (
	"database/sql"
	"database/sql/driver"
	"math"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

type ticket struct{ n int64 }

func (t ticket) Value() (driver.Value, error) { return t.n, nil }

// integerSchema has columns of each integer type, and of others.
func integerSchema(t testing.TB, own ...catalog.Operator) *catalog.Snapshot {
	c := testContents(t)
	c.Operators = append(c.Operators, own...)
	tables(t, &c, `
r ints 500 | two int2, four int4, eight int8, o oid, v text, f float8 | 501* four
r more 510 | id int4, ref int4 | 511* id
`)
	return catalog.NewSnapshot(c)
}

// sevens are the Go values that are 7 to PostgreSQL wherever it takes an integer.
func sevens() []any {
	return []any{
		int64(7), 7, int32(7), int16(7), int8(7), uint(7), uint64(7), uint32(7), uint16(7), uint8(7), "7",
		ptr(7), ptr(int64(7)), ptr(uint32(7)), ptr("7"), ptr(ptr(7)),
		sql.NullInt64{Int64: 7, Valid: true}, sql.NullInt32{Int32: 7, Valid: true}, sql.Null[int64]{V: 7, Valid: true},
		&sql.NullInt64{Int64: 7, Valid: true}, pgtype.Int8{Int64: 7, Valid: true}, pgtype.Int4{Int32: 7, Valid: true},
	}
}

func keyOf(t testing.TB, p *Plan, args ...any) store.Key {
	t.Helper()
	key, _, reason := p.Key(new([32]byte), Values{Args: named(args...)}, nil)
	if reason != NoReason {
		t.Fatalf("%#v: %s", args, reason)
	}
	return key
}

func TestAnIntegerParameterHasOneKeyForAllGoTypes(t *testing.T) {
	snapshot := integerSchema(t)
	for _, where := range []string{
		"two = $1", "four = $1", "eight = $1", "o = $1", "$1 = four", "four = $1::int8", "ints.eight = $1 AND v = 'a'",
		"four IN ($1)", "four IN ($1, $2)", "four = $1 OR four = $2", "(four, v) = ($1, 'a')", "four = ANY(ARRAY[$1, $2]::int[])",
		"EXISTS (SELECT FROM more WHERE more.id = $1)", "four = $1 AND v = $2", "four = $1 ORDER BY four LIMIT 3",
	} {
		p, _ := planFor(t, snapshot, "SELECT v FROM ints WHERE "+where)
		want := keyOf(t, p, 7, nil)
		tags, always, rows := p.ReadTags(nil, Values{Args: named(7, 0)})
		for _, arg := range sevens() {
			if keyOf(t, p, arg, nil) != want {
				t.Errorf("%s: %T has a key of its own", where, arg)
			}
			// Results under one key depend on the same, or one would not be found by another's tags.
			if got, a, r := p.ReadTags(nil, Values{Args: named(arg, 0)}); !slices.Equal(got, tags) || a != always || r != rows {
				t.Errorf("%s: %T has tags of its own: %v, %v", where, arg, got, tags)
			}
		}
		if keyOf(t, p, 8, nil) == want || keyOf(t, p, nil, 7) == want {
			t.Errorf("%s: another value has the same key", where)
		}
	}
	p, _ := planFor(t, snapshot, "SELECT v FROM ints WHERE four = $1")
	for _, n := range []int64{0, -7, math.MaxInt32, math.MinInt32} {
		if keyOf(t, p, n) != keyOf(t, p, int32(n)) {
			t.Errorf("%d has several keys", n)
		}
	}
}

func TestWhereTheTypeIsNotCertainGoTypesStayApart(t *testing.T) {
	snapshot := integerSchema(t)
	for _, text := range []string{
		"SELECT $1", "SELECT $1::text", "SELECT $1::int", "SELECT v FROM ints WHERE four = $1 + 0", "SELECT v FROM ints WHERE v = $1",
		"SELECT v FROM ints WHERE f = $1", "SELECT v FROM ints WHERE four = $1 OR v = $1", "SELECT v FROM ints WHERE v = $1 AND four = $1",
		"SELECT $1 FROM ints WHERE four = $1", "SELECT v FROM ints WHERE four = $1::text::int", "SELECT v FROM ints WHERE four = $1::float8",
		"SELECT v FROM ints WHERE four = $1::oid", "SELECT v FROM ints WHERE four IN ($1, 1.5)", "SELECT v FROM ints WHERE four IN ($1, '5')",
		"SELECT v FROM ints WHERE four IN ($1, f)", "SELECT v FROM ints, more WHERE four = $1 AND id = $1", "SELECT v FROM ints WHERE four <> $1",
		"SELECT four + $1 FROM ints", "SELECT v FROM (SELECT v, f AS four FROM ints) AS ints WHERE four = $1",
		"WITH ints AS (SELECT 'a' AS v, 'b' AS four) SELECT v FROM ints WHERE four = $1",
	} {
		p, _ := planFor(t, snapshot, text)
		apart(t, p, text, sevens())
	}

	own := catalog.Operator{Schema: "public", Name: "=", Left: oidInt4, Right: oidInt4, Volatility: 'i'}
	p, _ := planFor(t, integerSchema(t, own), "SELECT v FROM ints WHERE four = $1")
	apart(t, p, "an operator = of the user's", sevens())
}

func TestWhatIsNoIntegerOfTheTypeStaysApart(t *testing.T) {
	snapshot := integerSchema(t)
	for column, values := range map[string][]any{
		"four": {7, "7 ", " 7", "+7", "07", "0x7", "7.0", "7e0", "-0", "0", "", 7.0, float32(7), true, "true", []byte("7"), plainInt(7), plainString("7"),
			color(1), ptr(plainInt(7)), sql.NullString{String: "7", Valid: true}, nil, (*int)(nil), []int{7}, "7\n", "7_0", "７", ticket{7}, &ticket{7}, (*ticket)(nil), pgtype.Int8{}, pgtype.Text{String: "7", Valid: true}},
		"two": {1 << 15, int64(1 << 15), "32768", -1<<15 - 1, "-32769", uint64(1 << 63), "9223372036854775808"},
		"o":   {-1, int64(-1), "-1", 1 << 32, "4294967296"},
	} {
		p, _ := planFor(t, snapshot, "SELECT v FROM ints WHERE "+column+" = $1")
		apart(t, p, column, values)
	}
}

// apart checks that no two of the values share a key.
func apart(t testing.TB, p *Plan, what string, values []any) {
	t.Helper()
	seen := make(map[store.Key]any)
	for _, v := range values {
		key := keyOf(t, p, v)
		if other, ok := seen[key]; ok {
			t.Errorf("%s: %#v and %#v share a key", what, other, v)
		}
		seen[key] = v
	}
}
