package reads

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// dependency is a query, and something that changes its answer.
type dependency struct{ query, change string }

// follow caches each query, changes what it depends on, and asks again.
func follow(f *harness.Fixture, list []dependency) {
	f.Helper()
	for _, d := range list {
		before := f.Known(d.query).String()
		f.Exec(d.change)
		d.moved(f.Via, before)
	}
}

// followAnew is follow for changes of the schema: on other connections,
// because pgx fails once with a statement that was prepared before.
func followAnew(f *harness.Fixture, list []dependency) {
	f.Helper()
	for _, d := range list {
		before := harness.Anew(f).Known(d.query).String()
		f.Exec(d.change)
		d.moved(harness.Anew(f), before)
	}
}

func (d dependency) moved(v harness.Via, before string) {
	v.F.Helper()
	if after := v.Fresh(d.query).String(); after == before {
		v.F.Errorf("%s: %s has changed nothing, so nothing was tested", d.query, d.change)
	}
}

// What a SELECT depends on, beyond the tables that it names.
func TestWhatAReadDependsOn(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People+`
		CREATE TABLE pets (id int PRIMARY KEY, owner int, name text, kind text);
		INSERT INTO pets VALUES (1, 1, 'rex', 'dog'), (2, 1, 'tom', 'cat'), (3, 2, 'ben', 'dog');
		CREATE VIEW owners AS SELECT u.id, u.name, count(p.id) AS pets FROM users u LEFT JOIN pets p ON p.owner = u.id GROUP BY u.id;
		CREATE VIEW dog_owners AS SELECT o.* FROM owners o WHERE EXISTS (SELECT FROM pets p WHERE p.owner = o.id AND p.kind = 'dog');
		CREATE MATERIALIZED VIEW kinds AS SELECT kind, count(*) AS n FROM pets GROUP BY kind;
		CREATE TABLE parted (id int, v text) PARTITION BY LIST (id);
		CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); CREATE TABLE parted_2 (id int, v text);
		INSERT INTO parted_1 VALUES (1, 'a'); INSERT INTO parted_2 VALUES (2, 'b');
		CREATE TABLE parent (id int, v text); CREATE TABLE child (w int) INHERITS (parent);
		INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 0);
		CREATE TABLE tree (id int PRIMARY KEY, up int, label text); INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'leaf');
		CREATE TABLE docs (id int PRIMARY KEY, doc jsonb); INSERT INTO docs VALUES (1, '{"a": [1, 2, {"b": "x"}]}');`, func(f *harness.Fixture) {
		follow(f, []dependency{
			{"SELECT * FROM dog_owners ORDER BY id", "INSERT INTO pets VALUES (4, 2, 'max', 'cat')"},
			{"SELECT * FROM dog_owners ORDER BY id", "UPDATE users SET name = 'anna' WHERE id = 1"},
			{"SELECT * FROM kinds ORDER BY kind", "REFRESH MATERIALIZED VIEW kinds"},
			{"SELECT * FROM parted ORDER BY id", "UPDATE parted_1 SET v = 'x'"},
			{"SELECT * FROM parted ORDER BY id", "ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2)"},
			{"SELECT * FROM parted_2", "UPDATE parted SET v = 'y' WHERE id = 2"},
			{"SELECT * FROM parted ORDER BY id", "ALTER TABLE parted DETACH PARTITION parted_1"},
			{"SELECT * FROM parent ORDER BY id", "UPDATE child SET v = 'd'"},
			{"SELECT * FROM child", "DELETE FROM parent WHERE id = 2"},
			{"SELECT * FROM parent ORDER BY id", "INSERT INTO child VALUES (3, 'e', 1)"},
			{"SELECT * FROM parent ORDER BY id", "ALTER TABLE child NO INHERIT parent"},
			{`WITH RECURSIVE down AS (SELECT id, label FROM tree WHERE up IS NULL
				UNION ALL SELECT t.id, d.label || '/' || t.label FROM tree t JOIN down d ON t.up = d.id) SELECT * FROM down ORDER BY id`,
				"INSERT INTO tree VALUES (3, 2, 'twig')"},
			{"SELECT u.id, p.name FROM users u, LATERAL (SELECT name FROM pets WHERE owner = u.id ORDER BY id DESC LIMIT 1) p ORDER BY u.id",
				"UPDATE pets SET name = 'moritz' WHERE id = 4"},
			{"SELECT kind, owner, count(*) FROM pets GROUP BY GROUPING SETS ((kind), (owner), ()) ORDER BY 1, 2", "DELETE FROM pets WHERE id = 3"},
			{"SELECT id, rank() OVER (PARTITION BY kind ORDER BY name), sum(id) FILTER (WHERE owner = 1) OVER w FROM pets WINDOW w AS (ORDER BY id) ORDER BY id",
				"UPDATE pets SET owner = 2 WHERE id = 2"},
			{"SELECT row_number() OVER (), count(*) OVER () FROM pets WHERE id = 1", "UPDATE pets SET id = 11 WHERE id = 1"},
			{"SELECT (SELECT max(name) FROM pets), id FROM users WHERE id = 1", "INSERT INTO pets VALUES (12, NULL, 'zoe', 'cat')"},
			{"SELECT id FROM users WHERE id NOT IN (SELECT owner FROM pets WHERE owner IS NOT NULL) ORDER BY id", "DELETE FROM pets WHERE owner = 2"},
			{"SELECT id FROM users EXCEPT SELECT owner FROM pets ORDER BY id", "INSERT INTO pets VALUES (13, 3, 'kim', 'dog')"},
			{"SELECT id FROM users WHERE (id, 'dog') IN (SELECT owner, kind FROM pets) ORDER BY id", "UPDATE pets SET kind = 'fox' WHERE id = 13"},
			{"SELECT jsonb_path_query(doc, '$.a[*].b'), doc #>> '{a,0}' FROM docs WHERE id = 1", "UPDATE docs SET doc = jsonb_set(doc, '{a,2,b}', '\"y\"') WHERE id = 1"},
			{"SELECT u FROM users u WHERE id = 1", "UPDATE users SET city = NULL WHERE id = 1"},
			{"SELECT to_jsonb(u) FROM users u WHERE id = 1", "UPDATE users SET city = 'Bonn' WHERE id = 1"},
			{"SELECT count(*) FROM users WHERE id = 1 OFFSET 0", "DELETE FROM users WHERE id = 1"},
		})

		// LIMIT without ORDER BY may give any rows. Those that PostgreSQL gave
		// once are an answer for as long as the table is as it was.
		for _, query := range []string{"SELECT id FROM pets LIMIT 1", "SELECT DISTINCT ON (kind) id FROM pets", "SELECT array_agg(name) FROM pets"} {
			f.Warm(query)
			f.Exec("UPDATE pets SET owner = owner WHERE id = 13")
			f.Miss(query)
		}
	})
}

