package keying

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

var testPath = []string{"pg_catalog", "public"}

// testTypes are name, OID and what else matters.
var testTypes = []catalog.Type{
	{OID: oidBool, Name: "bool"}, {OID: oidInt8, Name: "int8"}, {OID: oidInt2, Name: "int2"},
	{OID: oidInt4, Name: "int4"}, {OID: oidText, Name: "text"}, {OID: oidOID, Name: "oid"},
	{OID: oidVarchar, Name: "varchar"}, {OID: 1042, Name: "bpchar"}, {OID: oidUUID, Name: "uuid"},
	{OID: 1700, Name: "numeric"}, {OID: 701, Name: "float8"}, {OID: 700, Name: "float4"},
	{OID: 1082, Name: "date"}, {OID: 1083, Name: "time"}, {OID: 1114, Name: "timestamp"},
	{OID: 1184, Name: "timestamptz"}, {OID: oidTimetz, Name: "timetz"}, {OID: 1186, Name: "interval"},
	{OID: 114, Name: "json"}, {OID: 3802, Name: "jsonb"}, {OID: 17, Name: "bytea"}, {OID: 19, Name: "name"},
	{OID: 2205, Name: "regclass", Reg: true}, {OID: 3734, Name: "regconfig", Reg: true},
	{OID: 3614, Name: "tsvector"}, {OID: 3615, Name: "tsquery"},
	{OID: 1007, Name: "_int4", Element: oidInt4}, {OID: 1270, Name: "_timetz", Element: oidTimetz},
	{OID: 2210, Name: "_regclass", Element: 2205},
}

// testFunctions are name, least and most arguments, volatility and, for an
// aggregate, a.
const testFunctions = `
lower 1 1 i
upper 1 1 i
length 1 1 i
length 2 2 s
coalesce2 0 0 i
count 0 1 i a
sum 1 1 i a
max 1 1 i a
array_agg 1 1 i a
json_agg 1 1 s a
row_number 0 0 i
now 0 0 s
clock_timestamp 0 0 v
random 0 0 v
nextval 1 1 v
set_config 3 3 v
current_setting 1 2 s
pg_advisory_lock 1 2 v
pg_notify 2 2 v
gen_random_uuid 0 0 v
pg_sleep 1 1 v
query_to_xml 4 4 v
to_char 2 2 s
to_timestamp 1 1 i
to_timestamp 2 2 s
date_trunc 2 2 i
date_trunc 2 3 s
timezone 2 2 i
timezone 2 2 s
concat 0 -1 s
age 1 1 s
age 2 2 i
date 1 1 i
date 1 1 s
to_tsvector 1 1 s
to_tsvector 2 2 i
generate_series 2 3 i
generate_series 3 3 s
jsonb_build_object 0 -1 s
pg_get_viewdef 1 2 s
has_table_privilege 2 3 s
pg_partition_root 1 1 i
percentile_cont 2 2 i a
current_database 0 0 s
`

const testOperators = "= <> < > <= >= + - * / || -> ->> @> @@ ~ ~~"

// testSchema is the schema of the transcripts.
func testSchema(t testing.TB) *catalog.Snapshot {
	t.Helper()
	return catalog.NewSnapshot(testContents(t))
}

