package session

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// untoldStories are what a session does with temporary objects so that the text does not tell all of it. Statements
// are separated by ; and those of one text by |. Nothing that is permanent changes.
var untoldStories = []struct{ name, steps string }{
	{"made and dropped by DO", `DO $$BEGIN CREATE TEMP TABLE t (id int, name text)| INSERT INTO t SELECT id, name FROM users| DROP TABLE t| END$$`},
	{"with all that goes with a table", `DO $$BEGIN CREATE TEMP TABLE t (id serial PRIMARY KEY, name text DEFAULT 'x' UNIQUE, n int CHECK (n > 0))| CREATE INDEX ON t (abs(n))|
		CREATE TRIGGER k BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION keeps()| INSERT INTO t (n) VALUES (1)| ALTER TABLE t ADD COLUMN more text, ALTER n DROP NOT NULL|
		CREATE TEMP VIEW v AS SELECT t.n FROM t, users| CREATE VIEW w AS SELECT * FROM t| CREATE TEMP SEQUENCE s| CREATE DOMAIN pg_temp.d AS int CHECK (value > 0)| END$$; DISCARD TEMP`},
	{"in front of another, for a while", `DO $$BEGIN CREATE TEMP TABLE users AS SELECT id, name, ''::text AS city FROM items| UPDATE users SET name = 'x'| DELETE FROM users| DROP TABLE users| END$$`},
	{"in front of another", `DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text)| INSERT INTO users VALUES (5, 'own', '')| END$$; INSERT INTO users VALUES (6, 'x', '');
		DO $$BEGIN UPDATE users SET name = 'y'| END$$; DO $$BEGIN DROP TABLE users| END$$`},
	{"in a transaction", `BEGIN; DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text) ON COMMIT DELETE ROWS| END$$; INSERT INTO users VALUES (6, 'x', ''); COMMIT; DROP TABLE users`},
	{"until the commit", `BEGIN; DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text) ON COMMIT DROP| END$$; INSERT INTO users VALUES (6, 'x', ''); COMMIT`},
	{"rolled back", `BEGIN; DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text)| END$$; INSERT INTO users VALUES (6, 'x', ''); ROLLBACK`},
	{"rolled back to a savepoint", `BEGIN; SAVEPOINT s; DO $$BEGIN CREATE TEMP TABLE users (id int, name text, city text)| END$$; ROLLBACK TO s; COMMIT`},
	{"whose drop is rolled back", `CREATE TEMP TABLE users (id int, name text, city text); BEGIN; DO $$BEGIN DROP TABLE users| END$$; ROLLBACK; INSERT INTO users VALUES (6, 'x', ''); DROP TABLE users`},
	{"undone in the text", `DO $$BEGIN BEGIN CREATE TEMP TABLE users (id int)| PERFORM 1 / 0| EXCEPTION WHEN division_by_zero THEN NULL| END| END$$`},
	{"if there was none", `DROP TABLE IF EXISTS t; DO $$BEGIN DROP TABLE IF EXISTS t| CREATE TEMP TABLE t AS SELECT * FROM users| END$$; DO $$BEGIN DROP TABLE IF EXISTS t| CREATE TABLE pg_temp.t (id int)| END$$; DROP TABLE t`},
	{"of a function", `SELECT work(2); BEGIN; SELECT work(1); SELECT work(2); COMMIT; SELECT work(3)`},
	{"of procedures", `CALL hide(); INSERT INTO users VALUES (8, 'x', ''); CALL hide(); CALL unhide(); BEGIN; CALL hide(); COMMIT; CALL unhide()`},
	{"of EXECUTE", `SELECT run('CREATE TEMP TABLE users (id int, name text, city text)'); INSERT INTO users VALUES (8, 'x', ''); SELECT run('INSERT INTO users VALUES (9)'); SELECT run('DROP TABLE users')`},
	{"dropped by EXECUTE", `CREATE TEMP TABLE child (LIKE users); SELECT run('INSERT INTO child VALUES (8, ''x'')'); SELECT run('DROP TABLE child CASCADE')`},

	{"dropped with what depends on it", `CREATE TEMP TABLE a (id int PRIMARY KEY); CREATE TEMP TABLE b (id int REFERENCES a); CREATE TEMP VIEW users AS SELECT id, ''::text AS name, ''::text AS city FROM a;
		INSERT INTO a VALUES (1); DROP TABLE a CASCADE; INSERT INTO b VALUES (2); DROP TABLE b`},
	{"a view made out of one", `CREATE TEMP TABLE a (id int); CREATE VIEW v AS SELECT users.id FROM users JOIN a USING (id); SELECT * FROM v; DROP TABLE a CASCADE`},
	{"a child", `CREATE TEMP TABLE child () INHERITS (users); INSERT INTO child VALUES (30, 'child', ''); UPDATE child SET name = 'x'; DROP TABLE child`},
	{"that becomes a child", `CREATE TEMP TABLE child (LIKE users INCLUDING ALL); INSERT INTO child VALUES (30, 'child', ''); ALTER TABLE child INHERIT users; ALTER TABLE child NO INHERIT users; ALTER TABLE child INHERIT users; DISCARD TEMP`},
	{"triggers and rules", `CREATE TEMP TABLE a (id int); CREATE TRIGGER k BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION keeps(); CREATE RULE r AS ON DELETE TO a DO INSTEAD NOTHING; INSERT INTO a VALUES (1); DELETE FROM a;
		DROP TRIGGER k ON a; ALTER RULE r ON a RENAME TO s; DROP RULE s ON a; INSERT INTO a VALUES (2); DROP TABLE a`},
	{"indexes and columns of expressions", `CREATE TEMP TABLE a (id int, n int); CREATE INDEX ON a (checked(n)); CREATE INDEX ON a (n) WHERE n > 0; INSERT INTO a VALUES (1, 1); ALTER TABLE a ADD COLUMN m int DEFAULT checked(3);
		ALTER TABLE a ADD CHECK (checked(id) > 0), ALTER m TYPE text USING upper(m::text); ALTER TABLE a DROP COLUMN n CASCADE; DROP TABLE a`},
	{"settings of a table", `CREATE TEMP TABLE a (id int); ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON a USING (true); ALTER TABLE a SET (fillfactor = 50); ALTER TABLE a RENAME COLUMN id TO key; DROP POLICY p ON a; DROP TABLE a`},
	{"a sequence", `CREATE TEMP SEQUENCE s; ALTER SEQUENCE s INCREMENT 5; SELECT nextval('s'); DROP SEQUENCE s CASCADE`},
	{"types", `CREATE TEMP TABLE a (id int); CREATE DOMAIN pg_temp.d AS int; DROP TABLE a; DISCARD TEMP`},
}

