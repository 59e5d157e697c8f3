package cachedpg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// The specification of the driver, as stories that run on PostgreSQL in every
// exec mode. A hit, a miss, a bypass each compare the rows and the column types
// with those of plain pgx at that moment, so no story needs to say that an
// answer is right, only where it came from.

const userByID = "SELECT id, name, city FROM users WHERE id = $1"

func TestARepeatedSelectIsAnsweredFromTheCache(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.miss(userByID, 1)
		f.hit(userByID, 1).is("1 ann Oslo")
		f.miss(userByID, 2)
		f.hit(userByID, 2)
		f.hit(userByID, 1)
		f.warm("SELECT name FROM users ORDER BY id")
		f.warm("SELECT count(*) FROM users")
		f.warm("VALUES (1), (2)")
		f.warm("TABLE users")
	})
}

// The cache of one kind of question must not depend on how it is asked.
func TestTheResultOfQueryRowIsCached(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		var name string
		for range 3 {
			if err := f.db.QueryRowContext(f.ctx, "SELECT name FROM users ORDER BY id").Scan(&name); err != nil || name != "ann" {
				f.Fatalf("got %q, %v", name, err)
			}
		}
		if s := StatsOf(f.db); s.Misses != 1 || s.Hits != 2 {
			f.Errorf("got %d misses and %d hits, want 1 and 2", s.Misses, s.Hits)
		}
		f.hit("SELECT name FROM users ORDER BY id").is("ann, bob, cid")
	})
}

// An empty result is cached as itself, not as a value that stands for it.
func TestAbsenceIsCached(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 4).is("")
		f.warm("SELECT city FROM users WHERE id = $1", 3).is("<nil>") // one row with a NULL is something else
		f.warm("SELECT name FROM users WHERE name = $1", "*").is("")
		f.exec("INSERT INTO users VALUES (4, '*', '')")
		f.miss(userByID, 4).is("4 * ")
		f.miss("SELECT name FROM users WHERE name = $1", "*").is("*")
		f.exec("DELETE FROM users WHERE id = 4")
		f.miss(userByID, 4).is("")
	})
}

// A write of one row leaves what is known of the others.
func TestAWriteOfARowInvalidatesWhatReadsItAndNoOtherRow(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		f.warm("SELECT count(*) FROM users")

		f.exec("UPDATE users SET name = $2 WHERE id = $1", 1, "anna")
		f.miss(userByID, 1).is("1 anna Oslo")
		f.hit(userByID, 2)
		f.miss("SELECT count(*) FROM users")

		f.exec("DELETE FROM users WHERE id IN ($1, $2)", 2, 7)
		f.miss(userByID, 2)
		f.hit(userByID, 1)

		f.exec("INSERT INTO users VALUES ($1, 'dan', 'Bonn')", 4)
		f.hit(userByID, 1)
		f.miss("SELECT count(*) FROM users")
		f.miss(userByID, 4)

		f.exec("UPDATE users SET name = 'x' WHERE city = 'Oslo'")
		f.miss(userByID, 1)
		f.miss(userByID, 4)
	})
}

func TestAWriteOfATableLeavesTheOthers(t *testing.T) {
	scenario(t, people+"CREATE TABLE colours (name text)", func(f *fixture) {
		f.warm("SELECT name FROM users")
		f.warm("SELECT name FROM colours")
		f.warm("SELECT users.name FROM users CROSS JOIN colours")
		f.exec("INSERT INTO colours VALUES ('red')")
		f.hit("SELECT name FROM users")
		f.miss("SELECT name FROM colours")
		f.miss("SELECT users.name FROM users CROSS JOIN colours")
	})
}

// The column by which a read finds its rows changes: the question for the old
// value and the one for the new value both have another answer.
func TestUpdatingALookedUpColumnInvalidatesTheOldAndTheNewValue(t *testing.T) {
	scenario(t, `CREATE TABLE accounts (id int PRIMARY KEY, mail text UNIQUE);
		INSERT INTO accounts VALUES (1, 'a@x'), (2, 'b@x')`, func(f *fixture) {
		const byMail, byID = "SELECT id FROM accounts WHERE mail = $1", "SELECT mail FROM accounts WHERE id = $1"
		for _, mail := range []string{"a@x", "b@x", "new@x"} {
			f.warm(byMail, mail)
		}
		f.warm(byID, 1)
		f.warm(byID, 2)
		f.exec("UPDATE accounts SET mail = 'new@x' WHERE id = 1")
		f.fresh(byMail, "a@x").is("")
		f.fresh(byMail, "new@x").is("1")
		f.fresh(byMail, "b@x")
		f.miss(byID, 1)
		f.hit(byID, 2)

		// By the other key, and a primary key that changes.
		f.warm(byID, 9)
		f.exec("UPDATE accounts SET id = 9 WHERE mail = 'b@x'")
		f.fresh(byID, 2).is("")
		f.fresh(byID, 9).is("b@x")
		f.fresh(byMail, "b@x").is("9")

		// Two rows swap their values in one statement.
		f.exec("ALTER TABLE accounts DROP CONSTRAINT accounts_mail_key, ADD UNIQUE (mail) DEFERRABLE INITIALLY DEFERRED")
		f.known(byMail, "new@x")
		f.known(byMail, "b@x")
		f.exec("UPDATE accounts SET mail = CASE mail WHEN 'new@x' THEN 'b@x' ELSE 'new@x' END")
		f.fresh(byMail, "new@x").is("9")
		f.fresh(byMail, "b@x").is("1")
	})
}

