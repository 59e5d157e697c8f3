package feed

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
)

// oddTable is a table that setups have broken, or could. Its statements run in a
// schema of its own. Every one, and every write, succeeds without a setup.
type oddTable struct {
	name   string
	major  int      // the server that it needs
	first  []string // before a setup, unless that comes first of all
	then   []string // after it, unless that comes last
	writes []string
	want   string // the identities of the tables that are there at last, if they matter
	lost   string // those when a setup is taken away, where they cannot be as they were
}

var oddTables = []oddTable{
	{name: "a primary key", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)"), want: "t=d"},
	{name: "no key", first: sqls("CREATE TABLE t (id int, v int)"), want: "t=f"},
	{name: "no key but a unique one", first: sqls("CREATE TABLE t (id int NOT NULL UNIQUE, v int)"), want: "t=f"},
	{name: "a deferrable primary key", first: sqls("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v int)"), want: "t=f"},
	{name: "a deferred primary key", first: sqls("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int)"), want: "t=f"},
	{name: "a deferrable primary key later", first: sqls("CREATE TABLE t (id int, v int)"), then: sqls("ALTER TABLE t ADD PRIMARY KEY (id) DEFERRABLE"), want: "t=f"},
	{name: "a primary key that becomes deferrable", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)"),
		then: sqls("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE"), want: "t=f"},
	{name: "a primary key that becomes immediate", first: sqls("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v int)"),
		then: sqls("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)"), want: "t=d"},
	{name: "a key in a later statement", first: sqls("CREATE TABLE t (id int NOT NULL, v int)"), then: sqls("ALTER TABLE ONLY t ADD CONSTRAINT t_pkey PRIMARY KEY (id)"), want: "t=d"},
	{name: "a key by an index in a later statement", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (id)"),
		then: sqls("ALTER TABLE t ADD PRIMARY KEY USING INDEX i"), want: "t=d"},
	{name: "a key that is dropped", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)"), then: sqls("ALTER TABLE t DROP CONSTRAINT t_pkey"), want: "t=f"},
	{name: "a key whose column is dropped", first: sqls("CREATE TABLE t (a int, id int, v int, PRIMARY KEY (a, id))"), then: sqls("ALTER TABLE t DROP COLUMN a"), want: "t=f"},
	{name: "a key whose type is dropped", first: sqls("CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TABLE t (m mood DEFAULT 'ok', id int, v int, PRIMARY KEY (m, id))"),
		then: sqls("DROP TYPE mood CASCADE"), want: "t=f"},
	{name: "a key whose domain is dropped with a schema", first: sqls("DROP SCHEMA IF EXISTS other CASCADE", "CREATE SCHEMA other", "CREATE DOMAIN other.d AS int", "CREATE TABLE t (m other.d DEFAULT 1, id int, v int, PRIMARY KEY (m, id))"),
		then: sqls("DROP SCHEMA other CASCADE"), want: "t=f"},
	{name: "an identity by an index", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX i ON t (id)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i"), want: "t=i"},
	{name: "an identity by an index that is dropped", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX i ON t (id)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i"),
		then: sqls("DROP INDEX i"), want: "t=f", lost: "t=d"},
	{name: "an identity by an index that is dropped concurrently", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX i ON t (id)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i"),
		then: sqls("DROP INDEX CONCURRENTLY i"), want: "t=f", lost: "t=d"},
	{name: "an identity by an index that is dropped, with a key", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int, u int NOT NULL DEFAULT 1)",
		"CREATE UNIQUE INDEX i ON t (u, id)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i"), then: sqls("DROP INDEX i"), want: "t=d", lost: "t=d"},
	{name: "an identity by the index of a constraint", first: sqls("CREATE TABLE t (id int NOT NULL CONSTRAINT u UNIQUE, v int)", "ALTER TABLE t REPLICA IDENTITY USING INDEX u"),
		then: sqls("ALTER TABLE t DROP CONSTRAINT u"), want: "t=f", lost: "t=d"},
	{name: "an identity that is rebuilt", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX i ON t (id)", "ALTER TABLE t REPLICA IDENTITY USING INDEX i"),
		then: sqls("ALTER TABLE t ALTER id TYPE bigint", "REINDEX INDEX CONCURRENTLY i"), want: "t=i"},
	{name: "FULL by choice", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)", "ALTER TABLE t REPLICA IDENTITY FULL"), want: "t=f"},
	{name: "FULL by choice before its key", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "ALTER TABLE ONLY t REPLICA IDENTITY FULL"),
		then: sqls("ALTER TABLE t ADD PRIMARY KEY (id)"), want: "t=f"},
	{name: "NOTHING by choice", first: sqls("CREATE TABLE t (id int, v int)", "ALTER TABLE t REPLICA IDENTITY NOTHING"), want: "t=f"},
	{name: "NOTHING by choice, with a key", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)", "ALTER TABLE t REPLICA IDENTITY NOTHING"), want: "t=d"},
	{name: "NOTHING later", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)"), then: sqls("ALTER TABLE t REPLICA IDENTITY NOTHING"), want: "t=d"},
	{name: "DEFAULT without a key", first: sqls("CREATE TABLE t (id int, v int)", "ALTER TABLE t REPLICA IDENTITY FULL"), then: sqls("ALTER TABLE t REPLICA IDENTITY DEFAULT"), want: "t=f"},
	{name: "a unique index that is invalid", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX i ON t (id)",
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass"), want: "t=f"},
	{name: "partial and expression indexes", first: sqls("CREATE TABLE t (id int NOT NULL, v int)", "CREATE UNIQUE INDEX ON t (id) WHERE v > 0", "CREATE UNIQUE INDEX ON t ((id + 1))"), want: "t=f"},
	{name: "dropped columns", first: sqls("CREATE TABLE t (a int, id int PRIMARY KEY, b text, v int)"), then: sqls("ALTER TABLE t DROP a, DROP b"), want: "t=d"},
	{name: "partitions", first: sqls("CREATE TABLE t (id int, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)", "CREATE TABLE t2 (v int, id int)"),
		then:   sqls("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)", "CREATE TABLE t3 PARTITION OF t DEFAULT"),
		writes: sqls("INSERT INTO t VALUES (11, 1), (21, 1)", "UPDATE t SET v = 3 WHERE id > 10", "UPDATE t SET id = id + 10", "DELETE FROM t2", "DELETE FROM t"), want: "t=f t1=f t2=f t3=f"},
	{name: "partitions that get a key", first: sqls("CREATE TABLE t (id int NOT NULL, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)"),
		then: sqls("ALTER TABLE t ADD PRIMARY KEY (id)"), want: "t=d t1=d"},
	{name: "partitions as pg_dump makes them", first: sqls("CREATE TABLE t (id int NOT NULL, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 (id int NOT NULL, v int)",
		"ALTER TABLE ONLY t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10)"),
		then: sqls("ALTER TABLE ONLY t ADD CONSTRAINT t_pkey PRIMARY KEY (id)", "ALTER TABLE ONLY t1 ADD CONSTRAINT t1_pkey PRIMARY KEY (id)", "ALTER INDEX t_pkey ATTACH PARTITION t1_pkey"), want: "t=d t1=d"},
	{name: "a partition that is attached gets the key", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 (id int NOT NULL, v int)"),
		then: sqls("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10)"), want: "t=d t1=d"},
	{name: "a partition that is detached", first: sqls("CREATE TABLE p (id int, v int) PARTITION BY RANGE (id)", "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (100)"),
		then: sqls("ALTER TABLE p DETACH PARTITION t CONCURRENTLY"), want: "p=f t=f"},
	{name: "partitions that lose the key", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)"),
		then: sqls("ALTER TABLE t DROP CONSTRAINT t_pkey"), want: "t=f t1=f"},
	{name: "inheritance", first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE child () INHERITS (t)"),
		writes: sqls("INSERT INTO child VALUES (2, 2)", "UPDATE t SET v = 3", "DELETE FROM t"), want: "child=f t=d"},
	{name: "unlogged", first: sqls("CREATE UNLOGGED TABLE t (id int, v int)"), want: "t=d"},
	{name: "unlogged and then logged", first: sqls("CREATE UNLOGGED TABLE t (id int, v int)"), then: sqls("ALTER TABLE t SET LOGGED"), want: "t=f"},
	{name: "logged and then unlogged", first: sqls("CREATE TABLE t (id int, v int)"), then: sqls("ALTER TABLE t SET UNLOGGED")},
	{name: "temporary", first: sqls("CREATE TEMP TABLE t (id int, v int)"), then: sqls("ALTER TABLE t ADD w int", "CREATE INDEX ON t (w)")},
	{name: "temporary and dropped at the commit", first: sqls("CREATE TEMP TABLE scratch (id int) ON COMMIT DROP", "CREATE TABLE t (id int, v int)")},
	{name: "AS a query", first: sqls("CREATE TABLE t AS SELECT 0 AS id, 0 AS v"), want: "t=f"},
	{name: "SELECT INTO", first: sqls("SELECT 0 AS id, 0 AS v INTO t"), want: "t=f"},
	{name: "LIKE another", first: sqls("CREATE TABLE s (id int PRIMARY KEY DEFERRABLE, v int)", "CREATE TABLE t (LIKE s INCLUDING ALL)", "CREATE TABLE u (LIKE s)"), want: "s=f t=f u=f"},
	{name: "renamed and moved", first: sqls("DROP SCHEMA IF EXISTS away CASCADE", "CREATE SCHEMA away", "CREATE TABLE s (id int, v int)"),
		then:   sqls(`ALTER TABLE s RENAME TO "odd "" name"`, `ALTER TABLE "odd "" name" SET SCHEMA away`, `ALTER TABLE away."odd "" name" ADD w int, ADD CONSTRAINT k PRIMARY KEY (id)`, `ALTER TABLE away."odd "" name" DROP CONSTRAINT k`),
		writes: sqls(`INSERT INTO away."odd "" name" VALUES (1, 1)`, `UPDATE away."odd "" name" SET v = 2`, `DELETE FROM away."odd "" name"`)},
	{name: "a materialised view", first: sqls("CREATE TABLE t (id int, v int)", "CREATE MATERIALIZED VIEW m AS SELECT * FROM t", "CREATE UNIQUE INDEX ON m (id)"),
		then: sqls("REFRESH MATERIALIZED VIEW CONCURRENTLY m"), writes: sqls("INSERT INTO t VALUES (1, 1)", "REFRESH MATERIALIZED VIEW CONCURRENTLY m", "UPDATE t SET v = 2", "DELETE FROM t", "REFRESH MATERIALIZED VIEW m")},
	{name: "pending trigger events", first: sqls("CREATE TABLE s (id int PRIMARY KEY)", "CREATE TABLE t (id int REFERENCES s DEFERRABLE INITIALLY DEFERRED, v int)"),
		then:   sqls("BEGIN; INSERT INTO s VALUES (5); INSERT INTO t VALUES (5, 5); COMMENT ON TABLE t IS 'x'; CREATE TABLE u (id int); COMMIT"),
		writes: sqls("UPDATE t SET v = 2", "DELETE FROM t"), want: "s=d t=f u=f"},
	{name: "a cursor that is open", first: sqls("CREATE TABLE t (id int, v int)"),
		then: sqls("DO $$ DECLARE r record; BEGIN FOR r IN SELECT generate_series(1, 2) AS n LOOP EXECUTE format('CREATE TABLE made%s (id int)', r.n); END LOOP; END $$"), want: "made1=f made2=f t=f"},
	{name: "a table of a type", first: sqls("CREATE TYPE shape AS (id int, v int)", "CREATE TABLE t OF shape (PRIMARY KEY (id))"), then: sqls("ALTER TYPE shape ADD ATTRIBUTE w int CASCADE", "ALTER TYPE shape DROP ATTRIBUTE w CASCADE"), want: "t=d"},
	{name: "a table of a type that loses the key", first: sqls("CREATE TYPE shape AS (k int, id int, v int)", "CREATE TABLE t OF shape (PRIMARY KEY (id, k))"),
		then: sqls("ALTER TYPE shape DROP ATTRIBUTE k CASCADE"), want: "t=f"},
	{name: "a stored generated column", first: sqls("CREATE TABLE t (id int, v int, g int GENERATED ALWAYS AS (id + 1) STORED)"), want: "t=f"},
	{name: "a key with a stored generated column", first: sqls("CREATE TABLE t (id int, v int, g int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (id, g))"), want: "t=d"},
	{name: "a stored generated column later", first: sqls("CREATE TABLE t (id int, v int)"), then: sqls("ALTER TABLE t ADD g int GENERATED ALWAYS AS (id + 1) STORED"), want: "t=f"},
	{name: "a schema with tables in it", first: sqls("DROP SCHEMA IF EXISTS filled CASCADE", "CREATE SCHEMA filled CREATE TABLE t (id int, v int) CREATE TABLE u (id int PRIMARY KEY DEFERRABLE)"),
		writes: sqls("INSERT INTO filled.t VALUES (1, 1)", "UPDATE filled.t SET v = 2", "INSERT INTO filled.u VALUES (1)", "DELETE FROM filled.u")},
	{name: "tables of an extension", first: sqls("CREATE EXTENSION IF NOT EXISTS plpgsql", "CREATE TABLE t (id int, v int)", "ALTER EXTENSION plpgsql ADD TABLE t"), then: sqls("ALTER TABLE t ADD w int", "ALTER EXTENSION plpgsql DROP TABLE t"), want: "t=f"},
	{name: "a virtual generated column and a key", major: 18, first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int, g int GENERATED ALWAYS AS (id + 1))"), want: "t=d"},
	{name: "a virtual generated column and NOTHING", major: 18, first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int, g int GENERATED ALWAYS AS (id + 1))", "ALTER TABLE t REPLICA IDENTITY NOTHING"), want: "t=d"},
	{name: "a virtual generated column and FULL", major: 18, first: sqls("CREATE TABLE t (id int PRIMARY KEY, v int, g int GENERATED ALWAYS AS (id + 1))", "ALTER TABLE t REPLICA IDENTITY FULL"), want: "t=d"},
	{name: "a virtual generated column and a unique one", major: 18, first: sqls("CREATE TABLE t (id int NOT NULL UNIQUE, v int, g int GENERATED ALWAYS AS (id + 1))"), want: "t=i"},
	{name: "a virtual generated column", major: 18, first: sqls("CREATE TABLE t (id int, v int, g int GENERATED ALWAYS AS (id + 1))", "CREATE TABLE u (id int, v int)"), then: sqls("CREATE TABLE w (id int)"), want: "t=d u=f w=f"},
	{name: "a virtual generated column later", major: 18, first: sqls("CREATE TABLE t (id int, v int)"), then: sqls("ALTER TABLE t ADD g int GENERATED ALWAYS AS (id + 1)"), want: "t=d"},
	{name: "a virtual generated column in partitions", major: 18, first: sqls("CREATE TABLE t (id int, v int) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t DEFAULT"),
		then: sqls("ALTER TABLE t ADD g int GENERATED ALWAYS AS (id + 1)")},
	{name: "a virtual generated column, and then a key", major: 18, first: sqls("CREATE TABLE t (id int NOT NULL, v int, g int GENERATED ALWAYS AS (id + 1))"), then: sqls("ALTER TABLE t ADD PRIMARY KEY (id)"), want: "t=d"},
	{name: "a virtual generated column that goes", major: 18, first: sqls("CREATE TABLE t (id int NOT NULL, v int, g int GENERATED ALWAYS AS (id + 1))"), then: sqls("ALTER TABLE t DROP g"), want: "t=f"},
	{name: "a key that is not enforced yet", major: 18, first: sqls("CREATE TABLE t (id int, v int)", "ALTER TABLE t ADD CONSTRAINT n NOT NULL id NOT VALID"),
		then: sqls("ALTER TABLE t VALIDATE CONSTRAINT n", "ALTER TABLE t ADD PRIMARY KEY (id)"), want: "t=d"},
	{name: "a temporal key", major: 18, first: sqls("CREATE TABLE t (id int4range DEFAULT '[1,2)', at daterange DEFAULT '[2020-01-01,2021-01-01)', v int, PRIMARY KEY (id, at WITHOUT OVERLAPS))"),
		writes: sqls("INSERT INTO t (v) VALUES (1)", "UPDATE t SET v = 2", "DELETE FROM t")},
}

