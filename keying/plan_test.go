package keying

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// contents are a small schema that tests add to.
func contents(t testing.TB) *catalog.Contents {
	c := &catalog.Contents{Types: []catalog.Type{
		{OID: oidInt8, Schema: "pg_catalog", Name: "int8", Builtin: true},
		{OID: oidText, Schema: "pg_catalog", Name: "text", Builtin: true},
		{OID: 9001, Schema: "public", Name: "celsius", Kind: 'b'},
	}, Operators: []catalog.Operator{
		{Schema: "pg_catalog", Name: "=", Left: oidInt8, Right: oidInt8, Volatility: 'i', Builtin: true},
	}, Functions: []catalog.Function{
		{Schema: "public", Name: "melt", MinArgs: 1, MaxArgs: 1, Volatility: 'i'},
	}}
	tables(t, c, `
r plain 100 | id int8, v text | 101* id
r warm  110 | id int8, v celsius | 111* id
`)
	return c
}

func TestUserCasts(t *testing.T) {
	for _, test := range []struct {
		name           string
		source, target uint32
		sql            string
		want           Reason
	}{
		{"between built-in types", oidInt8, oidText, "SELECT id FROM plain", UserCast},
		{"of a type out of sight", 9001, oidText, "SELECT id FROM plain", NoReason},
		{"of a column's type", 9001, oidText, "SELECT id FROM warm", UserCast},
		{"to a type that is cast to", oidText, 9001, "SELECT $1::celsius", UserCast},
		{"with a user-defined function about", 9001, oidText, "SELECT melt(id) FROM plain", UserCast},
	} {
		c := contents(t)
		c.Casts = []catalog.Cast{{Source: test.source, Target: test.target, Volatility: 'v'}}
		if p, _ := planFor(t, catalog.NewSnapshot(*c), test.sql); p.Reason != test.want {
			t.Errorf("a cast %s: got %s, want %s", test.name, p.Reason, test.want)
		}
	}
}

// An operator = of the user's own may call other values equal.
func TestOwnEquality(t *testing.T) {
	for _, left := range []uint32{oidInt8, 9001} {
		c := contents(t)
		c.Operators = append(c.Operators, catalog.Operator{Schema: "public", Name: "=", Left: left, Right: left, Volatility: 'i'})
		snapshot := catalog.NewSnapshot(*c)
		p, _ := planFor(t, snapshot, "SELECT v FROM plain WHERE id = $1")
		tags, _, _ := p.ReadTags(nil, Values{Args: named(1)})
		table := slices.Contains(tags[:2], store.Tag{Relation: 100, Kind: store.TagTable})
		if own := left == oidInt8; p.Reason != NoReason || table != own {
			t.Errorf("own equality of type %d: reason %s, tags %v", left, p.Reason, names(tags, snapshot))
		}
		p, _ = planFor(t, snapshot, "DELETE FROM plain WHERE id = $1")
		row := slices.ContainsFunc(p.WriteTags(nil, Values{Args: named(1)}), func(t store.Tag) bool { return t.Kind == store.TagRow })
		if own := left == oidInt8; row == own {
			t.Errorf("own equality of type %d: a row is named in a write: %v", left, row)
		}
	}
}

