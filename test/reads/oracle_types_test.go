package reads

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// samples are texts of values, by pg_type.typname. Every type has NULL besides.
var samples = map[string][]string{
	"aclitem":       {"=r/postgres"},
	"bit":           {"0", "1"},
	"bool":          {"t", "f"},
	"box":           {"(0,0),(0,0)", "(1e300,-1),(-Infinity,NaN)"},
	"bpchar":        {"", "a ", "ünï"},
	"bytea":         {"", `\x00ff5c27`, strings.Repeat("long", 10000)},
	"char":          {"", "a"},
	"cid":           {"0", "4294967295"},
	"cidr":          {"0.0.0.0/0", "10.1.2.0/24", "::/0", "2001:db8::/32"},
	"circle":        {"<(0,0),0>", "<(1,2),Infinity>"},
	"date":          {"2000-01-01", "2024-02-29", "4714-11-24 BC", "5874897-12-31", "0001-12-31 BC", "infinity", "-infinity"},
	"float4":        {"0", "-0", "1.1", "NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38"},
	"float8":        {"0", "-0", "1.1", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308"},
	"inet":          {"0.0.0.0/0", "10.1.2.3", "10.1.2.3/8", "::1", "::ffff:1.2.3.4/64"},
	"int2":          {"0", "-32768", "32767"},
	"int2vector":    {"", "1 -2 3"},
	"int4":          {"0", "-2147483648", "2147483647"},
	"int8":          {"0", "-9223372036854775808", "9223372036854775807"},
	"interval":      {"0", "-178000000 years", "1 mon 2 days 03:04:05.000006", "-1 mon +2 days -00:00:01"},
	"json":          {"null", "{}", `{"a":  [1, 2.50, "ü\u00fc"], "a": 2}`, `""`, strings.Repeat(" ", 5000) + "1"},
	"jsonb":         {"null", "{}", `{"a":  [1, 2.50, "ü\u00fc"], "a": 2}`, `""`},
	"jsonpath":      {"$", "strict $.a[*] ? (@ > 1)"},
	"line":          {"{1,0,0}", "{-1.5,2,3}"},
	"lseg":          {"[(0,0),(1,1)]"},
	"macaddr":       {"00:00:00:00:00:00", "08:00:2b:01:02:03"},
	"macaddr8":      {"ff:ff:ff:ff:ff:ff:ff:ff"},
	"money":         {"0", "-92233720368547758.08", "92233720368547758.07"},
	"name":          {"", "añb", strings.Repeat("n", 63)},
	"numeric":       {"0", "0.00", "-1.5", "NaN", "Infinity", "-Infinity", "1e1000", "1e-1000", "123456789012345678901234567890.0123456789"},
	"oid":           {"0", "1", "4294967295"},
	"oidvector":     {"", "1 4294967295"},
	"path":          {"[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"},
	"pg_lsn":        {"0/0", "FFFFFFFF/FFFFFFFF"},
	"pg_snapshot":   {"10:20:10,14,15"},
	"point":         {"(0,0)", "(NaN,Infinity)"},
	"polygon":       {"((0,0),(1,1),(1,0))"},
	"refcursor":     {"", "c"},
	"regclass":      {"-", "pg_class"},
	"regcollation":  {"-", `"C"`},
	"regconfig":     {"english"},
	"regdictionary": {"simple"},
	"regnamespace":  {"-", "pg_catalog"},
	"regoper":       {"0"},
	"regoperator":   {"0", "+(integer,integer)"},
	"regproc":       {"-", "boolin"},
	"regprocedure":  {"-", "abs(integer)"},
	"regrole":       {"-", "pg_monitor"},
	"regtype":       {"-", "integer", "4294967295"},
	"text":          {"", "a", "Ünï ☃ 😀", "line\nline\t'quoted' \"double\" back\\slash", strings.Repeat("long", 20000)},
	"tid":           {"(0,0)", "(4294967295,65535)"},
	"time":          {"00:00:00", "23:59:59.999999", "24:00:00"},
	"timestamp":     {"2000-01-01", "2024-02-29 23:59:59.999999", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59", "infinity", "-infinity"},
	"timestamptz":   {"2000-01-01 00:00:00+00", "2024-07-01 12:00:00.123456+09", "0001-01-01 00:00:00+00", "294276-12-31 23:59:59+00", "infinity", "-infinity"},
	"timetz":        {"00:00:00+00", "24:00:00-15:59", "12:34:56.789+05:30"},
	"tsquery":       {"", "'a' & !'b':A* <-> 'c'"},
	"tsvector":      {"", "a:1A b:2,3"},
	"txid_snapshot": {"10:20:10,14,15"},
	"uuid":          {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
	"varbit":        {"", "1", "0101010101010101"},
	"varchar":       {"", "a ", "ünï"},
	"xid":           {"0", "4294967295"},
	"xid8":          {"0", "18446744073709551615"},
	"xml":           {"", "<a>ü</a>", "text"},

	"daterange":      {"empty", "(,)", "[2000-01-01,2000-01-02)", "[2000-01-01,infinity]"},
	"int4range":      {"empty", "(,)", "[1,5]", "(,-1]"},
	"int8range":      {"empty", "(,)", "[1,9223372036854775807)"},
	"numrange":       {"empty", "(,)", "(1.0,1.50]", "[NaN,]"},
	"tsrange":        {"empty", "(,)", "[2000-01-01,2000-01-01 00:00:01]"},
	"tstzrange":      {"empty", "(,)", "[-infinity,2000-01-01 00:00:00+00)"},
	"datemultirange": {"{}", "{[2000-01-01,2000-01-02),[2001-01-01,)}"},
	"int4multirange": {"{}", "{(,)}", "{[1,2),[3,4)}"},
	"int8multirange": {"{}", "{[1,2),[3,4)}"},
	"nummultirange":  {"{}", "{[1.5,2.5]}"},
	"tsmultirange":   {"{}", "{[2000-01-01,2001-01-01)}"},
	"tstzmultirange": {"{}", "{[2000-01-01 00:00:00+00,)}"},

	"cardinal_number": {"0", "2147483647"},
	"character_data":  {"", "a"},
	"sql_identifier":  {"", "a"},
	"time_stamp":      {"2000-01-01 00:00:00+00"},
	"yes_or_no":       {"YES", "NO"},

	"mood":       {"sad", "ünï happy", ""},
	"positive":   {"1", "2147483647"},
	"label":      {"a", ""},
	"pair":       {"(,)", `(1,"a ""b"" \\\\ ,")`, `(-5,"")`},
	"nested":     {`("(1,a)",sad,"{1,2}")`, "(,,)"},
	"floatrange": {"empty", "[1.5,2.5]", "(,)"},
	"floatmulti": {"{}", "{[1.5,2.5],[3,4]}"},
}

const oracleTypes = `
	CREATE TYPE mood AS ENUM ('sad', 'ünï happy', '');
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN label AS text COLLATE "C" NOT NULL;
	ALTER DOMAIN label DROP NOT NULL;
	CREATE TYPE pair AS (a int, b text);
	CREATE TYPE nested AS (p pair, m mood, l int[]);
	CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = floatmulti);`

// withoutInput are the types whose input function refuses everything, so that
// only NULL can be tried.
var withoutInput = []string{"gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list", "pg_ndistinct", "pg_node_tree"}

func TestArgumentsAreAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, "CREATE TABLE one (id int); INSERT INTO one VALUES (1)")
	at := time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.UTC)
	tokyo := time.FixedZone("", 9*3600)
	type text string
	seven := 7
	var none *int
	cases := []struct {
		typ  string
		args []any
	}{
		{"int2", []any{0, -32768, 32767, int8(5), uint16(9), "12", " 12 ", true, 1.0, nil, &seven, none, sql.NullInt64{}, sql.NullInt64{Int64: 4, Valid: true}}},
		{"int4", []any{0, math.MinInt32, math.MaxInt32, math.MaxInt32 + 1, "x", []byte("12"), pgtype.Int4{Int32: 3, Valid: true}, pgtype.Int4{}}},
		{"int8", []any{0, math.MinInt64, math.MaxInt64, uint64(math.MaxUint64), "9223372036854775807", int32(-1), text("5"), json(5)}},
		{"text", []any{"", "a", "Ünï ☃ 😀", "it's", `back\slash`, "$1", strings.Repeat("long ", 5000), []byte("bytes"), text("own"), 5, 1.5, nil, sql.NullString{}, sql.NullString{Valid: true}, at, true}},
		{"varchar(3)", []any{"", "abcdef", nil}},
		{"bpchar", []any{"", "a ", nil}},
		{"bytea", []any{[]byte{}, []byte{0, 255, '\\'}, []byte(nil), "text", `\x00ff`, nil}},
		{"bool", []any{true, false, "t", "yes", nil, sql.NullBool{Valid: true}, 1}},
		{"float4", []any{0.0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), float32(1.1), 1.1, 1e300, 5, "1.5"}},
		{"float8", []any{0.0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.SmallestNonzeroFloat64, math.MaxFloat64, float32(1.1), 5}},
		{"numeric", []any{0, "0.00", "1e5", "NaN", 1.5, math.NaN(), "123456789012345678901234567890.123456789", pgtype.Numeric{}}},
		{"date", []any{at, at.In(tokyo), "2024-02-29", "infinity", "0044-03-15 BC", pgtype.Date{}, time.Time{}}},
		{"timestamp", []any{at, at.In(tokyo), "2024-02-29 01:02:03.4", pgtype.Timestamp{InfinityModifier: pgtype.Infinity, Valid: true}}},
		{"timestamptz", []any{at, at.In(tokyo), at.In(time.Local), "2024-02-29 01:02:03+03", "-infinity", sql.NullTime{}, sql.NullTime{Time: at, Valid: true}}},
		{"time", []any{"00:00", "24:00", pgtype.Time{Microseconds: 5, Valid: true}, nil}},
		{"interval", []any{time.Second, "1 month 2 days", pgtype.Interval{Months: 1, Valid: true}}},
		{"uuid", []any{"00000000-0000-0000-0000-000000000001", [16]byte{1, 2}, pgtype.UUID{Bytes: [16]byte{3}, Valid: true}, make([]byte, 16), nil}},
		{"json", []any{`{"a": [1]}`, "null", []byte("[]"), nil, map[string]any{"a": 1}}},
		{"jsonb", []any{`{"b":1,  "a":2}`, []byte("1"), []int{1, 2}, nil}},
		{"inet", []any{"10.0.0.1/8", netip.MustParseAddr("::1"), netip.MustParsePrefix("10.0.0.0/8"), nil}},
		{"int4[]", []any{[]int{}, []int{1, 2}, []int32{3}, []*int{nil, &seven}, []int(nil), "{1,NULL}", [][]int{{1}, {2}}, nil}},
		{"text[]", []any{[]string{}, []string{"", "a b", `"`, "NULL", "{"}, []text{"x"}, "{a,NULL}", pgtype.FlatArray[string]{"a"}, nil}},
		{"bytea[]", []any{[][]byte{{}, {1}}, nil}},
		{"int4range", []any{"[1,5)", "empty", pgtype.Range[pgtype.Int4]{Lower: pgtype.Int4{Int32: 1, Valid: true}, LowerType: pgtype.Inclusive, UpperType: pgtype.Unbounded, Valid: true}}},
		{"point", []any{"(1,2)", pgtype.Point{P: pgtype.Vec2{X: 1}, Valid: true}}},
		{"oid", []any{1, uint32(math.MaxUint32), "7", -1}},
	}
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := harness.NewOracle(t, database, mode)
			o.Dests = harness.FewDestinations
			met := make(map[string]int)
			for _, tc := range cases {
				for _, arg := range tc.args {
					query := fmt.Sprintf("SELECT $1::%s AS v, id FROM one", tc.typ)
					if met[o.Agree(t, query, arg)]++; t.Failed() {
						t.Fatalf("with a %T", arg)
					}
				}
			}
			if met["miss, hit"] < 100 {
				t.Errorf("got %v, want most of them cached", met)
			}
		})
	}
}