// What a SELECT means changes with the schema.
func TestReadsAfterTheSchemaHasChanged(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`
		CREATE TABLE pets (id int PRIMARY KEY, owner int, tag text); INSERT INTO pets VALUES (1, 1, 'a'), (2, 2, 'b');
		CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int CHECK (VALUE < 10);
		CREATE TABLE typed (id int PRIMARY KEY, m mood, p pair, s small, moods mood[]);
		INSERT INTO typed VALUES (1, 'sad', (1, 'x'), 3, '{sad,ok}'), (2, 'ok', (2, 'y'), 4, '{}');
		CREATE FUNCTION double(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
		CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 2; END';
		CREATE FUNCTION close_to(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT abs($1 - $2) < 2';
		CREATE OPERATOR ~~~ (FUNCTION = close_to, LEFTARG = int, RIGHTARG = int);
		CREATE FUNCTION label(users) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1.name';
		CREATE FUNCTION as_text(pair) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1.b';
		CREATE CAST (pair AS text) WITH FUNCTION as_text(pair) AS IMPLICIT;
		CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
		CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
		CREATE TEXT SEARCH DICTIONARY stops (TEMPLATE = simple, STOPWORDS = english);
		CREATE VIEW named AS SELECT id, name FROM users;
		CREATE TABLE texts (id int PRIMARY KEY, line text); INSERT INTO texts VALUES (1, 'the quick foxes');`, func(f *harness.Fixture) {
		f.Known("SELECT max(m) FROM typed")
		f.Exec("ALTER TYPE mood ADD VALUE 'happy' BEFORE 'sad'")
		followAnew(f, []dependency{
			{"SELECT * FROM users NATURAL JOIN pets", "ALTER TABLE pets ADD COLUMN name text DEFAULT 'bob'"},
			{"SELECT * FROM users ORDER BY id", "ALTER TABLE users ADD COLUMN age int DEFAULT 7"},
			{"SELECT pets FROM pets ORDER BY id", "ALTER TABLE pets DROP COLUMN name"},
			{"SELECT tag FROM pets ORDER BY id", "ALTER TABLE pets RENAME COLUMN tag TO old; ALTER TABLE pets ADD COLUMN tag text"},
			{"SELECT old FROM pets ORDER BY id", "ALTER TABLE pets ALTER COLUMN old TYPE int USING ascii(old)"},
			{"SELECT * FROM named ORDER BY id", "CREATE OR REPLACE VIEW named AS SELECT id, upper(name) AS name FROM users"},
			{"SELECT name FROM named WHERE id = 1", "CREATE OR REPLACE VIEW named AS SELECT id, (SELECT max(old) FROM pets)::text AS name FROM users"},
			{"SELECT id FROM typed ORDER BY m DESC", "UPDATE typed SET m = 'happy' WHERE id = 2"},
			{"SELECT m, moods FROM typed ORDER BY id", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"},
			{"SELECT p FROM typed ORDER BY id", "ALTER TYPE pair ADD ATTRIBUTE c int CASCADE"},
			{"SELECT double(id) FROM typed ORDER BY id", "CREATE OR REPLACE FUNCTION double(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 3'"},
			{"SELECT twice(id) FROM typed ORDER BY id", "CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 3; END'"},
			{"SELECT id FROM typed WHERE id ~~~ 3", "CREATE OR REPLACE FUNCTION close_to(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT abs($1 - $2) < 3'"},
			{"SELECT u.label FROM users u ORDER BY id", "ALTER TABLE users ADD COLUMN label text DEFAULT 'column'"},
			{"SELECT p::text FROM typed ORDER BY id", "CREATE OR REPLACE FUNCTION as_text(pair) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1.a::text'"},
			{"SELECT total(id) FROM typed", "CREATE OR REPLACE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '100')"},
			{"SELECT to_tsvector('words', line) FROM texts", "ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH english_stem"},
			{"SELECT to_tsvector('words', line) FROM texts", "ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH stops"},
			{"SELECT to_tsvector('words', line) FROM texts", "ALTER TEXT SEARCH DICTIONARY stops (STOPWORDS)"},
		})

		// What PostgreSQL refuses from now on.
		f.Via = harness.Anew(f)
		f.Warm("SELECT 9::small")
		f.Exec("ALTER DOMAIN small ADD CONSTRAINT smaller CHECK (VALUE < 5)")
		f.Fails("SELECT 9::small")
		f.Warm("SELECT name FROM users WHERE id = 2")
		f.Exec("ALTER TABLE users RENAME TO persons")
		f.Fails("SELECT name FROM users WHERE id = 2")
		f.Exec("CREATE VIEW users AS SELECT 2 AS id, 'view' AS name")
		f.Miss("SELECT name FROM users WHERE id = 2").Is("view")
	})
}

