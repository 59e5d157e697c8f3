package versions

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

// newerTables are read and written by statements that not every server accepts.
const newerTables = `
	CREATE TABLE items (id int PRIMARY KEY, name text, doc jsonb, tags int[], raw bytea, at timestamptz, day date);
	CREATE TABLE other (id int PRIMARY KEY, v int);
	CREATE VIEW shown AS SELECT id, name FROM items WHERE id < 100;
	CREATE TABLE calm (id int PRIMARY KEY, v text); INSERT INTO calm VALUES (1, 'calm');` + newerRows

const newerRows = `
	INSERT INTO items SELECT i, chr(96 + i), jsonb_build_object('a', i, 'b', ARRAY[i, i + 1], 'n', NULL),
		ARRAY[3, i, 1], chr(96 + i)::bytea, '2024-01-01Z'::timestamptz + i * interval '1 day', '2024-01-01'::date + i FROM generate_series(1, 3) i;
	INSERT INTO other VALUES (1, 10), (7, 70);`

// newerRead is a SELECT that servers before a version do not accept.
type newerRead struct {
	since int
	is    purity
	query string
}

type purity int

const (
	pure    purity = iota // a function of its tables, and cached
	either                // its answer may be cached or not
	impure                // not cached, although its answers are alike
	unalike               // never the same twice
)

var newerReads = []newerRead{
	{15, pure, "SELECT id, regexp_like(name, '[ab]'), regexp_count(name, 'a'), regexp_substr(name, '.') FROM items ORDER BY id"},
	{15, either, "SELECT range_agg(r) FROM (SELECT int4multirange(int4range(id, id + 1)) r FROM items) x"},

	{16, pure, "SELECT any_value(name) FROM items WHERE id = 1"},
	{16, pure, "SELECT id FROM (SELECT id FROM items) ORDER BY id"},
	{16, pure, "SELECT id FROM items WHERE id < 0x2_0 AND id < 1_000 ORDER BY id"},
	{16, either, "SELECT JSON_OBJECT('a': id, 'b': name) FROM items ORDER BY id"},
	{16, either, "SELECT JSON_ARRAY(id, name) FROM items ORDER BY id"},
	{16, either, "SELECT JSON_ARRAYAGG(id ORDER BY id), JSON_OBJECTAGG(id: name) FROM items WHERE id < 3"},
	{16, either, "SELECT id, name IS JSON, doc::text IS JSON OBJECT FROM items ORDER BY id"},
	{16, pure, "SELECT date_add(at, interval '1 day', 'Europe/Oslo'), date_subtract(at, interval '1 day') FROM items ORDER BY id"},
	{16, pure, "SELECT erf(id), date_trunc('day', at, 'Europe/Oslo') FROM items ORDER BY id"},
	{16, impure, "SELECT id, system_user FROM items"},
	{16, impure, "SELECT pg_input_is_valid(name, 'date') FROM items ORDER BY id"},
	{16, impure, "SELECT cardinality(array_shuffle(tags)), cardinality(array_sample(tags, 1)), random_normal() > 1000 FROM items"},
	{16, unalike, "SELECT random_normal() FROM items"},

	{17, either, "SELECT JSON_VALUE(doc, '$.a') FROM items ORDER BY id"},
	{17, either, "SELECT JSON_QUERY(doc, '$.b'), JSON_EXISTS(doc, '$.a') FROM items ORDER BY id"},
	{17, either, "SELECT JSON_VALUE(doc, '$.a' RETURNING int DEFAULT 0 ON EMPTY) FROM items ORDER BY id"},
	{17, either, "SELECT id FROM items WHERE JSON_EXISTS(doc, '$.b[*] ? (@ > $x)' PASSING 3 AS x) ORDER BY id"},
	{17, either, "SELECT i.id, t.* FROM items i, JSON_TABLE(i.doc, '$.b[*]' COLUMNS (n FOR ORDINALITY, v int PATH '$')) t ORDER BY 1, 2"},
	{17, either, "SELECT JSON_SCALAR(id), JSON_SERIALIZE(JSON_SCALAR(name)) FROM items ORDER BY id"},
	{17, either, "SELECT JSON(doc::text), JSON(doc::text WITH UNIQUE KEYS) FROM items ORDER BY id"},
	{17, either, "SELECT JSON(doc::text) FROM items ORDER BY id"},
	{17, either, "SELECT id, at AT LOCAL FROM items ORDER BY id"},
	{17, pure, "SELECT timezone(at) FROM items ORDER BY id"},
	{17, pure, "SELECT to_bin(id), to_oct(id), unicode_assigned(name) FROM items ORDER BY id"},
	{17, pure, "SELECT id, uuid_extract_timestamp('019535d9-3df7-79fb-b466-fa907fa17f9e') FROM items ORDER BY id"},
	{17, either, "SELECT xmltext(name)::text FROM items ORDER BY id"},
	{17, pure, "SELECT jsonb_path_query(doc, '$.a.string()'), jsonb_path_query(doc, '$.a.bigint()') FROM items ORDER BY id"},
	{17, pure, "SELECT id, at + interval 'infinity' FROM items ORDER BY id"},
	{17, impure, "SELECT random(1, 5) < 6 FROM items"},
	{17, unalike, "SELECT random(1, 1000000000) FROM items"},
	{17, impure, "EXPLAIN (COSTS OFF, MEMORY OFF, SERIALIZE NONE) SELECT id FROM items"},

	{18, pure, "SELECT array_sort(tags), array_sort(tags, true), array_reverse(tags) FROM items ORDER BY id"},
	{18, pure, "SELECT casefold(name), reverse(raw), crc32(raw), crc32c(raw), gamma(id), lgamma(id) FROM items ORDER BY id"},
	{18, pure, "SELECT id::bytea, raw::int, int4(raw), bytea(id) FROM items ORDER BY id"},
	{18, pure, "SELECT max(raw), min((id, name)) FROM items"},
	{18, pure, "SELECT id, json_strip_nulls('[1,null]', true), jsonb_strip_nulls(doc, true) FROM items ORDER BY id"},
	{18, pure, "SELECT id FROM items WHERE regexp_like(string => name, pattern => 'b')"},
	{18, pure, "SELECT id, to_number('xiv', 'rn') FROM items ORDER BY id"},
	{18, impure, "SELECT uuidv7() IS NULL, uuidv4() IS NULL, id FROM items ORDER BY id"},
	{18, unalike, "SELECT uuidv7() FROM items"},
}