// Whatever writes invalidates, whichever way it comes: a write by Query, with
// its rows read or not, is as much a write as one by Exec.
func TestEveryKindOfWriteInvalidates(t *testing.T) {
	const rows = "SELECT id, name FROM users ORDER BY id"
	setup := people + `
		CREATE FUNCTION renamed(n text) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE users SET name = n; RETURN 1; END';
		CREATE PROCEDURE rename_all(n text) LANGUAGE plpgsql AS 'BEGIN UPDATE users SET name = n; END';`
	scenario(t, setup, func(f *fixture) {
		for _, tc := range []struct{ name, sql string }{
			{"insert", "INSERT INTO users VALUES (9, 'new')"},
			{"insert returning", "INSERT INTO users VALUES (9, 'new') RETURNING id"},
			{"insert from a select", "INSERT INTO users SELECT id + 10, name FROM users"},
			{"upsert that updates", "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name || '!'"},
			{"upsert of another key", "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET id = 5"},
			{"upsert that does nothing", "INSERT INTO users VALUES (1, 'x'), (5, 'y') ON CONFLICT DO NOTHING"},
			{"update", "UPDATE users SET name = name || '!'"},
			{"update returning", "UPDATE users SET name = 'returned' WHERE id = 1 RETURNING name"},
			{"update of a row by another's", "UPDATE users SET name = o.name FROM users o WHERE o.id = users.id + 1"},
			{"update of a row by another's key", "UPDATE users SET name = 'o' FROM users o WHERE o.id = 2"},
			{"update of an alias", "UPDATE users AS u SET name = 'u' WHERE u.id = 1"},
			{"update that fixes no key", "UPDATE users SET name = 'or' WHERE id = 7 OR name = 'ann'"},
			{"delete", "DELETE FROM users WHERE id = 1"},
			{"delete using", "DELETE FROM users USING users o WHERE o.id = users.id + 1"},
			{"merge", "MERGE INTO users u USING (VALUES (1), (8)) v(id) ON u.id = v.id" +
				" WHEN MATCHED THEN UPDATE SET name = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'new')"},
			{"data-modifying CTE", "WITH gone AS (DELETE FROM users WHERE id = 1 RETURNING id) SELECT count(*) FROM gone"},
			{"data-modifying CTE under a select of nothing", "WITH w AS (UPDATE users SET name = 'cte') SELECT 1"},
			{"data-modifying CTE that nobody reads", "WITH w AS (INSERT INTO users VALUES (7, 'unread')) TABLE users"},
			{"data-modifying CTE under an update", "WITH w AS (DELETE FROM users WHERE id = 1) UPDATE users SET name = 'w' WHERE id = 2"},
			{"truncate", "TRUNCATE users"},
			{"do", "DO $$ BEGIN UPDATE users SET name = 'do'; END $$"},
			{"call", "CALL rename_all('called')"},
			{"select of a writing function", "SELECT renamed('function')"},
			{"a writing function in FROM", "SELECT * FROM renamed('from')"},
			{"a writing function in WHERE", "SELECT 1 WHERE renamed('where') > 0"},
			{"explain analyze", "EXPLAIN ANALYZE UPDATE users SET name = 'explained'"},
			{"with a comment in front", "/* a SELECT */ -- of nothing\n UPDATE users SET name = 'commented'"},
			{"in parentheses and capitals", "(WITH W AS (SELECT 1) SELECT RENAMED('CAPITAL'))"},
		} {
			f.step(tc.name, func(f *fixture) {
				for _, way := range []func(){
					func() { f.exec(tc.sql) },
					func() { // nobody reads the rows
						r, err := f.db.QueryContext(f.ctx, tc.sql)
						if err != nil {
							f.Fatal(err)
						}
						r.Close()
					},
				} {
					f.past("TRUNCATE users")
					f.past("INSERT INTO users VALUES (1, 'ann'), (2, 'bob')")
					f.exec("UPDATE users SET city = 'Rome'") // tells of the two before
					f.warm(rows)
					f.warm(userByID, 1)
					way()
					f.fresh(rows)
					f.fresh(userByID, 1)
					f.known(rows)
					f.known(userByID, 1)
				}
			})
		}
	})
}