// Texts of the database are not read as times from the cache: they may say now.
func TestTextsThatAreReadAsTimes(t *testing.T) {
	harness.ScenarioInMemory(t, `
		CREATE DOMAIN birthday AS date; CREATE TYPE span AS (lo date, hi date); CREATE TYPE dates AS RANGE (subtype = date);
		CREATE TABLE notes (id int PRIMARY KEY, note text, list text[], array_note text, doc jsonb, one text, span text);
		INSERT INTO notes VALUES (1, 'today', '{today}', '{today}', '{"due": "today"}', '(today,)', '[today,)');
		CREATE TABLE events (id int PRIMARY KEY, note date, at timestamptz); INSERT INTO events VALUES (1, '2024-01-01', '2024-01-01 12:00Z');
		CREATE VIEW due AS SELECT id, note::date AS day FROM notes; CREATE VIEW fixed AS SELECT 'today'::text::date AS day`, func(f *harness.Fixture) {
		for _, query := range []string{
			"SELECT note::date FROM notes", "SELECT date(note) FROM notes", "SELECT (note).date FROM notes",
			`SELECT "timestamptz"(note) FROM notes`, "SELECT (note).timestamptz FROM notes", "SELECT pg_catalog.timestamp(note) FROM notes",
			"SELECT n.date FROM notes, unnest(list) AS n", "SELECT _date(array_note) FROM notes", "SELECT list::date[] FROM notes",
			"SELECT birthday(note), note::birthday FROM notes", "SELECT tstzrange(span), daterange(span) FROM notes", "SELECT span::dates FROM notes",
			"SELECT one::span FROM notes", "SELECT ROW(note, NULL)::span FROM notes", "SELECT (doc->>'due')::date FROM notes",
			"SELECT n.note::date FROM events, notes n", "SELECT at::date FROM (SELECT note AS at FROM notes) x",
			"SELECT (SELECT max(at::date) FROM (SELECT note AS at FROM notes) x) FROM events", "SELECT day FROM due",
			"SELECT ('to' || substr('xday', 2))::date", "SELECT max(note)::date FROM notes",
		} {
			f.Bypass(keying.ClockCast, query)
		}
		f.Bypass(keying.ClockInput, "SELECT day FROM fixed")
		f.Bypass(keying.ClockInput, "SELECT $1::text::date", "today")
		for _, query := range []string{
			"SELECT at::date, note::timestamptz, date_trunc('day', at)::date, (at AT TIME ZONE 'UTC')::date FROM events",
			"SELECT day::timestamp FROM (SELECT date_trunc('day', at) AS day, count(*) FROM events GROUP BY 1) d",
			"SELECT d::date FROM generate_series('2024-01-01'::date, '2024-01-03'::date, '1 day') d",
			"SELECT to_char(at, 'YYYY') FROM events GROUP BY at::date, at",
			"SELECT note::text, id::text::int FROM notes",
		} {
			f.Warm(query)
		}
	})
}

