package reads

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

var spellingSeed = flag.Uint64("spelling.seed", 0, "seed of the values in TestPostgresJudgesCanonicalForms; 0 takes another each time")

// spelt is a type of a key column with values that a program may name it by, whether
// or not they have a canonical form.
type spelt struct {
	typ    string // of the column
	values func(r *rand.Rand) []any
	least  int  // how many of the questions have a canonical form, at least
	dated  bool // settings of the session say what its texts mean
}

var spelledTypes = []spelt{
	{"date", spelledTimes, 50, true},
	{"day", spelledTimes, 50, true},
	{"timestamp", spelledTimes, 50, true},
	{"timestamptz", spelledTimes, 50, true},
	{"timestamp(0)", spelledTimes, 20, true},
	{"timestamptz(3)", spelledTimes, 50, true},
	{"char(3)", spelledTexts, 50, false},
	{"bpchar", spelledTexts, 50, false},
	{"code", spelledTexts, 50, false},
	{"text", spelledTexts, 50, false},
	{"varchar(3)", spelledTexts, 50, false},
	{"numeric", spelledNumbers, 50, false},
	{"numeric(6,1)", spelledNumbers, 50, false},
	{"price", spelledNumbers, 50, false},
}

// spelledNumbers are a few numbers in many spellings.
func spelledNumbers(r *rand.Rand) (values []any) {
	for range 5 {
		n := int64(r.IntN(5)-2) * []int64{1, 10, 10000, 5, 123456789}[r.IntN(5)]
		scale := r.IntN(4)
		s := strconv.FormatInt(n, 10)
		if scale > 0 {
			s = strconv.FormatFloat(float64(n)/math.Pow10(scale), 'f', scale+r.IntN(3), 64)
		}
		values = append(values, s, plainText(s), "0"+s, s+"0", "+"+s, s+".", s+".0", " "+s, s+"e1", "-"+s, []string{s}, sql.NullString{String: s, Valid: true}, float64(n), sql.Null[string]{V: s, Valid: true},
			pgtype.Numeric{Int: big.NewInt(n), Exp: int32(-scale), Valid: true}, &pgtype.Numeric{Int: big.NewInt(n), Exp: int32(scale), Valid: true}, []int64{n}, pgtype.Int8{Int64: n, Valid: true}, n, int(n), printed(n))
	}
	return append(values, "NaN", "Infinity", "-0", "-0.0", "0.000", ".", "-", "", ".5", "5.", "0.5", "1_000", "0x10", "1e1000", "9999999999999999999999999", "9999999999999999999999998", "9999999999999999999999999.000",
		"1234567890123456789012345678901234567890.5", "1234567890123456789012345678901234567890.50", "1000000000000000000000000000000000000000000", "0.1", "0.05", "0.051", "0.049", 0, 16,
		0.1, pgtype.Numeric{NaN: true, Valid: true}, pgtype.Numeric{Valid: true}, int64(math.MinInt64), "-9223372036854775808.0", 1<<53, 1<<53+1, "9007199254740993", "0.1000000000000000000001")
}

// spelledTexts are short texts with blanks before and after.
func spelledTexts(r *rand.Rand) (values []any) {
	for range 20 {
		var b strings.Builder
		for range 1 + r.IntN(4) {
			b.WriteString([]string{"a", "b", "A", " ", " ", "é", "\t", "\u00a0"}[r.IntN(8)])
		}
		s := b.String()
		values = append(values, s, plainText(s), []string{s}, sql.NullString{String: s, Valid: true}, pgtype.Text{String: s, Valid: true})
	}
	return append(values, "", " ", "    ", "a", "a ", "a  ", "a     ", "abc", "abc ", "abcd", 1, []byte("a"))
}

// printed is a number that some exec modes send as another.
type printed int64

func (p printed) String() string { return strconv.FormatInt(int64(p), 10) + "e1" }