func TestRelations(t *testing.T) {
	snapshot := testSchema(t)
	for sql, want := range map[string][2]string{
		"SELECT * FROM nested, logs":            {"users posts logs", ""},
		"DELETE FROM users":                     {"", "users posts comments"},
		"UPDATE events SET kind = 'x'":          {"", "events events_a events_b"},
		"INSERT INTO logs SELECT id FROM posts": {"posts", "logs"},
		"UPDATE authors SET name = 'x'":         {"", "users orders posts"},
	} {
		p, _ := planFor(t, snapshot, sql)
		if got := [2]string{oidList(p.Reads(), snapshot), oidList(p.WritesTo(), snapshot)}; got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}

// TestTextNotScanned plans a text as it stands, literals and all.
func TestTextNotScanned(t *testing.T) {
	snapshot := testSchema(t)
	for sql, want := range map[string]Reason{
		"SELECT * FROM users WHERE name = 'a'":         NoReason,
		"SELECT * FROM users WHERE name = 'now'":       ClockInput,
		"SELECT * FROM users WHERE name = $x$today$x$": ClockInput,
		"SELECT now FROM users":                        NoReason,
		"SELECT id FROM users WHERE 'x'::date = $1":    NoReason,

		// What is escaped is not seen, nor what is put together.
		`SELECT * FROM users WHERE created_at > E'\156ow'`:               ClockInput,
		`SELECT * FROM users WHERE created_at > U&'\006eow'`:             ClockInput,
		`SELECT * FROM users WHERE created_at > U&'!006eow' UESCAPE '!'`: ClockInput,
		"SELECT * FROM users WHERE created_at > 'to'\n'day'":             ClockInput,
	} {
		statements, err := parser.Parse(sql, nil)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		p := New(sql, statements, snapshot, testPath)
		if p.Reason != want {
			t.Errorf("%s: got %s, want %s", sql, p.Reason, want)
		}
	}
}

// TestCanonical holds the hash of values to PostgreSQL's equality: values of one
// group are equal, of different groups not; those without a group are coarse.
func TestCanonical(t *testing.T) {
	type group = []any
	uuid := [16]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	noon := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	east, farEast := time.FixedZone("", 3600), time.FixedZone("", 13*3600)
	for _, test := range []struct {
		name   string
		column string
		groups []group
		coarse []any
	}{
		{"int8", "SELECT 1 FROM users WHERE id = $1", []group{
			{1, int64(1), int32(1), int16(1), int8(1), uint(1), uint8(1), uint64(1), "1", plainInt(1), plainString("1"), ptr(1), ptr("1"), color(1),
				sql.NullInt64{Int64: 1, Valid: true}, sql.Null[int64]{V: 1, Valid: true}},
			{0, "0", uint16(0)}, {-1, "-1"}, {int64(-1 << 63), "-9223372036854775808"}, {int64(1<<63 - 1), "9223372036854775807", uint64(1<<63 - 1)}, {10},
		}, []any{nil, "", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "1e0", "0x1", "1_0", "9223372036854775808", uint64(1 << 63), 1.0, true,
			[]byte("1"), (*int)(nil), (*string)(nil), sql.NullInt64{}, valued{"1", ""}, failing{}, structured{1}, []int{1}, uuid, pgtypeLike(1)}},
		{"int4", "SELECT 1 FROM posts WHERE id = $1", []group{{1 << 30}, {-1 << 31}}, []any{1 << 31, "2147483648", int64(-1<<31 - 1)}},
		{"text", "SELECT 1 FROM users WHERE email = $1", []group{
			{"a", plainString("a"), ptr("a"), sql.NullString{String: "a", Valid: true}}, {"A"}, {"a "}, {""}, {" "}, {"12345678"}, {"12345678\x00"}, {"é"},
		}, []any{1, []byte("a"), true, nil, loud("a"), uuid}},
		{"uuid", "SELECT 1 FROM members WHERE org = $1 AND user_id = 1", []group{
			{uuid, userID(uuid), &uuid, "00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF", "00112233445566778899aabbccddeeff"},
			{[16]byte{}, "00000000-0000-0000-0000-000000000000"},
		}, []any{"{00112233-4455-6677-8899-aabbccddeeff}", "0011-22334455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg", "",
			uuid[:], [15]byte{}, 1}},
		{"bpchar", "SELECT 1 FROM codes WHERE code = $1", []group{
			{"a", "a ", "a    ", plainString("a"), ptr("a "), sql.NullString{String: "a", Valid: true}}, {"A"}, {" a"}, {"", " "}, {"a\t"}, {"a\u00a0"}, {"é"},
		}, []any{1, []byte("a"), true, nil, loud("a"), uuid}},
		{"date", "SELECT 1 FROM days WHERE day = $1", []group{
			{"2024-02-29", noon, ptr(noon), plainString("2024-02-29"), sql.NullTime{Time: noon, Valid: true}, sql.Null[time.Time]{V: noon, Valid: true}, noon.In(east)},
			{"2024-03-01"}, {"0001-01-01", time.Time{}}, {"9999-12-31"}, {"1969-12-31"}, {"1970-01-01"},
		}, []any{nil, "", "infinity", "today", "2024-2-29", "20240229", "24-02-29", "29.02.2024", "02/29/2024", "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "0000-01-01",
			"10000-01-01", "0044-03-15 BC", " 2024-02-29", "2024-02-29 ", "2024-02-29 00:00:00", "2024-02-2x", noon.In(farEast), noon.AddDate(-2024, 0, 0), noon.AddDate(8000, 0, 0),
			sql.NullString{String: "2024-02-29", Valid: true}, 8825, true, uuid}},
		{"timestamp", "SELECT 1 FROM times WHERE local = $1", []group{
			{noon, "2024-02-29 12:00:00", "2024-02-29T12:00:00", "2024-02-29 12:00:00.000", noon.Add(999), noon.In(time.FixedZone("", 0))}, {noon.Add(time.Microsecond), "2024-02-29 12:00:00.000001"},
			{"2024-02-29 12:00:00.5", "2024-02-29 12:00:00.500000", noon.Add(500_000_999)}, {"1969-12-31 23:59:59.999999", time.Unix(0, -1).UTC(), time.Unix(0, -1000).UTC()},
		}, []any{"2024-02-29 12:00:00Z", "2024-02-29 12:00:00+00", "2024-02-29", "2024-02-29 12:00", "2024-02-29 12:00:00.", "2024-02-29 12:00:00.0000001", "2024-02-29 24:00:00", "2024-02-29 12:00:60",
			"2024-02-29 12:60:00", "2024-02-29 12:00:00 PM", "2024-02-29  12:00:00", "2024-02-29_12:00:00", "epoch", noon.In(east), "2024-02-29 12-00-00", 1}},
		{"timestamptz", "SELECT 1 FROM times WHERE at = $1", []group{
			{noon, noon.In(east), noon.In(farEast), "2024-02-29 12:00:00Z", "2024-02-29 12:00:00+00", "2024-02-29T13:00:00+01:00", "2024-02-29 11:59:59.0-00:00:01", "2024-02-29 06:30:00-05:30", noon.Add(999)},
			{noon.Add(time.Microsecond), "2024-02-29 12:00:00.000001+00"}, {"2024-02-29 12:00:00-15"},
		}, []any{"2024-02-29 12:00:00", "2024-02-29 12:00:00 UTC", "2024-02-29 12:00:00z", "2024-02-29 12:00:00 +00", "2024-02-29 12:00:00+0", "2024-02-29 12:00:00+0100", "2024-02-29 12:00:00+16",
			"2024-02-29 12:00:00+01:60", "2024-02-29 12:00:00+01-30", "2024-02-29 12:00:00+01:00:00:00", "2024-02-29", "0001-01-01 00:00:00+01", "9999-12-31 23:00:00-01", "now"}},
		{"numeric", "SELECT 1 FROM prices WHERE price = $1", []group{
			{1, "1", "1.0", "1.00", "01", "1.", int16(1), uint8(1), plainInt(1), sql.NullInt64{Int64: 1, Valid: true}, sql.NullString{String: "1.0", Valid: true}}, {-1, "-1.0"}, {0, "0", "-0", "-0.00", ".0"},
			{"0.1", ".1", "0.10"}, {10, "10.0"}, {"1.01"}, {"101"}, {"0.01"}, {"1000000000000000000000.000000000000000000001"}, {"1000000000000000000000.000000000000000000002"},
			{int64(-1 << 63), "-9223372036854775808"},
		}, []any{nil, "", ".", "-", "--1", "+1", " 1", "1 ", "1e0", "0x1", "1_0", "1.0.0", "NaN", "Infinity", 1.0, float32(1), color(1), uint64(1 << 63), true, strings.Repeat("1", 300)}},
	} {
		p, literals := planFor(t, testSchema(t), test.column)
		hash := func(v any) (uint64, bool) {
			tags, _, _ := p.ReadTags(nil, Values{Args: named(v), Literals: literals})
			for _, tag := range tags {
				if tag.Kind == store.TagRow && tag.Index > 16 { // not of one column
					return tag.Value, true
				}
			}
			return 0, false
		}
		seen := make(map[uint64]int)
		for i, g := range test.groups {
			for _, v := range g {
				h, ok := hash(v)
				if !ok {
					t.Errorf("%s: %T %v has no canonical form", test.name, v, v)
					continue
				}
				if j, is := seen[h]; is && j != i {
					t.Errorf("%s: %T %v is equal to one of another group", test.name, v, v)
				}
				seen[h] = i
			}
		}
		if len(seen) != len(test.groups) {
			t.Errorf("%s: %d hashes for %d groups", test.name, len(seen), len(test.groups))
		}
		for _, v := range test.coarse {
			if _, ok := hash(v); ok {
				t.Errorf("%s: %T %v has a canonical form", test.name, v, v)
			}
		}
	}
}

func TestTagName(t *testing.T) {
	snapshot := testSchema(t)
	for want, tag := range map[string]store.Tag{
		"schema":                   {},
		"table public.users":       {Relation: 1000, Kind: store.TagTable},
		"rows public.users(email)": {Relation: 1000, Kind: store.TagRows, Index: 1002},
		"row public.members(org,user_id)#000000000000002a": {Relation: 1020, Kind: store.TagRow, Index: 1021, Value: 42},
		"rows relation 7(index 8)":                         {Relation: 7, Kind: store.TagRows, Index: 8},
	} {
		if got := TagName(tag, snapshot); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := TagName(store.Tag{Relation: 7, Kind: store.TagTable}, nil); got != "table relation 7" {
		t.Errorf("without a schema: %q", got)
	}
}

// Under a collation that is not deterministic texts of different bytes are equal.
func TestCollationsThatAreNotDeterministicNameNoRows(t *testing.T) {
	for _, text := range []string{"SELECT * FROM users WHERE email = $1", "SELECT * FROM codes WHERE code = $1", "DELETE FROM codes WHERE code = $1"} {
		for _, deterministic := range []bool{true, false} {
			c := testContents(t)
			for _, r := range c.Relations {
				for i := range r.Columns {
					r.Columns[i].Deterministic = deterministic
				}
			}
			snapshot := catalog.NewSnapshot(c)
			p, literals := planFor(t, snapshot, text)
			v := Values{Args: named("a"), Literals: literals}
			tags, _, _ := p.ReadTags(nil, v)
			tags = append(tags, p.WriteTags(nil, v)...)
			if strings.Contains(text, "DELETE") {
				tags = ChangedTags(tags, snapshot, 1030, 1, func(int, string) StoredValue { return StoredValue{Text: "a ", Known: true} })
			}
			names := func(tag store.Tag) bool { return tag.Kind == store.TagRow }
			if slices.ContainsFunc(tags, names) != deterministic {
				t.Errorf("%s: deterministic %v: %v", text, deterministic, tags)
			}
		}
	}
}