// A time of day in a zone depends on the date: in summer another offset holds.
func TestTimesOfDayInAZone(t *testing.T) {
	harness.ScenarioOnce(t, `CREATE TABLE shifts (id int PRIMARY KEY, starts time, starts_tz timetz, at timestamptz, zone text);
		INSERT INTO shifts VALUES (1, '10:00', '10:00+00', '2024-06-01 10:00Z', 'America/New_York');
		CREATE TABLE events (id int PRIMARY KEY, at timestamptz, starts time); INSERT INTO events VALUES (1, '2024-06-01 10:00Z', '9:00');
		CREATE DOMAIN hour AS time; CREATE VIEW local AS SELECT starts AT TIME ZONE 'America/New_York' AS starts FROM events;`, func(f *harness.Fixture) {
		for _, query := range []string{
			"SELECT starts AT TIME ZONE 'America/New_York' FROM events", "SELECT timezone('America/New_York', starts) FROM events",
			"SELECT starts FROM local", "SELECT '10:00'::time AT TIME ZONE 'America/New_York'", "SELECT make_time(10, 0, 0) AT TIME ZONE 'America/New_York'",
			"SELECT (starts + interval '1 hour') AT TIME ZONE 'America/New_York' FROM events", "SELECT (at::time) AT TIME ZONE 'America/New_York' FROM events",
			"SELECT max(starts) AT TIME ZONE 'America/New_York' FROM events", "SELECT starts::hour AT TIME ZONE 'America/New_York' FROM events",
			"SELECT x.s AT TIME ZONE 'America/New_York' FROM (SELECT starts AS s FROM events) x", "SELECT timetz(starts) FROM events",
			"SELECT timetz_larger(starts, starts) FROM events", "SELECT starts_tz FROM shifts",
		} {
			f.Bypass(keying.ClockType, query)
		}
		f.Warm("SELECT at AT TIME ZONE 'America/New_York', starts FROM events")
		f.Warm("SELECT (at AT TIME ZONE 'America/New_York')::time, at AT TIME ZONE interval '1 hour' FROM events")
	})
}