// An INSERT … RETURNING by Query runs each time, and its rows are PostgreSQL's.
func TestAWriteByQueryAlwaysRuns(t *testing.T) {
	scenario(t, "CREATE TABLE log (id serial PRIMARY KEY, at text)", func(f *fixture) {
		const add = "INSERT INTO log (at) VALUES ($1) RETURNING id"
		f.runs(keying.NotRead, add, "a").is("1")
		f.runs(keying.NotRead, add, "a").is("2")
		f.warm("SELECT count(*) FROM log").is("2")
		f.runs(keying.NotRead, add, "a").is("3")
		f.miss("SELECT count(*) FROM log").is("3")
	})
}

// A statement that PostgreSQL refuses gives PostgreSQL's error and changes nothing.
func TestAWriteThatFailsGivesTheErrorOfPgx(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.known(userByID, 1)
		for _, sql := range []string{
			"INSERT INTO users VALUES (1, 'again')",
			"UPDATE users SET name = NULL",
			"INSERT INTO nowhere VALUES (1) RETURNING 1",
			"INSERT INTO users VALUES (8, 'x') RETURNING 1 / (id - 8)",
		} {
			f.fails(sql)
			_, got := f.db.ExecContext(f.ctx, sql)
			_, want := f.plain.ExecContext(f.ctx, sql)
			sameError(f, got, want)
		}
		f.known(userByID, 1)
		f.fresh("TABLE users")
	})
}

// What a write reaches beyond its text: the rows of other tables that foreign
// keys, triggers and rules change.
func TestWritesReachWhatTheSchemaLeadsThemTo(t *testing.T) {
	scenario(t, `
		CREATE TABLE a (id int PRIMARY KEY);
		CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
		CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE SET NULL);
		CREATE TABLE d (id int PRIMARY KEY, b int DEFAULT 1 REFERENCES b ON DELETE SET DEFAULT);
		CREATE TABLE audit (n serial, what text);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (what) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
		CREATE TABLE watched (id int PRIMARY KEY, v int);
		CREATE TRIGGER note AFTER UPDATE ON watched FOR EACH STATEMENT EXECUTE FUNCTION note();
		CREATE TABLE ruled (id int);
		CREATE RULE log AS ON INSERT TO ruled DO ALSO INSERT INTO audit (what) VALUES ('rule');
		INSERT INTO a VALUES (1), (2), (3);
		INSERT INTO b VALUES (1, 1), (2, 2), (3, 3);
		INSERT INTO c VALUES (1, 1), (2, 2);
		INSERT INTO d VALUES (1, 1), (2, 2);
		INSERT INTO watched VALUES (1, 1);`, func(f *fixture) {
		all := []string{"SELECT * FROM a ORDER BY id", "SELECT * FROM b ORDER BY id", "SELECT * FROM c ORDER BY id",
			"SELECT * FROM d ORDER BY id", "SELECT what FROM audit ORDER BY n", "SELECT * FROM watched", "SELECT * FROM ruled",
			"SELECT * FROM b WHERE id = 2", "SELECT * FROM c WHERE id = 2", "SELECT * FROM d WHERE id = 2"}
		for _, write := range []string{
			"DELETE FROM a WHERE id = 2",
			"UPDATE a SET id = 7 WHERE id = 3",
			"UPDATE watched SET v = v + 1 WHERE id = 1",
			"UPDATE watched SET v = v WHERE id = 99", // a statement trigger runs without rows
			"INSERT INTO ruled VALUES (1)",
			"TRUNCATE b CASCADE",
		} {
			for _, query := range all {
				f.known(query)
			}
			f.exec(write)
			for _, query := range all {
				f.fresh(query)
				f.fresh(query)
			}
		}
		// Only what can be reached: a table that nothing leads to stays.
		f.known("SELECT * FROM audit")
		f.exec("INSERT INTO a VALUES (8)")
		f.hit("SELECT * FROM audit")
	})
}

