package session

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// temporaryStories are what a session does with temporary objects, none of which is called items. A
// line with ? is a query that is not cached.
var temporaryStories = []struct{ name, steps string }{
	{"dropped at the commit", `BEGIN; CREATE TEMP TABLE a (id int, name text) ON COMMIT DROP; INSERT INTO a SELECT id, name FROM users;
		? SELECT u.id, a.name FROM users u JOIN a ON a.id = u.id ORDER BY 1; UPDATE a SET name = 'x' WHERE id = 1; DELETE FROM a WHERE id = 2;
		? SELECT * FROM a ORDER BY 1; TRUNCATE a; COMMIT`},
	{"emptied at the commit", `CREATE TEMP TABLE b (id int PRIMARY KEY, name text) ON COMMIT DELETE ROWS; BEGIN; INSERT INTO b VALUES (1, 'a');
		? SELECT * FROM b; COMMIT; ? SELECT * FROM b; DROP TABLE b`},
	{"of a query", `CREATE TEMP TABLE c AS SELECT * FROM users; ? SELECT * FROM c ORDER BY id; INSERT INTO c VALUES (7, 'g', ''); DROP TABLE c`},
	{"selected into", `SELECT * INTO TEMP d FROM users; ? SELECT * FROM d ORDER BY id; DROP TABLE IF EXISTS d`},
	{"like another", `CREATE TEMP TABLE e (LIKE users INCLUDING ALL); INSERT INTO e SELECT * FROM users; ? SELECT * FROM e ORDER BY id; DISCARD TEMP`},
	{"with keys, indexes and defaults", `CREATE TEMP TABLE g (id serial PRIMARY KEY, name text DEFAULT upper('x') UNIQUE, n int CHECK (n > 0), CONSTRAINT g_n UNIQUE (n));
		CREATE INDEX ON g (name); CREATE UNIQUE INDEX own ON g (id, n); ALTER TABLE g ADD COLUMN more int; ALTER TABLE g ALTER more TYPE bigint;
		INSERT INTO g (n) VALUES (1), (2) ON CONFLICT DO NOTHING; ? SELECT * FROM g ORDER BY id; ALTER TABLE g RENAME TO others; ? SELECT n FROM others ORDER BY 1; DROP TABLE others`},
	{"that is there already", `CREATE TEMP TABLE h (id int); BEGIN; CREATE TEMP TABLE IF NOT EXISTS h (id int) ON COMMIT DROP; INSERT INTO h VALUES (1); COMMIT;
		? SELECT * FROM h; DROP TABLE h`},
	{"rolled back", `BEGIN; CREATE TEMP TABLE i (id int); INSERT INTO i VALUES (1); ? SELECT * FROM i; ROLLBACK`},
	{"rolled back to a savepoint", `BEGIN; SAVEPOINT s; CREATE TEMP TABLE j (id int); INSERT INTO j VALUES (1); ? SELECT * FROM j; ROLLBACK TO s; COMMIT`},
	{"whose drop is rolled back", `CREATE TEMP TABLE k (id int); BEGIN; DROP TABLE k; ROLLBACK; INSERT INTO k VALUES (1); ? SELECT * FROM k; DISCARD TEMP`},
	{"in pg_temp", `CREATE TABLE pg_temp.l (id int); INSERT INTO pg_temp.l VALUES (1); ? SELECT * FROM pg_temp.l; ? SELECT * FROM l; DROP TABLE pg_temp.l`},
	{"views and sequences", `CREATE TEMP VIEW m AS SELECT id FROM users WHERE id < 3; ? SELECT * FROM m ORDER BY 1; CREATE TEMP SEQUENCE numbers; DROP SEQUENCE numbers;
		CREATE OR REPLACE TEMP VIEW m AS SELECT id FROM users WHERE id < 2; ? SELECT * FROM m; DROP VIEW m`},
	{"all of the session", `CREATE TEMP TABLE n (id int); CREATE TEMP TABLE o (id int); DISCARD ALL`},
}