// What depends on the session, the server or the catalog more than a key can say.
func TestBuiltinsThatAreNotCached(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+"CREATE SEQUENCE numbers", func(f *harness.Fixture) {
		for _, test := range []struct {
			reason  keying.Reason
			queries []string
		}{
			{keying.StableFunction, []string{
				"SELECT pg_typeof(id) FROM users", "SELECT format_type(23, NULL)", "SELECT obj_description(1, 'pg_class')", "SELECT current_setting('TimeZone')",
				"SELECT has_table_privilege('users', 'SELECT')", "SELECT to_regclass('users')", "SELECT pg_get_expr(NULL, 0)",
				"SELECT txid_current() < 0", "SELECT txid_current_if_assigned()", "SELECT pg_snapshot_xmin('1:1:'), txid_current_snapshot() IS NULL", "SELECT pg_relation_filenode(1)",
				"SELECT col_description(1, 1)", "SELECT inet_client_port() IS NULL", "SELECT age(timestamp '2024-01-01') IS NULL",
				"SELECT jsonb_path_query_tz('\"2024-01-01\"', '$.datetime()')", "SELECT json_populate_record(NULL::users, '{\"id\": 1}')",
			}},
			{keying.VolatileFunction, []string{"SELECT clock_timestamp() IS NULL", "SELECT nextval('numbers') > 100", "SELECT pg_relation_size('users') < 0", "SELECT setval('numbers', 1) > 1"}},
			{keying.CatalogType, []string{"SELECT tableoid::regclass FROM users", "SELECT 'users'::regclass", "SELECT '{users}'::regclass[]"}},
			{keying.SessionKeyword, []string{"SELECT xmlelement(name a, name) FROM users WHERE id = 1", "SELECT current_schema"}},
			{keying.ClockKeyword, []string{"SELECT current_date", "SELECT localtimestamp IS NULL"}},
			{keying.SequenceRead, []string{"SELECT last_value FROM numbers"}},
			{keying.SystemColumn, []string{"SELECT ctid FROM users WHERE id = 1", "SELECT xmin IS NULL FROM users"}},
			{keying.SystemCatalog, []string{"SELECT count(*) > 0 FROM pg_class", "SELECT table_name FROM information_schema.tables WHERE table_name = 'users'"}},
		} {
			for _, query := range test.queries {
				f.Bypass(test.reason, query)
			}
		}
		for _, query := range []string{
			"SELECT hashtext(name), md5(name), sha256(name::bytea) FROM users", "SELECT tableoid > 0, id FROM users",
			"SELECT current_user, session_user, current_database()", "SELECT ts_rank(to_tsvector(name), to_tsquery('ann')) FROM users ORDER BY id",
			"SELECT jsonb_path_query('\"2024-01-01\"', '$.datetime()')", "SELECT float8 '0.1' + 0.2, avg(id) FROM users",
		} {
			f.Warm(query)
		}
	})
}

// Views of system catalogs, and views that nobody here can read.
func TestViewsOverTheCatalog(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`
		CREATE VIEW tables AS SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema;
		CREATE VIEW described AS SELECT u.id, c.reltuples FROM users u JOIN pg_class c ON c.relname = 'users';
		CREATE VIEW columns AS SELECT column_name FROM information_schema.columns WHERE table_name = 'users'`, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		for _, query := range []string{"SELECT count(*) FROM tables", "SELECT count(*) > 0 FROM described", "SELECT count(*) FROM columns"} {
			f.Fresh(query)
			f.Bypass(keying.SystemCatalog, query)
		}
		f.Hit(harness.UserByID, 1) // which nobody has taken for a write, or for a reason to load the catalog again
	})
}