func TestPartitionsAndInheritance(t *testing.T) {
	scenario(t, `
		CREATE TABLE m (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
		CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20);
		INSERT INTO m VALUES (1, 1, 'a'), (2, 11, 'b');
		CREATE TABLE city (name text PRIMARY KEY, size int);
		CREATE TABLE capital (country text) INHERITS (city);
		INSERT INTO city VALUES ('Bern', 1); INSERT INTO capital VALUES ('Bern', 2, 'CH');`, func(f *fixture) {
		all := []string{"SELECT * FROM m ORDER BY id", "SELECT * FROM m1", "SELECT * FROM m2 ORDER BY id",
			"SELECT v FROM m WHERE id = 1 AND at = 1", "SELECT v FROM m2 WHERE id = 2 AND at = 11", "SELECT v FROM m WHERE id = 2 AND at = 11",
			"SELECT name, size FROM city ORDER BY size", "SELECT name, size FROM ONLY city", "SELECT * FROM capital",
			"SELECT size FROM city WHERE name = 'Bern' ORDER BY size"}
		for _, write := range []string{
			"UPDATE m SET v = 'c' WHERE id = 1 AND at = 1",
			"UPDATE m1 SET v = 'd' WHERE id = 1 AND at = 1",
			"UPDATE m SET at = 12 WHERE id = 1 AND at = 1", // moves to the other partition
			"INSERT INTO m VALUES (3, 13, 'e')",
			"DELETE FROM m2 WHERE id = 2 AND at = 11",
			"ALTER TABLE m DETACH PARTITION m1",
			"TRUNCATE m",
			"UPDATE city SET size = size + 10 WHERE name = 'Bern'",
			"UPDATE ONLY city SET size = size + 10",
			"UPDATE capital SET size = size + 10",
			"DELETE FROM city WHERE name = 'Bern'",
		} {
			for _, query := range all {
				f.known(query)
			}
			f.exec(write)
			for _, query := range all {
				f.fresh(query)
				f.fresh(query)
			}
		}
	})
}

func TestViewsAreTheirTables(t *testing.T) {
	scenario(t, people+`
		CREATE TABLE staff (id int PRIMARY KEY);
		INSERT INTO staff VALUES (1);
		CREATE VIEW romans AS SELECT id, name FROM users WHERE city = 'Rome';
		CREATE VIEW roman_names AS SELECT name FROM romans;
		CREATE MATERIALIZED VIEW cities AS SELECT DISTINCT city FROM users WHERE city IS NOT NULL;`, func(f *fixture) {
		f.warm("SELECT name FROM roman_names")
		f.warm("SELECT id FROM staff")
		f.exec("UPDATE users SET name = 'bobo' WHERE id = 2")
		f.miss("SELECT name FROM roman_names").is("bobo")
		f.exec("UPDATE romans SET name = 'bobby'") // a write through the view
		f.miss("SELECT name FROM roman_names").is("bobby")
		f.fresh(userByID, 2).is("2 bobby Rome")
		f.hit("SELECT id FROM staff")

		f.warm("SELECT city FROM cities ORDER BY city").is("Oslo, Rome")
		f.exec("UPDATE users SET city = 'Paris' WHERE id = 1")
		f.hit("SELECT city FROM cities ORDER BY city") // as PostgreSQL: until REFRESH
		f.exec("REFRESH MATERIALIZED VIEW cities")
		f.miss("SELECT city FROM cities ORDER BY city").is("Paris, Rome")

		f.known("SELECT name FROM roman_names")
		f.exec("CREATE OR REPLACE VIEW roman_names AS SELECT 'of staff ' || id AS name FROM staff")
		f.fresh("SELECT name FROM roman_names").is("of staff 1")
		f.known("SELECT name FROM roman_names")
		f.exec("INSERT INTO staff VALUES (2)")
		f.fresh("SELECT name FROM roman_names ORDER BY 1").is("of staff 1, of staff 2")
	})
}

// A name means what the search_path says.
func TestEqualNamesInTwoSchemas(t *testing.T) {
	scenario(t, people+`
		DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other;
		CREATE TABLE other.users (id int PRIMARY KEY, name text, city text);
		INSERT INTO other.users VALUES (1, 'zoe', 'Nice');`, func(f *fixture) {
		f.warm(userByID, 1).is("1 ann Oslo")
		f.warm("SELECT name FROM other.users WHERE id = 1").is("zoe")
		s, _ := f.session()
		s.both("SET search_path = other")
		s.warm(userByID, 1).is("1 zoe Nice")
		s.exec("UPDATE users SET name = 'zoé' WHERE id = 1")
		s.miss(userByID, 1).is("1 zoé Nice")
		f.hit(userByID, 1).is("1 ann Oslo")
		f.miss("SELECT name FROM other.users WHERE id = 1").is("zoé")
		s.both("RESET search_path")
		s.hit(userByID, 1).is("1 ann Oslo")

		// A table that comes to stand in front of another of its name.
		s.both("SET search_path = front, other")
		s.known(userByID, 1)
		s.exec("DROP SCHEMA IF EXISTS front CASCADE")
		s.exec("CREATE SCHEMA front")
		s.fresh(userByID, 1).is("1 zoé Nice")
		s.exec("CREATE TABLE front.users AS SELECT 1 AS id, 'first'::text AS name, ''::text AS city")
		s.fresh("SELECT name, city FROM users WHERE id = 1").is("first ")
		// PostgreSQL does not look again for a statement that it has prepared;
		// the driver makes it, and here pgx's connection is made to as well.
		s.both("DISCARD PLANS")
		s.known(userByID, 1)
		s.exec("UPDATE other.users SET name = 'later' WHERE id = 1")
		s.fresh(userByID, 1)
		s.known(userByID, 1)
		s.exec("UPDATE front.users SET name = 'still' WHERE id = 1")
		s.fresh(userByID, 1)
		s.known(userByID, 1)
		s.exec("UPDATE other.users SET name = 'zoé' WHERE id = 1")
		s.exec("DROP TABLE front.users")
		s.fresh(userByID, 1).is("1 zoé Nice")
	})
}

