package keying

import (
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// castSchema has texts and times under the same names in different tables.
func castSchema(t testing.TB) *catalog.Snapshot {
	c := &catalog.Contents{}
	for _, typ := range testTypes {
		typ.Schema, typ.Builtin, typ.Kind = "pg_catalog", true, 'b'
		c.Types = append(c.Types, typ)
	}
	builtin := func(oid uint32, name string, kind byte, element uint32) {
		c.Types = append(c.Types, catalog.Type{OID: oid, Schema: "pg_catalog", Name: name, Kind: kind, Element: element, Builtin: true})
	}
	builtin(1009, "_text", 'b', oidText)
	builtin(1182, "_date", 'b', oidDate)
	builtin(1185, "_timestamptz", 'b', oidTimestamptz)
	builtin(3910, "tstzrange", 'r', 0)
	builtin(4534, "tstzmultirange", 'm', 0)
	c.Types = append(c.Types,
		catalog.Type{OID: 9010, Schema: "public", Name: "note_text", Kind: 'd', Base: oidText},
		catalog.Type{OID: 9011, Schema: "public", Name: "birthday", Kind: 'd', Base: oidDate},
		catalog.Type{OID: 9012, Schema: "public", Name: "span", Kind: 'c'},
		catalog.Type{OID: 9013, Schema: "public", Name: "_span", Kind: 'b', Element: 9012},
		catalog.Type{OID: 9014, Schema: "public", Name: "citext", Kind: 'b'},
		catalog.Type{OID: 9015, Schema: "public", Name: "colour", Kind: 'e'},
	)
	function := func(schema, name string, most int16) {
		c.Functions = append(c.Functions, catalog.Function{Schema: schema, Name: name, MinArgs: 1, MaxArgs: most, Volatility: 'i', Builtin: schema == "pg_catalog"})
	}
	for _, name := range []string{"date", "timestamptz", "date_trunc", "timezone", "lower", "max", "min", "unnest", "generate_series",
		"to_date", "tstzrange", "tstzmultirange", "jsonb_array_elements_text", "string_to_array", "date_bin", "make_date"} {
		function("pg_catalog", name, 4)
	}
	function("public", "slug", 1)
	function("public", "date_bin", 3)
	for _, o := range []string{"+", "-", "||", "->>", "=", "<", ">"} {
		c.Operators = append(c.Operators, catalog.Operator{Schema: "pg_catalog", Name: o, Left: oidDate, Right: oidInterval, Volatility: 'i', Builtin: true})
	}
	c.Operators = append(c.Operators,
		catalog.Operator{Schema: "public", Name: "+", Left: 1007, Right: oidInt4, Volatility: 'i'}, // as of intarray
		catalog.Operator{Schema: "public", Name: "-", Left: oidDate, Right: 9014, Volatility: 'i'},
	)
	tables(t, c, `
r events 100 | id int8, at timestamptz, day date, n int4, dates _date, during tstzrange | 101* id
r notes  110 | id int8, note text, day text, doc jsonb, list _text, own note_text, ci citext, spans _span, colour colour | 111* id
r plain  120 | id int8, v varchar | 121* id
`)
	return catalog.NewSnapshot(*c)
}

// What is read as a time is never a text of the database.
func TestCastsToTimes(t *testing.T) {
	snapshot := castSchema(t)
	for _, test := range []struct {
		want Reason
		sql  []string
	}{
		{NoReason, []string{
			"SELECT at::date FROM events",
			"SELECT (at)::date, e.at::date, cast(at AS date), date(at), public.events.at::date FROM events e, public.events",
			"SELECT date_trunc('day', at)::date FROM events",
			"SELECT (at AT TIME ZONE 'UTC')::date FROM events",
			"SELECT $1::date, '2024-01-01'::date, date '2024-01-01', $1::text::date, ('2024-01-01'::varchar)::date",
			"SELECT id FROM events WHERE at::date = $1::date",
			"SELECT id FROM events WHERE day = ANY($1::date[])",
			"SELECT (at + interval '1 day')::date, (day + n)::date FROM events",
			"SELECT coalesce(at, $1)::date, (CASE WHEN n > 1 THEN at ELSE day END)::date, greatest(at, day)::date, nullif(at, $1)::date FROM events",
			"SELECT max(at)::date, min(day)::timestamptz, (SELECT max(at) FROM events)::date FROM events",
			"SELECT d::date FROM generate_series($1::date, $2::date, '1 day') AS d",
			"SELECT d.d::date FROM generate_series($1::date, $2::date, '1 day') AS d",
			"SELECT x::date FROM generate_series($1::date, $2::date, '1 day') AS d(x)",
			"SELECT u::date FROM events, unnest(dates) u",
			"SELECT lower(during)::date FROM events",
			"SELECT dates[1]::timestamptz, dates::timestamptz[] FROM events",
			"SELECT d::timestamptz FROM (SELECT date_trunc('day', at) AS d FROM events) s",
			"WITH s AS (SELECT at::date AS d, n FROM events) SELECT d::timestamptz FROM s",
			"WITH s AS (SELECT * FROM events) SELECT at::date FROM s",
			"SELECT day::timestamptz FROM (SELECT e.* FROM events e) s",
			"SELECT at::date FROM events, (SELECT id FROM notes) n",
			"SELECT d::date FROM (SELECT at FROM events UNION ALL SELECT day FROM events) s(d)",
			"WITH RECURSIVE days AS (SELECT $1::date AS d UNION ALL SELECT (d + 1)::date FROM days WHERE d < $2::date) SELECT d::timestamptz FROM days",
			"SELECT v::date FROM (VALUES ('2024-01-01'), ('2024-01-02')) x(v)",
			"SELECT column1::date FROM (VALUES ('2024-01-01')) x",
			"SELECT (SELECT e.at::date) FROM events e",
			"SELECT to_date(note, 'YYYY-MM-DD')::timestamptz FROM notes",
			"SELECT note::int4, note::text, text(note), id::text, doc->>'a' FROM notes",
			"SELECT at::birthday, birthday(at) FROM events",
			"SELECT colour::date FROM notes", // PostgreSQL refuses it
		}},
		{ClockCast, []string{
			"SELECT note::date FROM notes",
			"SELECT cast(note AS timestamp) FROM notes",
			`SELECT "timestamptz"(note) FROM notes`,
			"SELECT pg_catalog.timestamptz(note) FROM notes",
			"SELECT date(note) FROM notes",
			"SELECT (note).timestamptz FROM notes",
			"SELECT (lower(note)).date FROM notes",
			"SELECT n.timestamptz FROM notes, unnest(list) AS n",
			"SELECT tstzrange(note) FROM notes",
			"SELECT note::tstzrange, note::tstzmultirange FROM notes",
			"SELECT _timestamptz(note), note::date[], list::date[] FROM notes",
			"SELECT birthday(note) FROM notes",
			"SELECT note::birthday FROM notes",
			"SELECT note::span FROM notes",
			"SELECT ROW(note)::span FROM notes",
			"SELECT own::date FROM notes",
			"SELECT ci::date FROM notes",
			"SELECT list[1]::date FROM notes",
			"SELECT u::date FROM notes, unnest(list) u",
			"SELECT (spans[1]).at::date FROM notes",
			"SELECT (doc->>'due')::date FROM notes",
			"SELECT d::date FROM notes, jsonb_array_elements_text(doc) d",
			"SELECT ('no' || $1)::date",
			"SELECT 'nowhere'::varchar(3)::date, $1::name::date",
			"SELECT string_to_array($1, ',')::date[]",
			"SELECT slug($1)::date",
			"SELECT date_bin($1, at, $2)::date FROM events", // one of the user's own
			"SELECT (at - $1)::date FROM events",            // an operator of the user's own
			"SELECT max(note)::date FROM notes",
			"SELECT coalesce(note, $1)::date FROM notes",
			"SELECT (CASE WHEN id > 1 THEN note END)::date FROM notes",
			"SELECT (SELECT note FROM notes)::date",
			"SELECT ARRAY(SELECT note FROM notes)::date[]",
			"SELECT ARRAY[note]::date[] FROM notes",
			// Names that mean a text here, and a time elsewhere.
			"SELECT day::date FROM notes",
			"SELECT n.day::date FROM events e, notes n",
			"SELECT at::date FROM (SELECT note AS at FROM notes) s, (SELECT at AS x FROM events) e",
			"SELECT at::date FROM (SELECT note FROM notes) s(at)",
			"SELECT s.at::date FROM notes AS s(id, at)",
			"WITH events AS (SELECT note AS at FROM notes) SELECT at::date FROM events",
			"SELECT at::date FROM (notes JOIN plain ON true) AS j(a, at), (SELECT FROM events) e",
			"SELECT (SELECT max(day::date) FROM notes) FROM events",
			"SELECT (SELECT max(at::date) FROM (SELECT note AS at FROM notes) s) FROM events",
			"SELECT (SELECT max(at::date) FROM jsonb_array_elements_text($1) x(at)) FROM events",
			"SELECT (SELECT max(at::date) FROM slug($1)) FROM events", // a row with a column of that name, perhaps
			"SELECT d::date FROM (SELECT $1 AS d UNION SELECT note FROM notes) s",
			"SELECT d::date FROM (SELECT max('x') AS d UNION SELECT note FROM notes) s",
			"SELECT d::date FROM (SELECT note AS d FROM notes UNION SELECT v FROM plain) s",
			"WITH RECURSIVE r AS (SELECT 'n' AS x UNION ALL SELECT x || 'ow' FROM r) SELECT x::date FROM r",
			"SELECT v::date FROM (VALUES ((SELECT note FROM notes))) x(v)",
			"SELECT x::date FROM (SELECT *, 1 AS one FROM notes) s(a, x)",
			"SELECT nothing::date FROM events",
		}},
	} {
		for _, sql := range test.sql {
			if p, _ := planFor(t, snapshot, sql); p.Reason != test.want {
				t.Errorf("%s: got %s (%s), want %s", sql, p.Reason, p.Detail, test.want)
			}
		}
	}
}

// Columns of queries within queries do not grow without end.
func TestManyColumnsOfOneName(t *testing.T) {
	snapshot := castSchema(t)
	sql := "WITH s0 AS (SELECT at AS a, at AS b FROM events)"
	from := "s0"
	for i := range 40 {
		to := string(rune('a'+i%26)) + from[1:] + "x"
		sql += ", " + to + " AS (SELECT x.*, y.*, coalesce(x.a, y.b, x.b) AS a FROM " + from + " x, " + from + " y)"
		from = to
	}
	sql += " SELECT a::date FROM " + from
	statements, err := parser.Parse(sql, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := New(sql, statements, snapshot, testPath); p.Reason != ClockCast {
		t.Errorf("got %s, want %s", p.Reason, ClockCast)
	}
}