// Code of the user's own that runs unseen, and reads the clock.
func TestCodeThatRunsUnseen(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`
		CREATE DOMAIN future AS timestamptz CHECK (VALUE > now()); CREATE DOMAIN futures AS future[]; CREATE DOMAIN today AS date CHECK (VALUE = current_date);
		CREATE DOMAIN word AS text CHECK (VALUE ~ '^[a-z]+$' AND length(VALUE) < 10 AND lower(VALUE) IN ('a', 'b'));
		CREATE TYPE holder AS (id int, f future); CREATE DOMAIN unlike AS date CHECK (VALUE <> 'yesterday'::text::date);
		CREATE TABLE held (id int PRIMARY KEY, h holder, hs holder[], w word); INSERT INTO held VALUES (1, (1, '2999-01-01'), '{}', 'a');
		CREATE FUNCTION at(timestamptz DEFAULT now()) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS 'SELECT $1';
		CREATE FUNCTION plus(int, int DEFAULT 5) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
		CREATE FUNCTION next(int, bigint DEFAULT random()::bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
		CREATE FUNCTION day(text DEFAULT 'today'::text::date::text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'`, func(f *harness.Fixture) {
		for reason, queries := range map[keying.Reason][]string{
			keying.UserType: {"SELECT '2999-01-01'::future", "SELECT ARRAY['2999-01-01']::future[]", "SELECT '{2999-01-01}'::futures", "SELECT future('2999-01-01')",
				"SELECT '(1,2999-01-01)'::holder", "SELECT h FROM held", "SELECT current_user, '2000-01-01'::unlike"},
			keying.UserFunction:     {"SELECT at() IS NULL", "SELECT day() IS NULL"},
			keying.VolatileFunction: {"SELECT next(1) < 0"},
		} {
			for _, query := range queries {
				f.Bypass(reason, query)
			}
		}
		f.Warm("SELECT plus(1), plus(1, 2)")
		f.Warm("SELECT 'b'::word, id FROM users WHERE id = 1")
	})
}

// Casts that PostgreSQL applies unseen, by way of a text.
func TestCastsThroughText(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`
		CREATE TYPE colour AS ENUM ('today', 'red'); CREATE CAST (colour AS date) WITH INOUT AS IMPLICIT;
		CREATE TABLE paints (id int PRIMARY KEY, c colour, day date); INSERT INTO paints VALUES (1, 'today', '2024-01-01');`, func(f *harness.Fixture) {
		f.Bypass(keying.UserCast, "SELECT c = day FROM paints")
		f.Bypass(keying.UserCast, "SELECT day - c FROM paints")
		f.Warm("SELECT name FROM users WHERE id = 1")
	})
}

// An operator = for a domain of the user's own finds other rows than the key does.
func TestOwnEqualityOfADomain(t *testing.T) {
	harness.ScenarioInMemory(t, `
		CREATE DOMAIN code AS text; CREATE TABLE parts (code code PRIMARY KEY, n int); INSERT INTO parts VALUES ('a', 1), ('B', 2);
		CREATE FUNCTION same(code, code) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT lower($1::text) = lower($2::text)';
		CREATE OPERATOR = (FUNCTION = same, LEFTARG = code, RIGHTARG = code);
		CREATE FUNCTION same_text(code, text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT lower($1::text) = lower($2)';
		CREATE OPERATOR = (FUNCTION = same_text, LEFTARG = code, RIGHTARG = text);`, func(f *harness.Fixture) {
		for _, query := range []string{"SELECT n FROM parts WHERE code = $1", "SELECT n FROM parts WHERE code = $1::code", "SELECT n FROM parts WHERE code = $1::text"} {
			f.Known(query, "A")
			f.Exec("UPDATE parts SET n = n + 1 WHERE code = 'a'")
			f.Fresh(query, "A")
		}
		const query = "SELECT n FROM parts WHERE code = $1"
		f.Known(query, "b")
		f.Exec("UPDATE parts SET n = n + 1 WHERE code = $1", "b")
		f.Fresh(query, "b")
		f.Fresh(query, "B")
	})
}