// json is an integer with a marshaler of its own.
type json int

func (json) MarshalJSON() ([]byte, error) { return []byte("17"), nil }

// Literals that differ in more than their spelling never share an entry.
func TestLiteralsAreAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, "CREATE TABLE one (id int, name text); INSERT INTO one VALUES (1, NULL), (2, '')")
	o := harness.NewOracle(t, database, "cache_statement")
	for _, query := range []string{
		"SELECT id FROM one WHERE name IS NULL", "SELECT id FROM one WHERE name = ''", "SELECT id FROM one WHERE name = 'x'",
		"SELECT name FROM one WHERE id = 1", "SELECT name FROM one WHERE id = 2", "SELECT name FROM one WHERE id = -1",
		"SELECT 1, id FROM one", "SELECT '1', id FROM one", "SELECT 1.0, id FROM one", "SELECT 1.00, id FROM one",
		"SELECT 1e0, id FROM one", "SELECT 9999999999, id FROM one", "SELECT -1, id FROM one", "SELECT B'1', id FROM one", "SELECT X'1', id FROM one",
		`SELECT E'\n', id FROM one`, `SELECT '\n', id FROM one`, `SELECT U&'\000a', id FROM one`, "SELECT $$\n$$, id FROM one",
		"SELECT 'a'\n'b', id FROM one", "SELECT N'ü', id FROM one", "SELECT 'it''s', id FROM one", "SELECT true, id FROM one",
		"SELECT NULL, id FROM one", "SELECT id FROM one ORDER BY 1", "SELECT name, id FROM one ORDER BY 2", "SELECT id FROM one LIMIT 1",
		"SELECT id FROM one GROUP BY 1 ORDER BY 1", "SELECT interval '1' day, id FROM one", "SELECT interval '1 day', id FROM one",
		"SELECT '2024-01-01'::date, id FROM one", "SELECT date '2024-01-02', id FROM one", "SELECT 'a'::char(3), id FROM one", "SELECT 'a'::varchar(4), id FROM one",
		"SELECT 1.5::numeric(5,1), id FROM one", "SELECT 1.5::numeric(6,2), id FROM one",
	} {
		if met := o.Agree(t, query); !strings.HasSuffix(met, "hit") {
			t.Errorf("%s: got %q", query, met)
		}
	}
}

