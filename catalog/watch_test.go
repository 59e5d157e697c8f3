package catalog_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

const watchedSchema = `
	CREATE TABLE a (id int PRIMARY KEY, name text, gone int, size numeric(10, 2));
	CREATE TABLE b (id int PRIMARY KEY, a int, name text UNIQUE);
	CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
	CREATE TABLE part (id int, at date);
	CREATE TABLE dropped (id int);
	CREATE VIEW v AS SELECT id FROM a;
	CREATE MATERIALIZED VIEW m AS SELECT id FROM a;
	CREATE TYPE mood AS ENUM ('glad', 'sad');
	CREATE TYPE pair AS (x int, y int);
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
	CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION touch();
	CREATE SCHEMA front;
	CREATE ROLE %[1]s;`

// changes are statements that change what planning or the form of a result
// depends on, each on top of those before.
var changes = []string{
	"ALTER TABLE a ADD COLUMN more int",
	"ALTER TABLE a ADD COLUMN filled int DEFAULT 7",
	"ALTER TABLE a DROP COLUMN gone",
	"ALTER TABLE a RENAME COLUMN name TO title",
	"ALTER TABLE a ALTER COLUMN title TYPE varchar(20)",
	"ALTER TABLE a ALTER COLUMN title TYPE varchar(30)", // the type modifier alone
	"ALTER TABLE a ALTER COLUMN title TYPE varchar(30) COLLATE \"C\"",
	"ALTER TABLE a ALTER COLUMN size SET NOT NULL",
	"ALTER TABLE a RENAME TO c",
	"ALTER TABLE c RENAME TO a",
	"ALTER TABLE a ADD UNIQUE (title)",
	"ALTER TABLE a DROP CONSTRAINT a_title_key",
	"CREATE UNIQUE INDEX CONCURRENTLY a_size ON a (size)",
	"REINDEX INDEX CONCURRENTLY a_size",
	"DROP INDEX a_size",
	"CREATE INDEX a_size ON a (size)", // its rows are found by another column
	"DROP INDEX a_size",
	"CREATE INDEX CONCURRENTLY a_size ON a USING hash (size) WHERE id > 7",
	"DROP INDEX CONCURRENTLY a_size",
	"ALTER TABLE b ADD CONSTRAINT b_a FOREIGN KEY (a) REFERENCES a ON DELETE CASCADE",
	"ALTER TABLE b DROP CONSTRAINT b_a",
	"ALTER TABLE a DISABLE TRIGGER t",
	"ALTER TABLE a ENABLE TRIGGER t",
	"CREATE TRIGGER after AFTER UPDATE ON b FOR EACH ROW EXECUTE FUNCTION touch()",
	"DROP TRIGGER after ON b",
	"CREATE RULE r AS ON DELETE TO b DO ALSO DELETE FROM a",
	"DROP RULE r ON b",
	"ALTER TABLE a ENABLE ROW LEVEL SECURITY",
	"CREATE POLICY p ON a USING (id > 1)",
	"ALTER POLICY p ON a USING (id > 2)",
	"ALTER TABLE a DISABLE ROW LEVEL SECURITY",
	"ALTER TABLE parted ATTACH PARTITION part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
	"ALTER TABLE parted DETACH PARTITION part",
	"CREATE TABLE child () INHERITS (b)",
	"ALTER TABLE child NO INHERIT b",
	"CREATE OR REPLACE VIEW v AS SELECT id FROM b",
	"CREATE OR REPLACE VIEW v AS SELECT id FROM a", // as it was before
	"ALTER VIEW v RENAME COLUMN id TO number",
	"DROP MATERIALIZED VIEW m; CREATE MATERIALIZED VIEW m AS SELECT id FROM b",
	"ALTER TYPE mood ADD VALUE 'calm'",
	"ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
	"ALTER TYPE mood RENAME TO feeling",
	"CREATE TYPE other AS ENUM ()",
	"ALTER TYPE pair ADD ATTRIBUTE z int",
	"ALTER TYPE pair ALTER ATTRIBUTE z TYPE text",
	"ALTER DOMAIN positive ADD CHECK (VALUE < one())",
	"ALTER DOMAIN positive SET NOT NULL",
	"CREATE DOMAIN negative AS int",
	"CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'",
	"CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'", // as it was before
	"ALTER FUNCTION one() STABLE",
	"ALTER FUNCTION one() SET search_path = front",
	"ALTER FUNCTION one() RENAME TO first",
	"CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2'",
	"DROP FUNCTION two()",
	"CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
	"CREATE CAST (mood_text AS text) WITH FUNCTION mood_name(mood_text)",
	"CREATE COLLATION blind (provider = icu, locale = 'und', deterministic = false)",
	"CREATE TYPE span AS RANGE (subtype = int)",
	"DROP TYPE span",
	"CREATE TABLE front.b (id int)", // hides b where front comes first
	"ALTER TABLE dropped SET SCHEMA front",
	"CREATE VIEW front.a AS SELECT 1 AS id",
	"ALTER SCHEMA front RENAME TO facade",
	"GRANT SELECT ON a TO PUBLIC",
	"REVOKE SELECT ON a FROM PUBLIC",
	"GRANT SELECT (id) ON b TO PUBLIC",
	"ALTER TABLE b OWNER TO %[1]s",
	"CREATE EVENT TRIGGER %[1]s ON ddl_command_end WHEN TAG IN ('SECURITY LABEL') EXECUTE FUNCTION noticed()",
	"DROP EVENT TRIGGER %[1]s",
	"CREATE SEQUENCE numbers",
	"DROP TABLE facade.dropped",
	"BEGIN; CREATE TABLE made (id int); ALTER TABLE a ADD COLUMN made int; COMMIT",
}