// apart is scenario with a database for each mode. In one, what the setup of a mode has changed past
// the driver may be noticed while a transaction is asked what it wrote, which then counts as a change.
func apart(t *testing.T, setup string, story func(f *harness.Fixture)) {
	t.Helper()
	t.Parallel()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		store := "memory"
		if keys != nil {
			store = "redis"
		}
		for _, mode := range harness.ModesIn(t, store) {
			t.Run(mode, func(t *testing.T) { story(harness.New(t, pgtest.Database(t), mode, setup, keys...)) })
		}
	})
}

// What code makes of temporary objects, and what takes others with it, concerns its session alone as well.
func TestUntoldTemporaryObjectsConcernTheirSessionAlone(t *testing.T) {
	apart(t, harness.TemporaryWork, func(f *harness.Fixture) {
		other := f.With()
		const count, below = "SELECT count(*), max(name) FROM users", "SELECT count(*) FROM seen"
		for _, story := range untoldStories {
			f.Step(story.name, func(f *harness.Fixture) {
				s, _ := f.Session()
				other.F = f
				queries := []string{count, below, "SELECT count(*) FROM items"}
				for _, query := range queries {
					f.Known(query)
					other.Hit(query)
					s.Hit(query)
				}
				for step := range strings.SplitSeq(story.steps, ";") {
					step = strings.ReplaceAll(strings.TrimSpace(step), "|", ";")
					s.Both(step)
					if _, err := s.Truth.ExecContext(f.Ctx, "DISCARD PLANS"); err != nil {
						f.Fatal(err)
					}
					for _, query := range queries {
						f.Hit(query) // before the session's own read, which may store it
						other.Hit(query)
						s.Fresh(query)
					}
				}
				for _, query := range queries {
					s.Hit(query)
				}
			})
		}
	})
}

// A read of the parent sees the rows of the session's own child, and comes from the cache for all others.
func TestATemporaryChild(t *testing.T) {
	apart(t, harness.TemporaryWork+`
		CREATE TABLE people (id int, name text, city text);
		ALTER TABLE users INHERIT people;`, func(f *harness.Fixture) {
		queries := []string{"SELECT count(*) FROM users", "SELECT name FROM users WHERE id = 30", "SELECT count(*) FROM seen", "SELECT count(*) FROM people"}
		f.Known("SELECT count(*) FROM items")
		for _, query := range queries {
			f.Known(query)
		}
		s, _ := f.Session()
		s.Both("CREATE TEMP TABLE child () INHERITS (users)")
		s.Both("INSERT INTO child VALUES (30, 'child', '')")
		for _, query := range queries {
			s.Bypass(keying.TemporaryTable, query)
			f.Hit(query)
		}
		s.Hit("SELECT count(*) FROM items")
		s.Exec("UPDATE users SET name = 'all' WHERE id < 31") // the parent's own rows are everybody's
		s.Runs(keying.TemporaryTable, queries[1]).Is("all")
		f.Fresh("SELECT name FROM users WHERE id = 1").Is("all")
		f.Known(queries[1]).Is("")
		s.Both("DROP TABLE child")
		for _, query := range queries {
			f.Known(query)
			s.Hit(query)
		}

		// While the transaction lasts nobody else gives the table a child, so there is nothing to compare with.
		for _, end := range []string{"ROLLBACK TO s", "COMMIT", "ROLLBACK"} {
			s.Exec("BEGIN")
			s.Exec("SAVEPOINT s")
			s.Exec("CREATE TEMP TABLE child () INHERITS (users) ON COMMIT DROP")
			s.Exec("CREATE TRIGGER k BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION keeps()")
			s.Exec("INSERT INTO child VALUES (30, 'child', '')")
			s.Runs(keying.TemporaryTable, queries[1]).Is("child")
			f.Hit(queries[1]).Is("")
			if s.Exec(end); end == "ROLLBACK TO s" {
				s.Fresh(queries[1]).Is("")
				s.Exec("COMMIT")
			}
			for _, query := range queries {
				s.Hit(query)
				f.Hit(query)
			}
		}
	})
}

// What code drops beside temporary objects, so that no row of the catalog tells, is gone for everybody.
func TestCodeThatDropsMoreThanTemporaryObjects(t *testing.T) {
	harness.Scenario(t, harness.TemporaryWork, func(f *harness.Fixture) {
		other := f.With()
		for drop, query := range map[string]string{"DROP VIEW seen": "SELECT count(*) FROM seen", "DROP TABLE items": "SELECT count(*) FROM items"} {
			f.Known(query)
			other.Known(query)
			f.Exec("DO $$BEGIN CREATE TEMP TABLE t (id int); DROP TABLE t; EXECUTE '" + drop + "'; END$$")
			f.Fails(query)
			other.Fails(query)
		}
	})
}