// valueType is a type with the texts of its values and the table that holds them.
type valueType struct {
	name, table string
	row         bool // of a catalog or view: there are hundreds
}

// typeTables makes a table for every type of the server that a column may
// have, with all its samples in it.
func typeTables(t *testing.T, dsn string) (types []valueType) {
	conn := pgtest.Connect(t, dsn)
	ctx := context.Background()
	exec := func(sql string) error { _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); return err }
	if err := exec(oracleTypes); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(ctx, `
		SELECT t.oid::int8, t.typname::text, t.typtype::text, format_type(t.oid, NULL), e.typname::text, c.relkind IS NOT NULL AND n.nspname <> 'public',
			(SELECT count(*) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND attnum > 0)
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
			LEFT JOIN pg_type e ON e.typarray = t.oid
			LEFT JOIN pg_class c ON c.oid = coalesce(nullif(t.typrelid, 0), nullif(e.typrelid, 0))
		WHERE n.nspname IN ('pg_catalog', 'information_schema', 'public') AND t.typtype IN ('b', 'r', 'm', 'e', 'd', 'c')
		ORDER BY t.oid`)
	if err != nil {
		t.Fatal(err)
	}
	type typ struct {
		OID                   int64
		Name, Kind, Formatted string
		Element               *string
		Row                   bool
		Columns               int
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[typ])
	if err != nil {
		t.Fatal(err)
	}
	if err := exec("BEGIN"); err != nil {
		t.Fatal(err)
	}
	var noInput, noColumn []string
	for _, typ := range all {
		values := []string{"NULL"}
		texts, known := samples[typ.Name]
		if typ.Element != nil {
			for _, text := range samples[*typ.Element] {
				values = append(values, harness.Quoted(text)+"::"+strings.TrimSuffix(typ.Formatted, "[]"))
			}
			values = []string{"NULL", "'{}'", "ARRAY[" + strings.Join(values, ", ") + "]", "ARRAY[[NULL], [NULL]]"}
		} else {
			for _, text := range texts {
				values = append(values, harness.Quoted(text))
			}
			switch {
			case typ.Kind == "c" && !known:
				values = append(values, "'("+strings.Repeat(",", typ.Columns-1)+")'")
			case !known:
				noInput = append(noInput, typ.Name)
			}
		}
		v := valueType{name: typ.Name, table: fmt.Sprintf("v_%d", typ.OID), row: typ.Row}
		var b strings.Builder
		fmt.Fprintf(&b, "SAVEPOINT s; CREATE TABLE public.%s (id int, v %s);", v.table, typ.Formatted)
		for i, value := range values {
			fmt.Fprintf(&b, "INSERT INTO %s VALUES (%d, %s::%s);", v.table, i, value, typ.Formatted)
		}
		if err := exec(b.String()); err != nil {
			if !strings.Contains(err.Error(), "pseudo-type") {
				t.Errorf("%s: %v", typ.Name, err)
			}
			noColumn = append(noColumn, typ.Name)
			if err := exec("ROLLBACK TO s"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		types = append(types, v)
	}
	if err := exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(noInput); !slices.Equal(noInput, withoutInput) {
		t.Errorf("types without samples:\ngot  %q\nwant %q", noInput, withoutInput)
	}
	slices.Sort(noColumn)
	t.Logf("%d types, not these, whose rows hold pseudo-types: %q", len(types), noColumn)
	return types
}

// neverCached are the types whose text form depends on more than the value.
var neverCached = []string{"aclitem", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace",
	"regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype", "timetz"}

func TestEveryTypeIsAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	types := typeTables(t, database)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := harness.NewOracle(t, database, mode)
			var bypassed []string
			for _, typ := range types {
				if typ.row && mode != "cache_statement" {
					continue // hundreds, and all alike
				}
				o.Dests = harness.Destinations
				if typ.row {
					o.Dests = harness.FewDestinations
				}
				switch met := o.Agree(t, "SELECT v FROM "+typ.table+" ORDER BY id"); {
				case strings.HasPrefix(met, "bypass") && !typ.row:
					bypassed = append(bypassed, typ.name)
				case met != "miss, hit" && !typ.row:
					t.Errorf("%s: got %q", typ.name, met)
				}
			}
			want := slices.Clone(neverCached)
			for _, name := range neverCached {
				want = append(want, "_"+name)
			}
			slices.Sort(want)
			if slices.Sort(bypassed); !slices.Equal(bypassed, want) {
				t.Errorf("types that are never cached:\ngot  %q\nwant %q", bypassed, want)
			}
		})
	}
}