// spelledTimes are moments around a few days, in every spelling.
func spelledTimes(r *rand.Rand) (values []any) {
	zones := []*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.FixedZone("", -3600*7), time.FixedZone("", 0)}
	layouts := []string{
		"2006-01-02", "2006-01-02 15:04:05", "2006-01-02 15:04:05.999999", "2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.000000Z07:00",
		"2006-01-02 15:04:05.000000000Z07:00", "01/02/2006", "02.01.2006", "Jan 2 2006", "20060102", "2006-1-2", "06-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05-07:00:00",
		"2006-01-02 15:04:05 -07:00", "2006-01-02 15:04:05 MST", "15:04:05 2006-01-02", "02-01-2006", "2006-01-02 BC",
	}
	for range 5 {
		t := time.Date(2024, 1+time.Month(r.IntN(2)), 1+r.IntN(3), []int{0, 5, 23}[r.IntN(3)], 0, r.IntN(2), r.IntN(3)*500_000_000+r.IntN(2)*1000*r.IntN(3)+r.IntN(2)*999, zones[r.IntN(len(zones))])
		if r.IntN(6) == 0 {
			t = t.AddDate([]int{-2023, -2024, 7975, 7976, -1960}[r.IntN(5)], 0, 0)
		}
		values = append(values, t, &t, []time.Time{t}, sql.NullTime{Time: t, Valid: true}, sql.Null[time.Time]{V: t, Valid: true}, pgtype.Date{Time: t, Valid: true},
			pgtype.Timestamp{Time: t, Valid: true}, pgtype.Timestamptz{Time: t, Valid: true})
		for range 5 {
			s := t.Format(layouts[r.IntN(len(layouts))])
			values = append(values, s, plainText(s), []string{s}, sql.NullString{String: s, Valid: true})
		}
	}
	february := time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)
	return append(values, february, "2024-02-01", "2024-02-01 00:00:00", "2024-02-01 00:00:00Z", "infinity", "-infinity", "epoch", "2024-02-30", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "2024-01-01 24:00:00", "2024-01-01 23:59:60",
		"2024-01-01 24:00:00+00", "2024-01-01 00:00:00+24", "2024-01-01 00:00:00+15:59", "2024-01-01 00:00:00.", "0001-01-01 00:00:00+05", pgtype.Date{InfinityModifier: pgtype.Infinity, Valid: true})
}

type plainText string

// TestPostgresJudgesCanonicalForms takes values in every spelling and from every
// source: an argument, an array, a literal, the text of the write-ahead log, the row
// of an upsert; in every exec mode, under several settings. What has a canonical
// form must be of the row that PostgreSQL finds by it, and of no other.
func TestPostgresJudgesCanonicalForms(t *testing.T) {
	t.Parallel()
	seed := *spellingSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test -run '^TestPostgresJudgesCanonicalForms$' ./test/reads -spelling.seed=%d", seed)
	database := pgtest.Database(t)
	pgtest.Exec(t, database, `CREATE DOMAIN day AS date CHECK (value <> '2000-01-01'); CREATE DOMAIN code AS char(3);
		CREATE DOMAIN price AS numeric(6,1)`)
	for _, s := range spelledTypes {
		t.Run(s.typ, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			schema := strings.NewReplacer("(", "_", ")", "", ",", "_").Replace("of_" + s.typ)
			pgtest.Exec(t, database, `CREATE SCHEMA `+schema+`; CREATE TABLE `+schema+`.samples (ord int GENERATED ALWAYS AS IDENTITY, k `+s.typ+` PRIMARY KEY, n int)`)
			j := &judged{T: t, typ: s.typ, values: s.values(r), byRow: map[int]uint64{}, byHash: map[uint64]int{}, random: r}
			sessions := []string{"ISO, MDY|UTC", "SQL, DMY|Asia/Tokyo", "German|America/St_Johns"}
			if !s.dated {
				sessions = sessions[:1]
			}
			for _, settings := range sessions {
				style, zone, _ := strings.Cut(settings, "|")
				j.session = pgtest.Connect(t, database)
				for _, sql := range []string{"SET datestyle = '" + style + "'", "SET timezone = '" + zone + "'", "SET search_path = " + schema + ", public"} {
					if _, err := j.session.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				j.path = []string{"pg_catalog", schema, "public"}
				j.judge()
			}
			if j.known < s.least {
				t.Errorf("%d questions had a canonical form, so little was tested", j.known)
			}
		})
	}
}

// judged keeps which canonical forms are of which rows.
type judged struct {
	*testing.T
	typ      string
	values   []any
	session  *pgx.Conn
	path     []string
	snapshot *catalog.Snapshot
	byRow    map[int]uint64
	byHash   map[uint64]int
	known    int
	random   *rand.Rand
}

var execModes = []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}