// What a session does with its temporary tables is nothing to others, nor to what it reads besides.
func TestTemporaryTablesConcernTheirSessionAlone(t *testing.T) {
	harness.Scenario(t, harness.TemporarySetup, func(f *harness.Fixture) {
		other := f.With()
		for _, story := range temporaryStories {
			f.Step(story.name, func(f *harness.Fixture) {
				s, _ := f.Session()
				if strings.Contains(story.steps, "DISCARD ALL") && f.Mode() < 3 { // pgx keeps the names of what DISCARD ALL has taken from PostgreSQL
					return
				}
				f.Known(harness.ItemByID, 1)
				other.F = f
				other.Known(harness.ItemByID, 1)
				s.Hit(harness.ItemByID, 1)
				for step := range strings.SplitSeq(story.steps, ";") {
					if query, reads := strings.CutPrefix(strings.TrimSpace(step), "? "); reads {
						s.Bypass(keying.TemporaryTable, query)
					} else {
						s.Both(step)
					}
					f.Hit(harness.ItemByID, 1)
					other.Hit(harness.ItemByID, 1)
					s.Hit(harness.ItemByID, 1)
				}
				if s := cachedpg.StatsOf(f.DB); s.Hits == 0 {
					f.Error("no hit")
				}
			})
		}
	})
}

const addUser = "INSERT INTO users VALUES ($1, $2, '')"

// A temporary table hides another one of its name for as long as it is there, also from statements that
// were prepared before; what is written to it invalidates nothing of the other.
func TestATemporaryTableHidesAnother(t *testing.T) {
	harness.Scenario(t, harness.TemporarySetup, func(f *harness.Fixture) {
		const count = "SELECT count(*) FROM users"
		f.Known(harness.ItemByID, 1)
		s, _ := f.Session()
		// As the driver does it; the temporary schema is there, so that PostgreSQL does not by itself.
		hides := func(statements ...string) {
			f.Helper()
			for _, sql := range statements {
				s.Both(sql)
			}
			if _, err := s.Truth.ExecContext(f.Ctx, "DISCARD PLANS"); err != nil {
				f.Fatal(err)
			}
		}
		s.Both("CREATE TEMP TABLE mine (id int)")
		both := func(id int) { f.Helper(); s.Both(addUser, id, "new") }
		s.Exec(addUser, 10, "new") // is prepared
		s.Exec("DELETE FROM users WHERE id = 10")

		f.Known(count)
		s.Known(harness.UserByID, 11)
		hides("CREATE TEMP TABLE users (LIKE users)")
		both(11)
		s.Bypass(keying.TemporaryTable, harness.UserByID, 11).Is("11 new ")
		s.Bypass(keying.TemporaryTable, count).Is("1")
		f.Hit(count).Is("3")
		f.Hit(harness.UserByID, 11).Is("")
		s.Both("DROP TABLE users")
		s.Hit(harness.UserByID, 11).Is("")
		s.Hit(count).Is("3")

		hides("BEGIN", "CREATE TEMP TABLE users (LIKE users) ON COMMIT DROP")
		both(11)
		s.Bypass(keying.TemporaryTable, count).Is("1")
		s.Both("COMMIT")
		s.Hit(count).Is("3")
		f.Hit(count).Is("3")

		// The other is written while the drop of the temporary one is not committed.
		hides("CREATE TEMP TABLE users (LIKE users)", "BEGIN")
		both(12)
		s.Both("DROP TABLE users")
		s.Exec(addUser, 12, "new")
		s.Both("SAVEPOINT s")
		s.Runs(keying.InTransactionAfterWrite, count).Is("4")
		hides("ROLLBACK")
		both(13)
		s.Bypass(keying.TemporaryTable, count).Is("1")
		f.Hit(count).Is("3")
		f.Hit(harness.UserByID, 11).Is("")
		s.Both("DISCARD TEMP")
		s.Hit(count).Is("3")
		s.Exec(addUser, 14, "new")
		f.Miss(count).Is("4")
	})
}

const temporaryCode = harness.TemporarySetup + `
	CREATE FUNCTION run(what text) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE what; RETURN 1; END';
	CREATE FUNCTION hide() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN CREATE TEMP TABLE users AS SELECT 5 AS id, 'own'::text AS name, ''::text AS city; RETURN 1; END $$;
	CREATE FUNCTION named() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN UPDATE items SET name = name || '+' WHERE id = 1; RETURN NEW; END $$;
	CREATE FUNCTION bump() RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE items SET name = name || '-' WHERE id = 1; RETURN 1; END $$;
	CREATE FUNCTION add() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO users VALUES (20, 'by code', ''); RETURN 1; END $$;`