// What a session sets is part of the question; ORMs send SET, query, RESET on
// one connection.
func TestSettingsAreAPartOfTheQuestion(t *testing.T) {
	scenario(t, `CREATE TABLE v (at timestamptz, f float8, i interval, b bytea);
		INSERT INTO v VALUES ('2024-05-01 12:00Z', 1.0 / 3, '1 day 2 hours', '\x00ff')`, func(f *fixture) {
		const query = "SELECT at::text, f::text, i::text, b::text FROM v"
		first := f.warm(query).String()
		s, _ := f.session()
		for _, setting := range []struct{ set, reset string }{
			{"SET TIME ZONE 'Asia/Tokyo'", "RESET TIME ZONE"},
			{"SET timezone = 'Asia/Tokyo'", "RESET ALL"},
			{"SET datestyle = 'German'", "SET datestyle TO DEFAULT"},
			{"SET intervalstyle = 'iso_8601'", "RESET intervalstyle"},
			{"SET bytea_output = 'escape'", "RESET bytea_output"},
			{"SET extra_float_digits = -10", "RESET extra_float_digits"},
		} {
			for range 2 {
				s.both(setting.set)
				if got := s.known(query).String(); got == first {
					f.Errorf("%s: still %s", setting.set, got)
				}
				s.both(setting.reset)
				s.hit(query).is(first)
			}
		}
		f.hit(query).is(first)

		// What ends with the transaction.
		for _, set := range []string{"SET LOCAL TIME ZONE 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"} {
			s.both("BEGIN")
			s.both(set)
			if got := s.known(query).String(); got == first {
				f.Errorf("%s: still %s", set, got)
			}
			s.both("COMMIT")
			s.hit(query).is(first)
		}
		// What a rollback undoes, the whole or up to a savepoint.
		s.both("BEGIN")
		s.both("SET TIME ZONE 'Asia/Tokyo'")
		s.both("ROLLBACK")
		s.hit(query).is(first)
		s.both("BEGIN")
		s.both("SAVEPOINT a")
		s.both("SET TIME ZONE 'Asia/Tokyo'")
		s.known(query)
		s.both("ROLLBACK TO a")
		s.fresh(query).is(first)
		s.both("COMMIT")
		s.fresh(query).is(first)

		// A connection that goes back into the pool with its setting.
		one := f.with()
		one.db.SetMaxOpenConns(1)
		one.exec("SET TIME ZONE 'Asia/Tokyo'")
		plain := f.open("pgx", f.dsn)
		plain.SetMaxOpenConns(1)
		if _, err := plain.ExecContext(f.ctx, "SET TIME ZONE 'Asia/Tokyo'"); err != nil {
			f.Fatal(err)
		}
		one.truth = plain
		one.fresh(query)
		one.hit(query)
		f.hit(query).is(first)
	})
}