func sqls(list ...string) []string { return list }

func (o oddTable) changes() []string {
	if o.writes != nil {
		return o.writes
	}
	return sqls("INSERT INTO t (id, v) VALUES (1, 1), (2, 1)", "UPDATE t SET v = 2 WHERE id = 1", "UPDATE t SET id = 3 WHERE id = 2", "DELETE FROM t WHERE id = 3", "UPDATE t SET v = v + 1", "DELETE FROM t")
}

// What worked before a setup works after it, whenever that is, and when it is
// taken away all is as it was: a catalog of odd tables, each tried without one first.
func TestSetupBreaksNoTable(t *testing.T) {
	t.Parallel()
	var without sync.Map // identities by the name of the case
	t.Run("never", func(t *testing.T) { trySetup(t, "never", &without) })
	for _, when := range []string{"first", "between", "last"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			trySetup(t, when, &without)
		})
	}
}

func trySetup(t *testing.T, when string, without *sync.Map) {
	database := pgtest.Database(t)
	for _, odd := range oddTables {
		t.Run(odd.name, func(t *testing.T) {
			if odd.major > 0 {
				harness.NeedsServer(t, odd.major)
			}
			conn := pgtest.Connect(t, database)
			run := func(statements ...string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
				defer cancel()
				for _, sql := range statements {
					if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
						t.Fatalf("%s: %v", sql, err)
					}
				}
			}
			t.Cleanup(func() { pgtest.Exec(t, database, walfeed.RemoveSQL+"DROP SCHEMA IF EXISTS odd CASCADE") })
			setup := func(now string) {
				t.Helper()
				if now == when {
					run(cachedpg.WALSetupSQL)
				}
			}
			run("CREATE SCHEMA odd; SET search_path = odd")
			setup("first")
			run(odd.first...)
			setup("between")
			run(odd.then...)
			setup("last")
			run(odd.changes()...)
			given := identities(t, conn)
			if when == "never" {
				without.Store(odd.name, given)
				return
			}
			if odd.want != "" && given != odd.want {
				t.Errorf("got identities %s, want %s", given, odd.want)
			}
			if refused := text(t, conn, walfeed.RefusedSQL); refused != "" {
				t.Errorf("PostgreSQL would refuse %s", refused)
			}
			if err := walfeed.Check(text(t, conn, walfeed.CheckSQL)); err != nil {
				t.Error(err)
			}
			if _, err := walfeed.CheckList(text(t, conn, walfeed.ListSQL)); err != nil && text(t, conn, "SELECT puballtables::text FROM pg_publication") == "false" {
				t.Error(err)
			}
			run(cachedpg.WALSetupSQL)
			if again := identities(t, conn); again != given {
				t.Errorf("a second setup makes %s of %s", again, given)
			}
			run(odd.changes()...)
			for range 2 {
				run(walfeed.RemoveSQL)
				before, _ := without.Load(odd.name)
				// An index that was dropped cannot be chosen again.
				if got, want := identities(t, conn), before.(string); got != want && (odd.lost == "" || got != odd.lost) {
					t.Errorf("taken away: got identities %s, want %s", got, want)
				}
			}
			run(odd.changes()...)
			run("DROP SCHEMA odd CASCADE")
			const left = `SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_event_trigger)
				+ (SELECT count(*) FROM pg_proc WHERE oid >= 16384) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'cachedpg') || ''`
			if got := text(t, conn, left); got != "0" {
				t.Errorf("%s objects are left behind", got)
			}
		})
	}
}

// identities are those of the tables of schema odd.
func identities(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return text(t, conn, "SELECT coalesce(string_agg(relname || '=' || relreplident::text, ' ' ORDER BY relname), '') FROM pg_class WHERE relnamespace = 'odd'::regnamespace AND relkind IN ('r', 'p')")
}

func text(t *testing.T, conn *pgx.Conn, sql string) (answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	if err := conn.QueryRow(ctx, sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}