// Statements are separated by ; and those of one text by |. @ is the schema.
var temporaryCodeStories = []struct{ name, steps string }{
	{"made unseen", `SELECT run('CREATE TEMP TABLE users AS SELECT 4 AS id, ''hidden''::text AS name, ''''::text AS city'); INSERT INTO users VALUES (9, 'z', ''); DROP TABLE users`},
	{"made unseen in a transaction", `BEGIN; SELECT run('CREATE TEMP TABLE users (LIKE users) ON COMMIT DROP'); INSERT INTO users VALUES (8, 'temporary', ''); COMMIT`},
	{"made unseen and rolled back", `BEGIN; SELECT run('CREATE TEMP TABLE users (LIKE users)'); ROLLBACK`},
	{"made by DO", `DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text)| INSERT INTO users VALUES (3, 'done', '')| END $$; DROP TABLE users`},
	{"made by a function", `SELECT hide(); SELECT add(); DROP TABLE users; SELECT add(); DELETE FROM users WHERE id = 20`},
	{"dropped unseen", `CREATE TEMP TABLE users (LIKE users); SELECT add(); SELECT run('DROP TABLE users'); INSERT INTO users VALUES (7, 'permanent', ''); DELETE FROM users WHERE id = 7`},
	{"dropped unseen in a transaction", `CREATE TEMP TABLE users (LIKE users); BEGIN; SELECT run('DROP TABLE users'); INSERT INTO users VALUES (7, 'permanent', ''); COMMIT; DELETE FROM users WHERE id = 7`},
	{"a view in front of a table", `CREATE TEMP VIEW users AS SELECT id, name, ''::text AS city FROM items; UPDATE users SET name = 'by the view' WHERE id = 2; DROP VIEW users`},
	{"a view that is written", `CREATE TEMP VIEW seen AS SELECT * FROM items WHERE checked(id) = 2; UPDATE seen SET name = 'seen'; SELECT * FROM seen; DISCARD TEMP`},
	{"a view that writes", `CREATE TEMP VIEW calls AS SELECT bump() AS n; SELECT n FROM calls; DROP VIEW calls`},
	{"a view that comes to write", `CREATE TEMP VIEW calls AS SELECT 1 AS n; BEGIN; CREATE OR REPLACE TEMP VIEW calls AS SELECT bump() AS n; COMMIT; SELECT n FROM calls; DISCARD TEMP`},
	{"a default that writes", `CREATE TEMP TABLE coded (id int DEFAULT bump(), n int); INSERT INTO coded (n) VALUES (1); DROP TABLE coded`},
	{"a trigger", `CREATE TEMP TABLE coded (id int); CREATE TRIGGER named BEFORE INSERT ON coded FOR EACH ROW EXECUTE FUNCTION named(); INSERT INTO coded VALUES (1); INSERT INTO coded VALUES (2); DROP TABLE coded`},
	{"a rule", `CREATE TEMP TABLE coded (id int); CREATE RULE other AS ON INSERT TO coded DO ALSO UPDATE items SET name = 'by a rule' WHERE id = 2; INSERT INTO coded VALUES (1); DISCARD TEMP`},
	{"a column that is computed", `CREATE TEMP TABLE plain (id int); INSERT INTO plain VALUES (1); ALTER TABLE plain ADD COLUMN n int DEFAULT bump(); INSERT INTO plain VALUES (1); DROP TABLE plain CASCADE`},
	{"a child", `CREATE TEMP TABLE child () INHERITS (users); INSERT INTO child VALUES (30, 'of the child', ''); UPDATE users SET city = 'x' WHERE id = 30; DROP TABLE child`},
	{"that becomes a child", `CREATE TEMP TABLE child (LIKE users); ALTER TABLE child INHERIT users; INSERT INTO child VALUES (30, 'of the child', ''); DISCARD TEMP`},
	{"in one text", `CREATE TEMP TABLE users (LIKE users)|INSERT INTO users VALUES (6, 'text', ''); INSERT INTO users VALUES (7, 'text', ''); DROP TABLE users|INSERT INTO users VALUES (16, 'text', ''); DELETE FROM users WHERE id = 16`},
	{"rolled back in one text", `BEGIN|CREATE TEMP TABLE users (LIKE users)|ROLLBACK|INSERT INTO users VALUES (17, 'text', ''); DELETE FROM users WHERE id = 17`},
	{"behind others on the path", `CREATE TEMP TABLE users (LIKE users); SET search_path = pg_temp, @; INSERT INTO users VALUES (6, 'x', ''); SET search_path = @, pg_temp; INSERT INTO users VALUES (18, 'x', '');
		DELETE FROM users WHERE id = 18; SET search_path = @; DROP TABLE pg_temp.users`},
	{"first on the path", `SET search_path = pg_temp, @; CREATE TABLE users (id int, name text, city text); INSERT INTO users VALUES (6, 'x', ''); RESET search_path; INSERT INTO users VALUES (6, 'x', ''); DISCARD TEMP`},
	{"until a commit that is at once", `CREATE TEMP TABLE users (LIKE users) ON COMMIT DROP; INSERT INTO users VALUES (19, 'permanent', ''); DELETE FROM users WHERE id = 19`},
	{"a view of one", `CREATE TEMP TABLE ours (id int); CREATE VIEW users_seen AS SELECT * FROM ours; SELECT * FROM users_seen; DISCARD TEMP`},
	{"a view behind others", `SET search_path = @, pg_temp; CREATE TEMP VIEW users AS SELECT id, name, ''::text AS city FROM items; UPDATE pg_temp.users SET name = 'x' WHERE id = 2; UPDATE users SET name = 'y' WHERE id = 2; DISCARD TEMP; RESET search_path`},
}