// Under another collation other texts are equal.
func TestReadsUnderCollations(t *testing.T) {
	harness.ScenarioInMemory(t, `
		CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE names (name text COLLATE anycase PRIMARY KEY, plain text UNIQUE, n int);
		CREATE UNIQUE INDEX ON names (plain COLLATE anycase);
		INSERT INTO names VALUES ('Ann', 'Ann', 1), ('bob', 'bob', 2);`, func(f *harness.Fixture) {
		f.Known("SELECT n FROM names WHERE name = $1", "ANN")
		f.Exec("UPDATE names SET n = 10 WHERE name = $1", "ann")
		f.Miss("SELECT n FROM names WHERE name = $1", "ANN").Is("10")
		f.Known("SELECT n FROM names WHERE plain = $1 COLLATE anycase", "ANN")
		f.Known("SELECT n FROM names WHERE plain = $1", "Ann")
		f.Exec("UPDATE names SET n = 11 WHERE plain COLLATE anycase = $1", "ann")
		f.Miss("SELECT n FROM names WHERE plain = $1 COLLATE anycase", "ANN").Is("11")
		f.Miss("SELECT n FROM names WHERE plain = $1", "Ann").Is("11")
		for _, conflict := range []string{"plain", "plain COLLATE anycase", "plain text_ops"} {
			f.Known("SELECT n FROM names WHERE plain = $1", "Ann")
			f.Exec("INSERT INTO names VALUES ('x', 'ann', 0) ON CONFLICT (plain COLLATE anycase) DO UPDATE SET n = names.n + 1")
			f.Miss("SELECT n FROM names WHERE plain = $1", "Ann")
			f.Known("SELECT n FROM names WHERE plain = $1", "Ann")
			f.Exec("INSERT INTO names (name, plain, n) VALUES ('x', 'Ann', 0) ON CONFLICT (" + conflict + ") DO UPDATE SET n = names.n + 1")
			f.Miss("SELECT n FROM names WHERE plain = $1", "Ann")
		}
		f.Known("SELECT name FROM names ORDER BY name")
		f.Exec("ALTER TABLE names ALTER COLUMN name TYPE text COLLATE \"C\"")
		harness.Anew(f).Fresh("SELECT name FROM names ORDER BY name")
		harness.Anew(f).Fresh("SELECT n FROM names WHERE name = $1", "ANN").Is("")
	})
}

// Functions that say IMMUTABLE and are not: PostgreSQL believes them where it
// folds constants, and runs them for each query all the same.
func TestFunctionsThatReadTablesUnderAFalseName(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People+`
		CREATE TABLE prices (id int PRIMARY KEY, price int); INSERT INTO prices VALUES (1, 10), (2, 20); CREATE VIEW cheap AS SELECT * FROM prices WHERE price < 15;
		CREATE FUNCTION price(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT price FROM prices WHERE id = $1';
		CREATE FUNCTION price_of(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ DECLARE p int; BEGIN SELECT price INTO p FROM prices WHERE id = n; RETURN p; END $$;
		CREATE FUNCTION double_price(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 2 * price(n); END $$;
		CREATE FUNCTION cheapest() RETURNS SETOF cheap IMMUTABLE LANGUAGE sql AS 'SELECT * FROM cheap';
		CREATE FUNCTION parsed(int) RETURNS int IMMUTABLE RETURN (SELECT price FROM prices WHERE id = $1);
		CREATE FUNCTION today() RETURNS date IMMUTABLE LANGUAGE sql AS 'SELECT current_date';
		CREATE FUNCTION tenant() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting('app.tenant', true); END $$;
		CREATE FUNCTION tenants() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT tenant()';
		CREATE FUNCTION folded(text) RETURNS text STABLE STRICT LANGUAGE internal AS 'upper';
		CREATE FUNCTION slug(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT folded($1)'`, func(f *harness.Fixture) {
		for _, query := range []string{"SELECT price(1)", "SELECT price_of(1)", "SELECT double_price(1)", "SELECT * FROM cheapest()", "SELECT parsed(1)",
			"SELECT name, price(id) FROM users WHERE id = 1", "SELECT name FROM users u WHERE id = 1 AND price(u.id) > 0", "SELECT id, price_of(1) FROM prices WHERE id = 2"} {
			f.Known(query)
			f.Exec("UPDATE prices SET price = price + 1 WHERE id = 1")
			f.Miss(query)
		}
		f.Bypass(keying.UserFunction, "SELECT today()")
		f.Bypass(keying.UserFunction, "SELECT tenant()")
		f.Bypass(keying.UserFunction, "SELECT tenants()")
		f.Warm("SELECT slug(name) FROM users WHERE id = 1")
	})
}