// idle are statements that change nothing of the kind.
var idle = []string{
	"SELECT pg_catalog.pg_current_xact_id()",
	"INSERT INTO a (id) VALUES (1)",
	"ANALYZE a", "VACUUM a", "ANALYZE pg_catalog.pg_class", "VACUUM FREEZE pg_catalog.pg_attribute",
	"COMMENT ON TABLE a IS 'of it'", "COMMENT ON COLUMN a.id IS 'of it'", "COMMENT ON FUNCTION one() IS 'of it'",
	"TRUNCATE b", "REFRESH MATERIALIZED VIEW m", "CLUSTER a USING a_pkey", "REINDEX TABLE b",
	"CREATE TEMP TABLE mine (id int PRIMARY KEY, name text); ALTER TABLE mine ADD COLUMN more int; CREATE TEMP VIEW ours AS SELECT id FROM mine",
	"DROP TABLE mine CASCADE",
	"CREATE INDEX a_both ON a (id, name)", // rows are found by this column already
	"REINDEX INDEX CONCURRENTLY a_both", "DROP INDEX a_both",
	"CREATE INDEX a_name ON a USING brin (name)", "CREATE INDEX a_lower ON a (lower(name))", "CREATE INDEX a_like ON a (name text_pattern_ops)",
	"BEGIN; ALTER TABLE a ADD COLUMN undone int; ROLLBACK",
	"ALTER TABLE a SET (fillfactor = 70)",
	"CREATE STATISTICS s ON id, name FROM a",
	"DEALLOCATE ALL", // of the session that says it alone
}

// watching gives each of the ways in which a Watch can ask, with a database of its own.
func watching(t *testing.T, story func(t *testing.T, dsn string, watcher *pgx.Conn, role string)) {
	for _, way := range []string{"session", "pooled"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			role := fmt.Sprintf("watch_%s_%d", way, time.Now().UnixNano())
			conn := pgtest.Connect(t, dsn)
			run(t, conn, fmt.Sprintf(watchedSchema, role))
			run(t, conn, `CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
				CREATE TYPE mood_text AS ENUM ('x'); CREATE FUNCTION mood_name(mood_text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'`)
			t.Cleanup(func() { run(t, pgtest.Connect(t, dsn), "DROP OWNED BY "+role+" CASCADE; DROP ROLE "+role) })
			to := dsn
			if way == "pooled" {
				to = pgtest.PgbouncerTo(t, dsn, "transaction")
			}
			config, err := pgx.ParseConfig(to)
			if err != nil {
				t.Fatal(err)
			}
			watcher, err := pgx.ConnectConfig(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { watcher.Close(context.Background()) })
			story(t, dsn, watcher, role)
		})
	}
}