// What code makes of temporary objects is asked for, and what is written through them.
func TestTemporaryObjectsOfCode(t *testing.T) {
	harness.Scenario(t, temporaryCode, func(f *harness.Fixture) {
		texts := []string{"SELECT name FROM users ORDER BY id", "SELECT city FROM users WHERE id = 30", "SELECT name FROM items ORDER BY id"}
		for _, story := range temporaryCodeStories {
			f.Step(story.name, func(f *harness.Fixture) {
				conn := f.Conn(f.DB)
				s := f.On(conn)
				agree := func(after string) {
					f.Helper()
					s.Exec("DISCARD PLANS") // what was prepared before may mean another table to PostgreSQL
					for range 2 {
						for _, query := range texts {
							f.Fresh(query)
							got, want := s.Read(conn, query, nil), s.Read(conn, "/* cachedpg: bypass */ "+query, nil)
							if got.String() != want.String() || got.Err != nil {
								f.Fatalf("after %s\n%s:\ngot  %v (%v)\nwant %v", after, query, got, got.Err, want)
							}
						}
					}
				}
				agree("the beginning")
				for step := range strings.SplitSeq(strings.ReplaceAll(story.steps, "@", harness.Modes[f.Mode()-1]), ";") {
					step = strings.ReplaceAll(strings.TrimSpace(step), "|", ";")
					s.Exec(step)
					agree(step)
				}
			})
		}
	})
}

// The statements of one batch are planned before the first of them runs.
func TestABatchThatHidesATable(t *testing.T) {
	harness.Scenario(t, harness.TemporarySetup, func(f *harness.Fixture) {
		for _, inTx := range []bool{false, true} {
			f.Known(harness.ItemByID, 1)
			conn := f.Conn(f.DB)
			err := cachedpg.PgxConn(f.Ctx, conn, func(pgxConn *pgx.Conn) error {
				batch := &pgx.Batch{}
				batch.Queue("CREATE TEMP VIEW users AS SELECT id, name FROM items")
				batch.Queue("UPDATE users SET name = $1 WHERE id = 1", "by the view")
				run := func(b interface {
					SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
				}) error {
					return b.SendBatch(f.Ctx, batch).Close()
				}
				if !inTx {
					return run(pgxConn)
				}
				return pgx.BeginFunc(f.Ctx, pgxConn, func(tx pgx.Tx) error { return run(tx) })
			})
			if err != nil {
				f.Fatal(err)
			}
			f.Fresh(harness.ItemByID, 1)
			f.Fresh(harness.UserByID, 1)
			f.On(conn).Exec("DISCARD TEMP")
			conn.Close()
			f.Exec("UPDATE items SET name = 'again' WHERE id = 1")
		}
	})
}