func (j *judged) judge() {
	for _, mode := range execModes { // whatever of the values PostgreSQL takes is a row
		for _, v := range j.values {
			j.session.Exec(j.Context(), "INSERT INTO samples (k) VALUES ($1) ON CONFLICT DO NOTHING", mode, v)
		}
	}
	var err error
	if j.snapshot, err = catalog.Load(j.Context(), j.session); err != nil {
		j.Fatal(err)
	}
	j.stored()
	for _, v := range j.values {
		query := "SELECT ord FROM samples WHERE k = $1"
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice {
			query = "SELECT ord FROM samples WHERE k = ANY($1)"
		}
		for _, mode := range execModes {
			j.found(mode, query, v)
		}
		// Where the parameter's type comes from elsewhere in the text.
		mode := execModes[j.random.IntN(len(execModes))]
		for _, other := range []string{"now()", "localtimestamp", "current_date", "pi()", "'a'::\"char\""} {
			j.found(mode, "SELECT ord FROM samples WHERE ($1 = "+other+" OR ord > 0) AND "+strings.TrimPrefix(query, "SELECT ord FROM samples WHERE "), v)
		}
		for _, typ := range []string{"timestamptz", "float8", "text", j.typ} {
			j.found(mode, "SELECT ord FROM samples WHERE k IN ($1, $2::"+typ+") AND k = $1", v, v)
			j.found(mode, "SELECT ord FROM samples WHERE k = $1::"+typ, v)
		}
		if reflect.TypeOf(v).Kind() != reflect.Slice {
			for _, mode := range execModes {
				j.upserted(mode, v)
			}
		}
		if s, ok := v.(string); ok {
			literal := "'" + s + "'"
			j.found(pgx.QueryExecModeExec, "SELECT ord FROM samples WHERE k = "+literal)
			j.found(pgx.QueryExecModeExec, "SELECT ord FROM samples WHERE k = "+literal+"::"+j.typ)
			j.found(pgx.QueryExecModeExec, "SELECT ord FROM samples WHERE k = "+literal+"::timestamptz")
			j.found(pgx.QueryExecModeExec, "SELECT ord FROM samples WHERE k IN ("+literal+")")
			if strings.Trim(s, "0123456789.-") == "" {
				j.found(pgx.QueryExecModeExec, "SELECT ord FROM samples WHERE k = "+s)
			}
		}
	}
}

// tags are what the plan of a text says of these arguments.
func (j *judged) plan(query string, args []any) (*keying.Plan, keying.Values) {
	text, literals := query, []parser.Literal(nil)
	if scanned, ok := parser.Scan(query); ok {
		text, literals = scanned.Text, scanned.Literals
	}
	statements, err := parser.Parse(query, literals)
	if err != nil {
		return nil, keying.Values{} // PostgreSQL refuses it too
	}
	var named []driver.NamedValue
	for i, v := range args {
		named = append(named, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return keying.New(text, statements, j.snapshot, j.path), keying.Values{Args: named, Literals: literals}
}

func rowOf(tags []store.Tag) (hash uint64, ok bool) {
	for _, tag := range tags {
		if tag.Kind == store.TagRow {
			return tag.Value, true
		}
	}
	return 0, false
}

func (j *judged) found(mode pgx.QueryExecMode, query string, args ...any) {
	j.Helper()
	plan, v := j.plan(query, args)
	if plan == nil {
		return
	}
	tags, _, _ := plan.ReadTags(nil, v)
	hash, ok := rowOf(tags)
	if !ok {
		return
	}
	rows, err := j.session.Query(j.Context(), query, append([]any{mode}, args...)...)
	if err != nil {
		return
	}
	ords, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return // nothing was read or written by it
	}
	for _, ord := range ords {
		j.of(ord, hash, fmt.Sprintf("%v: %s, %T %v", mode, query, args, args))
	}
	if len(ords) == 0 && j.byHash[hash] != 0 {
		j.Errorf("%v: %s, %T %v: the canonical form of row %d, which is not found", mode, query, args, args, j.byHash[hash])
	}
}

func (j *judged) upserted(mode pgx.QueryExecMode, value any) {
	j.Helper()
	const upsert = "INSERT INTO samples (k) VALUES ($1) ON CONFLICT (k) DO UPDATE SET n = 1 RETURNING ord"
	plan, v := j.plan(upsert, []any{value})
	hash, ok := rowOf(plan.WriteTags(nil, v))
	if !ok {
		return
	}
	tx, err := j.session.Begin(j.Context())
	if err != nil {
		j.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	var ord int
	if err := tx.QueryRow(j.Context(), upsert, mode, value).Scan(&ord); err == nil {
		j.of(ord, hash, fmt.Sprintf("%v: %s, %T %v", mode, upsert, value, value))
	}
}

// stored takes the rows as the write-ahead log would tell of them in this session.
func (j *judged) stored() {
	rows, err := j.session.Query(j.Context(), "SELECT ord, k::text FROM samples")
	if err != nil {
		j.Fatal(err)
	}
	relation := j.snapshot.Resolve(j.path, "", "samples").OID
	var ord int
	var text string
	pgx.ForEachRow(rows, []any{&ord, &text}, func() error {
		tags := keying.ChangedTags(nil, j.snapshot, relation, 1, func(int, string) keying.StoredValue {
			return keying.StoredValue{Text: text, Known: true}
		})
		if hash, ok := rowOf(tags); ok {
			j.of(ord, hash, "stored "+text)
		}
		return nil
	})
	if err := rows.Err(); err != nil {
		j.Fatal(err)
	}
}

// of notes that a canonical form is of a row.
func (j *judged) of(ord int, hash uint64, from string) {
	j.Helper()
	j.known++
	if known, ok := j.byRow[ord]; ok && known != hash {
		j.Errorf("%s: row %d has another canonical form already", from, ord)
	}
	if other, ok := j.byHash[hash]; ok && other != ord {
		j.Errorf("%s: row %d has the canonical form of row %d", from, ord, other)
	}
	j.byRow[ord], j.byHash[hash] = hash, ord
}