const readTheCalm = "SELECT v FROM calm"

func TestReadsThatOnlyNewerServersAccept(t *testing.T) {
	version := harness.ServerVersion(t)
	harness.Scenario(t, newerTables, func(f *harness.Fixture) {
		for _, r := range newerReads {
			if version < r.since {
				continue
			}
			f.Step(r.query, func(f *harness.Fixture) {
				f.Known(readTheCalm)
				twice := met(f, r) + ", " + met(f, r)
				if isCached := twice == "miss, hit"; isCached != (r.is == pure) && r.is != either {
					f.Errorf("got %q", twice)
				}
				f.Hit(readTheCalm) // a read with an unknown grammar is no write of everything

				f.Exec("UPDATE items SET doc = jsonb_set(doc, '{a}', '42'), at = at + interval '1 hour' WHERE id = 2")
				met(f, r)
				f.Exec("INSERT INTO items (id, name) VALUES (9, 'nine')")
				met(f, r)
				f.Exec("DELETE FROM items WHERE id = 9")
				met(f, r)
			})
		}
	})
}

// met asks and says what was counted. The answer is compared with plain pgx's.
func met(f *harness.Fixture, r newerRead) string {
	f.Helper()
	before := inside.Counted(f.DB)
	f.Expect("", r.is != unalike, r.query, nil)
	return harness.Difference(before, inside.Counted(f.DB))
}

// A numeral ended where later it goes on; PostgreSQL 15 accepts neither.
func TestNumeralsThatOlderServersReadOtherwise(t *testing.T) {
	version := harness.ServerVersion(t)
	harness.Scenario(t, newerTables, func(f *harness.Fixture) {
		for _, q := range []struct {
			query    string
			accepted bool
		}{
			{"SELECT 31, 1000 FROM items WHERE id = 1", true},
			{"SELECT 0x1F, 1_000 FROM items WHERE id = 1", version != 15},
			{"SELECT 0 x1F, 1 _000 FROM items WHERE id = 1", true},
			{"SELECT 0b1, 1, 0o17, 15 FROM items WHERE id = 1", version != 15},
			{"SELECT 1e2x, 100, 1a FROM items WHERE id = 1", version < 15},
			{"SELECT id FROM items WHERE id = 1or id = 2 ORDER BY id", version < 15},
			{"SELECT id FROM items WHERE id = 1 or id = 2 ORDER BY id", true},
		} {
			f.Step(q.query, func(f *harness.Fixture) {
				if !q.accepted {
					f.Fails(q.query)
					return
				}
				f.Fresh(q.query)
				f.Fresh(q.query)
			})
		}
	})
}

// To servers before the construct they are functions, and those here write what
// the text does not show.
func TestFunctionsWithTheNamesOfLaterConstructs(t *testing.T) {
	version := harness.ServerVersion(t)
	var functions strings.Builder
	for _, name := range []string{"json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg",
		"json_query", "json_scalar", "json_serialize", "json_value", "merge_action", "system_user", "xmlexists"} {
		functions.WriteString(`
			CREATE FUNCTION "` + name + `"(text) RETURNS int LANGUAGE plpgsql VOLATILE AS
			$$ BEGIN EXECUTE 'UPDATE other SET v = v + 1'; RETURN 1; END $$;
			CREATE FUNCTION "` + name + `"(text, text) RETURNS int LANGUAGE plpgsql VOLATILE AS
			$$ BEGIN EXECUTE 'UPDATE other SET v = v + 1'; RETURN 1; END $$;`)
	}
	harness.Scenario(t, newerTables+functions.String(), func(f *harness.Fixture) {
		const others = "SELECT id, v FROM other ORDER BY id"
		for _, q := range []struct {
			until int // the last version to which it is a function, 0 for all
			call  string
		}{
			{16, "json(name)"}, {15, "json_array(name)"}, {15, "json_array(name, name)"}, {15, "json_arrayagg(name)"},
			{15, "json_object(name, name)"}, {15, "json_objectagg(name, name)"},
			{16, "json_exists(name, 'a')"}, {16, "json_query(name, 'a')"}, {16, "json_value(name, 'a')"},
			{16, "json_scalar(name)"}, {16, "json_serialize(name)"}, {16, "merge_action(name)"},
			{15, "system_user(name)"},
			{0, `"json_value"(name, 'a')`}, {0, `"json_array"(name)`}, {0, `"system_user"(name)`}, {0, `"xmlexists"(name)`},
		} {
			if q.until != 0 && version > q.until {
				continue
			}
			f.Step(q.call, func(f *harness.Fixture) {
				for _, query := range []string{
					"SELECT " + q.call + " FROM items WHERE id = 1",
					"SELECT id FROM items WHERE " + q.call + " = 1",
				} {
					before := f.Known(others).String()
					f.Expect("", false, query, nil)
					if f.Fresh(others).String() == before {
						f.Errorf("%s: wrote nothing", query)
					}
				}
			})
		}
	})
}