// testContents is what testSchema is made of, for a test to change.
func testContents(t testing.TB) catalog.Contents {
	t.Helper()
	c := catalog.Contents{}
	for _, typ := range testTypes {
		typ.Schema, typ.Builtin, typ.Kind = "pg_catalog", true, 'b'
		c.Types = append(c.Types, typ)
	}
	c.Types = append(c.Types,
		catalog.Type{OID: 9001, Schema: "public", Name: "mood", Kind: 'e'},
		catalog.Type{OID: 9002, Schema: "public", Name: "email", Kind: 'd', Base: oidText},
		catalog.Type{OID: 9003, Schema: "public", Name: "checked", Kind: 'd', Base: oidText, Volatility: 'v', Writers: []uint32{19003}},
		catalog.Type{OID: 9004, Schema: "public", Name: "odd", Kind: 'b', Volatility: 's'},
		catalog.Type{OID: 9005, Schema: "public", Name: "daytime", Kind: 'd', Base: oidTimetz},
	)
	for _, line := range strings.Split(strings.TrimSpace(testFunctions), "\n") {
		f := strings.Fields(line)
		least, _ := strconv.Atoi(f[1])
		most, _ := strconv.Atoi(f[2])
		c.Functions = append(c.Functions, catalog.Function{Schema: "pg_catalog", Name: f[0], MinArgs: int16(least),
			MaxArgs: int16(most), Volatility: f[3][0], Builtin: true, Aggregate: len(f) > 4})
	}
	oid := uint32(20000)
	user := func(name string, args int16, volatility byte, mayWrite bool) {
		oid++
		var writers []uint32
		if mayWrite {
			writers = []uint32{oid}
		}
		c.Functions = append(c.Functions, catalog.Function{Schema: "public", Name: name, MinArgs: args, MaxArgs: args,
			Volatility: volatility, OID: oid, Writers: writers})
	}
	user("slug", 1, 'i', false)
	user("visible", 1, 's', false)
	user("bump", 1, 'v', true)
	user("uuid_generate_v4", 0, 'v', false)
	user("full_name", 1, 'v', true)
	for _, o := range strings.Fields(testOperators) {
		c.Operators = append(c.Operators, catalog.Operator{Schema: "pg_catalog", Name: o, Left: oidText, Right: oidText, Volatility: 'i', Builtin: true})
	}
	c.Operators = append(c.Operators,
		catalog.Operator{Schema: "public", Name: "=", Left: 9004, Right: 9004, Volatility: 'v', Writers: []uint32{19004}},
		catalog.Operator{Schema: "public", Name: "%", Left: oidText, Right: oidText, Volatility: 's'},
	)
	tables(t, &c, `
r users      1000 | id int8, email varchar, name text, mood mood, created_at timestamptz | 1001* id, 1002 email
r posts      1010 | id int4, user_id int8, title text, body text | 1011* id
r members    1020 | org uuid, user_id int8, role text, active bool | 1021* org user_id
r codes      1030 | code bpchar, at date | 1031* code
r logs       1040 | id int8, line text |
p events     1050 | id int8, day date, kind text | 1051* id
r events_a   1052 | id int8, day date, kind text | 1053* id
r events_b   1054 | id int8, day date, kind text | 1055* id
r animals    1060 | id int4, name text | 1061* id
r dogs       1062 | id int4, name text, breed text | 1063* id
r audited    1070 | id int4, note text | 1071* id
r tree       1080 | id int4, parent int4, label text | 1081* id
r orders     1090 | id int4, user_email varchar, total numeric | 1091* id
r shifts     1100 | id int4, starts timetz | 1101* id
r odds       1110 | id int4, o odd | 1111* id
r meta       1120 | id int4, rel regclass | 1121* id
r secrets    1130 | id int4, v text | 1131* id
r scratch    1140 | id int4, v text | 1141* id
r fast       1150 | id int4, v text | 1151* id
f remote     1160 | id int4, v text |
S users_seq  1170 | last_value int8 |
m stats      1180 | user_id int8, posts int8 | 1181* user_id
v authors    1190 | id int8, name text, title text |
v gone       1200 | id int8 |
v clocked    1210 | id int8 |
v nested     1220 | id int8, name text |
v ruled      1230 | id int4, note text |
v daily      1232 | day date, n int8 |
v due        1234 | day date |
r accounts   1240 | email email, n int4 | 1241* email
p feed       1250 | id int8, v text | 1251* id
f feed_old   1252 | id int8, v text |
r comments   1270 | id int4, post_id int4 | 1271* id
r days       1280 | day date, n int4 | 1281* day
r times      1290 | local timestamp, at timestamptz | 1291* local, 1292 at
r prices     1300 | price numeric, n int4 | 1301* price
r generated  1260 | id int4, base int4, doubled int4 | 1261* id, 1262 doubled
`)
	rel := func(name string) *catalog.Relation {
		for _, r := range c.Relations {
			if r.Name == name {
				return r
			}
		}
		t.Fatalf("no relation %s", name)
		return nil
	}
	inherit := func(parent string, children ...string) {
		for _, child := range children {
			rel(child).Parents = []uint32{rel(parent).OID}
		}
	}
	inherit("events", "events_a", "events_b")
	inherit("animals", "dogs")
	inherit("feed", "feed_old")
	refer := func(to, from string, onDelete, onUpdate bool, columns ...string) {
		rel(to).References = append(rel(to).References, catalog.Reference{Table: rel(from).OID, Columns: columns, OnDelete: onDelete, OnUpdate: onUpdate})
	}
	refer("users", "posts", true, false, "id")
	refer("users", "orders", false, true, "email")
	refer("posts", "comments", true, false, "id")
	refer("tree", "tree", true, false, "id")
	refer("generated", "logs", false, true, "doubled")
	rel("audited").Code = []catalog.Code{{On: catalog.OnInsert | catalog.OnUpdate}}
	rel("ruled").Code = []catalog.Code{{On: catalog.OnInsert | catalog.OnUpdate | catalog.OnDelete}}
	rel("secrets").RowSecurity = true
	rel("scratch").Temporary = true
	rel("fast").Unlogged = true
	rel("generated").Columns[2].Generated = 's'
	rel("authors").View = "SELECT u.id, u.name, p.title FROM (public.users u JOIN public.posts p ON ((p.user_id = u.id)))"
	rel("authors").Sources = []uint32{1000, 1010}
	rel("gone").View = "SELECT u.id FROM public.users u"
	rel("gone").Sources = []uint32{1010}
	rel("clocked").View = "SELECT u.id FROM public.users u WHERE (u.created_at > now())"
	rel("clocked").Sources = []uint32{1000}
	rel("daily").View = "SELECT ((u.created_at AT TIME ZONE 'UTC'::text))::date AS day, count(*) AS n FROM public.users u " +
		"WHERE ((u.created_at)::timestamp without time zone > date_trunc('day'::text, u.created_at)) GROUP BY ((u.created_at AT TIME ZONE 'UTC'::text))::date"
	rel("daily").Sources = []uint32{1000}
	rel("due").View = "SELECT (p.title)::date AS day FROM public.posts p"
	rel("due").Sources = []uint32{1010}
	rel("nested").View = "SELECT a.id, a.name FROM public.authors a"
	rel("nested").Sources = []uint32{1190}
	rel("ruled").View = "SELECT a.id, a.note FROM public.audited a"
	rel("ruled").Sources = []uint32{1070}
	c.Relations = append(c.Relations, &catalog.Relation{OID: 1259, Schema: "pg_catalog", Name: "pg_class", Kind: 'r', System: true},
		&catalog.Relation{OID: 2609, Schema: "pg_catalog", Name: "pg_description", Kind: 'r', System: true})
	return c
}