// asking is a Watch and the answers that it owes.
type asking struct {
	*testing.T
	*catalog.Watch
}

func (w asking) ask() catalog.Answer {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := w.Ask(ctx)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// The sessions that change the schema stay open, and idle in their connection: the
// watch hears of what they have done as soon as they have their answer.
func TestEveryChangeOfTheSchemaIsNoticedAndDigested(t *testing.T) {
	t.Parallel()
	watching(t, func(t *testing.T, dsn string, watcher *pgx.Conn, role string) {
		w := asking{t, catalog.NewWatch(watcher)}
		conn, loader := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		w.ask()
		var before catalog.Digest
		replaced := make(map[catalog.Digest]string)
		for _, sql := range changes {
			if !w.ask().Same {
				t.Fatalf("before %s: a change was noticed where none is", sql)
			}
			run(t, conn, strings.ReplaceAll(sql, "%[1]s", role))
			if w.ask().Same {
				t.Errorf("%s: not noticed", sql)
			}
			digest := load(t, loader).Digest()
			if digest == before {
				t.Errorf("%s: the digest stays", sql)
			}
			if before = digest; strings.HasPrefix(sql, "CREATE OR REPLACE") {
				if other, ok := replaced[digest]; ok {
					t.Errorf("%s: the digest is that of %s", sql, other)
				}
				replaced[digest] = sql
			}
		}
	})
}

func TestWhatChangesNothingIsNoChange(t *testing.T) {
	t.Parallel()
	watching(t, func(t *testing.T, dsn string, watcher *pgx.Conn, _ string) {
		w := asking{t, catalog.NewWatch(watcher)}
		conn, loader := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		w.ask()
		want := load(t, loader).Digest()
		for _, sql := range idle {
			run(t, conn, sql)
			w.ask() // it may take more than one look, but the digest stays
			if got := load(t, loader).Digest(); got != want {
				t.Errorf("%s: the digest has changed", sql)
				want = got
			}
			if !w.ask().Same {
				t.Errorf("%s: noticed twice", sql)
			}
		}
	})
}

// What REINDEX finds valid again may be used.
func TestAnIndexThatBecomesValidIsAChange(t *testing.T) {
	t.Parallel()
	watching(t, func(t *testing.T, dsn string, watcher *pgx.Conn, _ string) {
		w := asking{t, catalog.NewWatch(watcher)}
		conn, loader := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
		run(t, conn, "INSERT INTO a (id, size) VALUES (1, 7), (2, 7)")
		if _, err := conn.Exec(context.Background(), "CREATE UNIQUE INDEX CONCURRENTLY a_size ON a (size)"); err == nil {
			t.Fatal("it is unique")
		}
		run(t, conn, "DELETE FROM a")
		w.ask()
		before := load(t, loader)
		run(t, conn, "REINDEX INDEX a_size")
		if w.ask().Same {
			t.Error("not noticed")
		}
		if reload(t, loader, before).Digest() == before.Digest() {
			t.Error("the digest stays")
		}
	})
}

// A table that gets another file is what it was: nothing need be loaded for it.
func TestATruncateIsNoChange(t *testing.T) {
	t.Parallel()
	watching(t, func(t *testing.T, dsn string, watcher *pgx.Conn, _ string) {
		w := asking{t, catalog.NewWatch(watcher)}
		conn := pgtest.Connect(t, dsn)
		w.ask()
		for _, sql := range []string{"TRUNCATE b", "VACUUM FULL b", "REFRESH MATERIALIZED VIEW m"} {
			run(t, conn, sql)
			if !w.ask().Same {
				t.Errorf("%s: a change", sql)
			}
		}
		run(t, conn, "ALTER TABLE b RENAME TO bb")
		if w.ask().Same {
			t.Error("a table with another name: no change")
		}
	})
}

func TestTheDigestIsTheSameForEveryProcessAndRole(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn := pgtest.Connect(t, dsn)
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT '2020-01-01'); CREATE VIEW v AS SELECT at FROM t")
	want := load(t, conn).Digest()
	other := pgtest.Connect(t, dsn)
	run(t, other, "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SET search_path = nowhere; SET extra_float_digits = 0; SET ROLE pg_monitor")
	if got := load(t, other).Digest(); got != want || got == (catalog.Digest{}) {
		t.Errorf("got %x, want %x", got, want)
	}
	// Someone's lock hides a definition, and changes nothing.
	run(t, conn, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	s := load(t, other)
	if !s.Incomplete() {
		t.Error("the definition of the view was had under the lock")
	}
	if got := s.Digest(); got != want {
		t.Errorf("under a lock: got %x, want %x", got, want)
	}
}

// What ANALYZE does makes PostgreSQL analyse the question anew and is no change.
func TestAWatchIsNotDeceivedByStatistics(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn := pgtest.Connect(t, dsn)
	run(t, conn, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
	w := asking{t, catalog.NewWatch(pgtest.Connect(t, dsn))}
	w.ask()
	for range 3 {
		run(t, conn, "ANALYZE t")
		if !w.ask().Same {
			t.Error("ANALYZE counts as a change")
		}
	}
	run(t, conn, "ALTER TABLE t ADD COLUMN more int")
	if w.ask().Same {
		t.Error("a change after ANALYZE was not noticed")
	}
}

// A session is pinned by what was asked in it: the watch goes on when the
// statement is gone, and does not when the connection is.
func TestAWatchThatLostItsStatementBeginsAnew(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn := pgtest.Connect(t, dsn)
	run(t, conn, "CREATE TABLE t (id int)")
	own := pgtest.Connect(t, dsn)
	w := asking{t, catalog.NewWatch(own)}
	w.Also = "(SELECT pg_catalog.current_database()::text)"
	w.ask()
	run(t, own, "DISCARD ALL")
	if a := w.ask(); !a.Same || a.Also != own.Config().Database {
		t.Errorf("got %+v", a)
	}
	run(t, own, "DISCARD ALL")
	run(t, conn, "ALTER TABLE t ADD COLUMN more int")
	if w.ask().Same {
		t.Error("a change beside the loss of the statement was not noticed")
	}
	own.Close(context.Background())
	if _, err := w.Ask(context.Background()); err == nil {
		t.Error("no error over a connection that is closed")
	}
}

// The names in the question are PostgreSQL's, whatever stands first on the path.
func TestAWatchIsNotLedAstrayByTheSearchPath(t *testing.T) {
	t.Parallel()
	watching(t, func(t *testing.T, dsn string, watcher *pgx.Conn, _ string) {
		run(t, pgtest.Connect(t, dsn), `CREATE FUNCTION public.concat_ws(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$ SELECT 'led astray' $$;
			CREATE FUNCTION public.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
			CREATE OPERATOR public.>= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.never);
			CREATE VIEW public.pg_proc AS SELECT 1::oid AS oid, '1'::xid AS xmin WHERE false;
			ALTER DATABASE `+watcher.Config().Database+` SET search_path = public, pg_catalog`)
		config, err := pgx.ParseConfig(watcher.Config().ConnString())
		if err != nil {
			t.Fatal(err)
		}
		led, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer led.Close(context.Background())
		w := asking{t, catalog.NewWatch(led)}
		w.ask()
		run(t, pgtest.Connect(t, dsn), "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'")
		if w.ask().Same {
			t.Error("a change was not noticed")
		}
	})
}

// BenchmarkWatch asks a database of 10,000 tables.
func BenchmarkWatch(b *testing.B) {
	dsn := pgtest.Database(b)
	conn := pgtest.Connect(b, dsn)
	for batch := range 20 {
		run(b, conn, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..500 LOOP
			EXECUTE format('CREATE TABLE t%d_%%s (id int PRIMARY KEY, a text, b int, c timestamptz, d numeric)', i); END LOOP; END $$`, batch))
	}
	w := catalog.NewWatch(conn)
	if _, err := w.Ask(context.Background()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if a, err := w.Ask(context.Background()); err != nil || !a.Same {
			b.Fatal(a, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/question")
}