// Roles see what they may see.
func TestRoles(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role)
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) { // ends, and drops its database, before the role goes
		scenario(t, people+`
		CREATE TABLE tenants (id int, tenant text);
		INSERT INTO tenants VALUES (1, 'a'), (2, 'b');
		ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON tenants USING (tenant = current_setting('app.tenant'));
		DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`'; END $$;
		GRANT SELECT ON tenants TO `+role, func(f *fixture) {
			s, _ := f.session()
			s.warm(userByID, 1)
			s.both("SET ROLE " + role)
			s.fails(userByID, 1) // permission denied, though the cache has it
			for _, tenant := range []string{"a", "b", "a"} {
				s.both("SET app.tenant = '" + tenant + "'")
				s.bypass(keying.RowSecurity, "SELECT id, tenant FROM tenants")
			}
			s.both("RESET ROLE")
			s.hit(userByID, 1)
			s.fresh("SELECT id, tenant FROM tenants ORDER BY id").is("1 a, 2 b")
			s.both("SET SESSION AUTHORIZATION " + role)
			s.fails(userByID, 1)
			s.both("RESET SESSION AUTHORIZATION")
			s.hit(userByID, 1)

			// A grant that is taken back.
			s.exec("GRANT SELECT ON users TO " + role)
			s.both("SET ROLE " + role)
			s.known(userByID, 1)
			f.exec("REVOKE SELECT ON users FROM " + role)
			s.fails(userByID, 1)
			s.both("RESET ROLE")
		})
	})
}

// A temporary table belongs to one session and may hide a table of the same name.
func TestTemporaryTables(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		s, _ := f.session()
		s.hit(userByID, 1)
		s.both("CREATE TEMPORARY TABLE users (id int, name text, city text)")
		s.fresh(userByID, 1).is("")
		s.both("INSERT INTO users VALUES (1, 'mine', '')")
		s.fresh(userByID, 1).is("1 mine ")
		f.fresh(userByID, 1).is("1 ann Oslo")
		f.known(userByID, 1)
		s.fresh(userByID, 1).is("1 mine ")
		s.both("DROP TABLE users")
		s.fresh(userByID, 1).is("1 ann Oslo")

		s.both("CREATE TEMPORARY TABLE mine AS SELECT 1 AS x")
		s.fresh("SELECT x FROM mine")
		s.both("INSERT INTO mine VALUES (2)")
		s.fresh("SELECT x FROM mine").is("1, 2")
		s.both("DISCARD ALL")
		s.fails("SELECT x FROM mine")
	})
}

// What an application may ask for, by context or by comment.
func TestHints(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		past := f.in(WithBypass)
		past.bypass(keying.ContextBypass, userByID, 1)
		past.bypass(keying.ContextBypass, userByID, 2)
		f.miss(userByID, 2) // a bypass has stored nothing
		past.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.miss(userByID, 1).is("1 anna Oslo") // a write invalidates as always

		f.bypass(keying.HintBypass, "/* cachedpg: bypass */ "+userByID, 1)
		f.bypass(keying.HintBypass, userByID+" /* cachedpg: bypass */", 1)
		f.hit("/* of the tracer: id=7 */ "+userByID, 1)
		f.hit("/* cachedpg: ttl=1h */ "+userByID, 1)
		f.hit(userByID+" -- cachedpg is not meant here\n", 1)

		short := f.in(func(ctx context.Context) context.Context { return WithTTL(ctx, time.Millisecond) })
		short.miss(userByID, 3)
		time.Sleep(2 * time.Millisecond)
		f.miss(userByID, 3)
		f.hit(userByID, 3)
		f.miss("/* cachedpg: ttl=1ms */ SELECT name FROM users ORDER BY id")
		time.Sleep(2 * time.Millisecond)
		f.miss("SELECT name FROM users ORDER BY id")
		f.hit("SELECT name FROM users ORDER BY id")
		for _, ttl := range []time.Duration{0, -1} {
			f.in(func(ctx context.Context) context.Context { return WithTTL(ctx, ttl) }).bypass(keying.ContextBypass, userByID, 3)
		}

		// A hint that cannot be read bypasses: it meant something.
		for _, hint := range []string{"ttl=soon", "ttl=-1s", "no-such-hint", "ttl"} {
			f.bypass(keying.HintBypass, "/* cachedpg: "+hint+" */ "+userByID, 1)
		}
		// What looks like a hint inside a value is a value.
		f.warm("SELECT '/* cachedpg: bypass */' FROM users WHERE id = 1")
		f.exec("/* cachedpg: bypass */ UPDATE users SET name = 'x' WHERE id = 1")
		f.miss(userByID, 1).is("1 x Oslo")
	})
}

func TestEntriesExpire(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		short := f.with("cache_ttl=1ms")
		short.miss(userByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.miss(userByID, 1)
		// The age of an entry counts, and not who asks.
		time.Sleep(2 * time.Millisecond)
		f.warm(userByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.hit(userByID, 1)
		if StatsOf(f.db).Expirations == 0 {
			f.Error("no expiration was counted")
		}
	})
}

func TestPolicies(t *testing.T) {
	scenario(t, people+"CREATE TABLE log (line text); CREATE TABLE news (line text); CREATE VIEW lines AS SELECT line FROM log", func(f *fixture) {
		v := f.with("cache_policy=log:off,news:cache-aside:1ms,nowhere:off")
		v.warm(userByID, 1)
		v.bypass(keying.PolicyOff, "SELECT * FROM log")
		v.bypass(keying.PolicyOff, "SELECT * FROM lines")
		v.bypass(keying.PolicyOff, "SELECT 1 FROM users, log")
		v.bypass(keying.PolicyOff, "SELECT 1 FROM users WHERE EXISTS (SELECT FROM log)")
		for range 2 {
			v.miss("SELECT 1 FROM users, news")
			time.Sleep(2 * time.Millisecond)
		}
		// Of one DB; the write of such a table still tells the others.
		f.warm("SELECT * FROM log")
		v.exec("INSERT INTO log VALUES ('a')")
		f.miss("SELECT * FROM log").is("a")
	})
}

func TestTheCacheTurnedOff(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		off := f.with("cache_store=off")
		for range 2 {
			off.bypass(keying.CacheOff, userByID, 1)
		}
		f.warm(userByID, 1)
		off.bypass(keying.CacheOff, userByID, 1)
		off.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.miss(userByID, 1).is("1 anna Oslo")
	})
}

// For writes that went past the driver.
func TestInvalidate(t *testing.T) {
	scenario(t, people+`CREATE TABLE colours (name text); CREATE VIEW names AS SELECT name FROM users;
		CREATE TABLE "Odd ""name" (x int); INSERT INTO "Odd ""name" VALUES (1)`, func(f *fixture) {
		if err := Invalidate(f.ctx, f.db); err != nil {
			f.Errorf("before anything is known: %v", err)
		}
		const names, colours, odd = "SELECT name FROM names ORDER BY name", "SELECT name FROM colours", `SELECT x FROM "Odd ""name"`
		warm := func() {
			f.Helper()
			f.known(userByID, 1)
			f.known(names)
			f.known(colours)
			f.known(odd)
		}
		invalidate := func(relations ...string) {
			f.Helper()
			if err := Invalidate(f.ctx, f.db, relations...); err != nil {
				f.Errorf("Invalidate %q: %v", relations, err)
			}
		}
		warm()
		f.past("UPDATE users SET name = 'past'")
		f.past("INSERT INTO colours VALUES ('red')")
		invalidate("users")
		f.miss(userByID, 1)
		f.miss(names)
		f.hitOld(colours, "")
		invalidate("colours", "users")
		f.miss(colours).is("red")
		f.miss(names)

		warm()
		invalidate("Users", "names", `"Odd ""name"`) // folded as SQL is; a view is its tables
		f.miss(names)
		f.miss(odd)

		warm()
		var schema string
		if err := f.plain.QueryRowContext(f.ctx, "SELECT current_schema").Scan(&schema); err != nil {
			f.Fatal(err)
		}
		invalidate(schema + ".colours")
		f.miss(colours)
		f.hit(names)

		warm()
		f.past("ALTER TABLE colours ADD COLUMN rgb int")
		invalidate()
		f.fresh(userByID, 1)
		f.known("SELECT name, rgb FROM colours")

		warm()
		for _, name := range []string{"nowhere", "", "users; DROP TABLE users", "a b", "users, colours", "pg_temp.users", "'users'"} {
			if err := Invalidate(f.ctx, f.db, name); err == nil {
				f.Errorf("Invalidate(%q): no error", name)
			}
		}
		f.hit(userByID, 1)
		if err := Invalidate(f.ctx, f.db, "users", "nowhere"); err == nil {
			f.Error("one of two is unknown: no error")
		}
	})
}

// hitOld: a hit that plain pgx would not give, because something was written
// past the driver.
func (f *fixture) hitOld(query, want string) {
	f.Helper()
	f.expect("hit", false, query, nil).is(want)
}

// A table that was made past the driver is found when it is asked for.
func TestDDLPastTheDriver(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		f.past("CREATE TABLE made AS SELECT 1 AS x")
		f.known("SELECT x FROM made")
		f.exec("UPDATE made SET x = 2")
		f.miss("SELECT x FROM made").is("2")
		f.known(userByID, 1)
	})
}

// The counters add up, whatever happens.
func TestStats(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		if s := StatsOf(f.db); s.Lookups != 0 || s.Bypassed != 0 || s.Entries != 0 {
			f.Errorf("before anything: %+v", s)
		}
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		f.miss("SELECT name FROM users WHERE id = 1")
		f.hit("SELECT name FROM users WHERE id = 1")
		f.runs(keying.ClockKeyword, "SELECT current_timestamp")
		f.exec("UPDATE users SET name = 'x' WHERE id = 1")
		f.miss(userByID, 1)
		f.fails("SELECT 1 / (id - 1) FROM users")
		s := StatsOf(f.db)
		if s.Lookups != 8 || s.Hits != 3 || s.Misses != 5 || s.Stale != 1 || s.Fills != 4 || s.Entries != 3 {
			f.Errorf("got %d lookups, %d hits, %d misses, %d stale, %d fills, %d entries, want 8, 3, 5, 1, 4, 3",
				s.Lookups, s.Hits, s.Misses, s.Stale, s.Fills, s.Entries)
		}
		if s.Lookups != s.Hits+s.Misses || s.Misses < s.Fills+s.Joined {
			f.Errorf("counters that do not add up: %+v", s)
		}
		var bypassed uint64
		for reason, n := range s.Bypasses {
			if bypassed += n; reason != keying.ClockKeyword.String() || n != 1 {
				f.Errorf("%d times bypassed for %q", n, reason)
			}
		}
		if bypassed != s.Bypassed || s.Saved <= 0 || s.Bytes <= 0 || s.Tags == 0 {
			f.Errorf("bypassed %d of %d, saved %v, %d bytes, %d tags", bypassed, s.Bypassed, s.Saved, s.Bytes, s.Tags)
		}
		found := false
		for _, st := range s.Statements {
			if strings.Contains(st.Text, "name from users where id") {
				found = true
				if st.Misses == 0 || st.Hits == 0 || strings.Contains(st.Text, "= 1") {
					f.Errorf("statement %+v", st)
				}
			}
		}
		if !found {
			f.Errorf("the statement is not among %+v", s.Statements)
		}
		if err := f.db.Close(); err != nil {
			f.Fatal(err)
		}
		if s := StatsOf(f.db); s.Hits != 3 || s.Entries != 0 {
			f.Errorf("after Close: %d hits, %d entries, want 3 and 0", s.Hits, s.Entries)
		}
	})
}

// A result that is too large for the cache goes through as it comes.
func TestAResultThatIsTooLargePassesThrough(t *testing.T) {
	scenario(t, "CREATE TABLE n AS SELECT i, repeat('x', 1000) AS v FROM generate_series(1, 2000) i", func(f *fixture) {
		v := f.with("cache_max_entry=16KiB")
		const all, few = "SELECT i, v FROM n ORDER BY i", "SELECT i FROM n WHERE i < 10 ORDER BY i"
		for range 2 {
			if r := v.miss(all); len(r.rows) != 2000 {
				f.Errorf("%d rows, want 2000", len(r.rows))
			}
		}
		v.warm(few)
		if s := StatsOf(v.db); s.TooLarge != 2 || s.Fills != 1 || s.Bytes > 16<<10 {
			f.Errorf("%d too large, %d fills, %d bytes, want 2, 1 and few", s.TooLarge, s.Fills, s.Bytes)
		}
		// It is not read ahead further than what might have been stored.
		err := f.conn(v.db).Raw(func(c any) error {
			rows, err := c.(*Conn).QueryContext(f.ctx, all, nil)
			if err != nil {
				return err
			}
			if n := len(rows.(*Rows).entry.Data); n > 18<<10 {
				f.Errorf("%d bytes were read ahead", n)
			}
			return rows.Close()
		})
		if err != nil {
			f.Error(err)
		}
		// Read in part: the rest is PostgreSQL's to throw away.
		for _, after := range []int{0, 1, 500} {
			rows, err := v.db.QueryContext(f.ctx, all)
			if err != nil {
				f.Fatal(err)
			}
			for i := 1; i <= after; i++ {
				var n int
				var s string
				if !rows.Next() {
					f.Fatal(rows.Err())
				}
				if err := rows.Scan(&n, &s); err != nil || n != i || len(s) != 1000 {
					f.Fatalf("row %d is %d, %v", i, n, err)
				}
			}
			if err := rows.Close(); err != nil {
				f.Error(err)
			}
		}
		v.fresh(all)
		// An error after some rows comes where pgx brings it.
		const fails = "SELECT 1 / (1500 - i), v FROM n"
		v.fails(fails)
		ours, theirs := rowsUntilError(f, v.db, fails), rowsUntilError(f, f.plain, fails)
		if ours != theirs {
			f.Errorf("the error comes after %d rows, with plain pgx after %d", ours, theirs)
		}
		f.fails(fails) // and where everything would have been stored
		f.fails(fails)
	})
}

func rowsUntilError(f *fixture, db *sql.DB, query string) (n int) {
	f.Helper()
	rows, err := db.QueryContext(f.ctx, query)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		n++
	}
	if rows.Err() == nil {
		f.Error("no error")
	}
	return n
}

// Columns are as pgx has them also where there are no rows, and while rows are open.
func TestRowsOfSeveralQueriesAtOnce(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm("SELECT id FROM users ORDER BY id")
		s, _ := f.session()
		for range 2 { // misses, then hits, on one connection one after the other, and mixed
			outer, err := s.ask.QueryContext(f.ctx, "SELECT id FROM users ORDER BY id")
			if err != nil {
				f.Fatal(err)
			}
			for outer.Next() {
				var id int
				if err := outer.Scan(&id); err != nil {
					f.Fatal(err)
				}
				f.fresh(userByID, id)
			}
			if err := outer.Close(); err != nil {
				f.Error(err)
			}
		}
		f.warm("SELECT id, name FROM users WHERE false")
	})
}

// What PostgreSQL computes when a row changes is a part of the row.
func TestGeneratedColumns(t *testing.T) {
	scenario(t, `CREATE TABLE g (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED UNIQUE);
		INSERT INTO g VALUES (1, 1), (2, 2);`, func(f *fixture) {
		const byB = "SELECT id FROM g WHERE b = $1"
		f.warm(byB, 2).is("1")
		f.warm(byB, 20).is("")
		f.exec("UPDATE g SET a = 10 WHERE id = 1")
		f.fresh(byB, 2).is("")
		f.fresh(byB, 20).is("1")
	})
}

// A crash of PostgreSQL empties an unlogged table without a write.
func TestUnloggedTables(t *testing.T) {
	scenario(t, "CREATE UNLOGGED TABLE u AS SELECT 1 AS x", func(f *fixture) {
		f.bypass(keying.UnloggedTable, "SELECT x FROM u")
		f.exec("ALTER TABLE u SET LOGGED")
		f.known("SELECT x FROM u")
		f.exec("UPDATE u SET x = 2")
		f.miss("SELECT x FROM u").is("2")
	})
}