// tables reads lines of: kind name oid | column type, … | index[*] columns, …
// where * marks the primary key.
func tables(t testing.TB, c *catalog.Contents, text string) {
	t.Helper()
	oids := make(map[string]uint32)
	for _, typ := range c.Types {
		oids[typ.Name] = typ.OID
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		parts := strings.Split(line, "|")
		head := strings.Fields(parts[0])
		oid, err := strconv.ParseUint(head[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		r := &catalog.Relation{OID: uint32(oid), Schema: "public", Name: head[1], Kind: head[0][0]}
		number := make(map[string]int)
		for i, column := range strings.Split(parts[1], ",") {
			f := strings.Fields(column)
			if oids[f[1]] == 0 {
				t.Fatalf("no type %s", f[1])
			}
			number[f[0]] = i
			r.Columns = append(r.Columns, catalog.Column{Name: f[0], Type: oids[f[1]], Deterministic: true})
		}
		for _, key := range strings.Split(parts[2], ",") {
			f := strings.Fields(key)
			if len(f) == 0 {
				continue
			}
			index, primary := strings.CutSuffix(f[0], "*")
			n, err := strconv.ParseUint(index, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			k := catalog.Key{Index: uint32(n), Primary: primary}
			for _, name := range f[1:] {
				k.Columns = append(k.Columns, number[name])
			}
			r.Keys = append(r.Keys, k)
		}
		c.Relations = append(c.Relations, r)
	}
}

// planFor does what the driver does with a text.
func planFor(t testing.TB, snapshot *catalog.Snapshot, sql string) (*Plan, []parser.Literal) {
	t.Helper()
	return planAmong(t, snapshot, sql, nil)
}

// planAmong plans it in a session with temporary objects.
func planAmong(t testing.TB, snapshot *catalog.Snapshot, sql string, own *Temporaries) (*Plan, []parser.Literal) {
	t.Helper()
	text, literals := sql, []parser.Literal(nil)
	if scanned, ok := parser.Scan(sql); ok {
		text, literals = scanned.Text, scanned.Literals
	}
	statements, err := parser.Parse(sql, literals)
	if err != nil {
		statements = []*parser.Statement{{Kind: parser.Opaque}}
	}
	return NewAmong(text, statements, snapshot, testPath, own), literals
}

func oidList(oids []uint32, snapshot *catalog.Snapshot) string {
	var names []string
	for _, oid := range oids {
		if r := snapshot.ByOID(oid); r != nil {
			names = append(names, r.Name)
		} else {
			names = append(names, fmt.Sprint(oid))
		}
	}
	return strings.Join(names, " ")
}