// What another connection of the pool, or pgx, has copied in belongs to the session as well.
func TestACopyIntoATemporaryTable(t *testing.T) {
	harness.Scenario(t, harness.TemporarySetup, func(f *harness.Fixture) {
		f.Known("SELECT count(*) FROM users")
		conn := f.Conn(f.DB)
		s := f.On(conn)
		s.Exec("BEGIN")
		s.Exec("CREATE TEMP TABLE users (id int, name text) ON COMMIT DROP")
		err := cachedpg.PgxConn(f.Ctx, conn, func(pgxConn *pgx.Conn) error {
			_, err := pgxConn.CopyFrom(f.Ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1, "a"}, {2, "b"}}))
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		s.Runs(keying.TemporaryTable, "SELECT count(*) FROM users").Is("2")
		s.Exec("COMMIT")
		f.Hit("SELECT count(*) FROM users").Is("3")
		s.Hit("SELECT count(*) FROM users").Is("3")
	})
}

// Behind a pooler a transaction has its temporary tables to itself, and outside of one it is not sure whose backend runs a statement.
func TestTemporaryTablesBehindAPooler(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		for _, pool := range []string{"session", "transaction"} {
			t.Run(pool, func(t *testing.T) {
				database := pgtest.Database(t)
				pgtest.Exec(t, database, harness.TemporarySetup)
				f := &harness.Fixture{T: t, DSN: harness.WithKey(database, "default_query_exec_mode", "exec"), Keys: keys, Ctx: t.Context()}
				f.Plain = f.Open("pgx", f.DSN)
				behind := harness.WithKey(pgtest.PgbouncerTo(t, database, pool), "default_query_exec_mode", "exec")
				f.DB = f.Open("cachedpg", harness.WithKeys(behind, keys))
				holder := f.Open("pgx", behind)
				f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
				const users = "SELECT count(*) FROM users"
				count := func(in harness.Querier) (n int) {
					t.Helper()
					if err := in.QueryRowContext(f.Ctx, users).Scan(&n); err != nil {
						t.Fatal(err)
					}
					return n
				}
				f.Again(users)
				f.Again(harness.ItemByID, 1)
				conn := f.Conn(f.DB)
				for _, then := range []string{" ON COMMIT DROP", ""} {
					f.Known(users)
					tx, err := conn.BeginTx(f.Ctx, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer tx.Rollback()
					for rows, text := range []string{"CREATE TEMP TABLE users (id int)" + then, "INSERT INTO users VALUES (7)"} {
						if _, err := tx.ExecContext(f.Ctx, text); err != nil {
							t.Fatal(err)
						}
						if n := count(tx); n != rows {
							t.Errorf("the transaction sees %d rows, want the %d of its own table", n, rows)
						}
					}
					f.Hit(users)
					f.Hit(harness.ItemByID, 1)
					if err := tx.Commit(); err != nil {
						t.Fatal(err)
					}
					f.Hit(users) // what others have cached is as it was
					f.Hit(harness.ItemByID, 1)
				}

				// The table is still there, in some backend: nothing that may mean it comes from the cache in this session.
				hits := cachedpg.StatsOf(f.DB).Hits
				if n := count(conn); cachedpg.StatsOf(f.DB).Hits != hits {
					t.Errorf("%d rows, from the cache", n)
				}
				f.Hit(users)
				if pool == "session" {
					return
				}
				for there := false; !there; { // so that what it writes now comes to another backend, and to everybody's table
					tx, err := holder.BeginTx(f.Ctx, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer tx.Rollback()
					if err := tx.QueryRowContext(f.Ctx, "SELECT to_regclass('pg_temp.users') IS NOT NULL").Scan(&there); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := conn.ExecContext(f.Ctx, "DELETE FROM users WHERE id = 3"); err != nil {
					t.Fatal(err)
				}
				f.Fresh(users).Is("2")
			})
		}
	})
}
