package cachedpg

import (
	"database/sql"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// The specification of the driver, as stories that run on PostgreSQL in every
// exec mode. A hit, a miss, a bypass each compare the rows and the column types
// with those of plain pgx at that moment, so no story needs to say that an
// answer is right, only where it came from.
//
// The specification goes on below test/, by subjects: test/reads/peers_test.go has what
// other caches get wrong. internal/core/scripted_*_test.go plays what no real server can be made to show on command.

func TestARepeatedSelectIsAnsweredFromTheCache(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Miss(harness.UserByID, 1)
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Miss(harness.UserByID, 2)
		f.Hit(harness.UserByID, 2)
		f.Hit(harness.UserByID, 1)
		f.Warm("SELECT name FROM users ORDER BY id")
		f.Warm("SELECT count(*) FROM users")
		f.Warm("VALUES (1), (2)")
		f.Warm("TABLE users")
	})
}

// The cache of one kind of question must not depend on how it is asked.
func TestTheResultOfQueryRowIsCached(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		var name string
		for range 3 {
			if err := f.DB.QueryRowContext(f.Ctx, "SELECT name FROM users ORDER BY id").Scan(&name); err != nil || name != "ann" {
				f.Fatalf("got %q, %v", name, err)
			}
		}
		if s := StatsOf(f.DB); s.Misses != 1 || s.Hits != 2 {
			f.Errorf("got %d misses and %d hits, want 1 and 2", s.Misses, s.Hits)
		}
		f.Hit("SELECT name FROM users ORDER BY id").Is("ann, bob, cid")
	})
}

// An empty result is cached as itself, not as a value that stands for it.
func TestAbsenceIsCached(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 4).Is("")
		f.Warm("SELECT city FROM users WHERE id = $1", 3).Is("<nil>") // one row with a NULL is something else
		f.Warm("SELECT name FROM users WHERE name = $1", "*").Is("")
		f.Exec("INSERT INTO users VALUES (4, '*', '')")
		f.Miss(harness.UserByID, 4).Is("4 * ")
		f.Miss("SELECT name FROM users WHERE name = $1", "*").Is("*")
		f.Exec("DELETE FROM users WHERE id = 4")
		f.Miss(harness.UserByID, 4).Is("")
	})
}

// A write of one row leaves what is known of the others.
func TestAWriteOfARowInvalidatesWhatReadsItAndNoOtherRow(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		f.Warm(harness.UserByID, 2)
		f.Warm("SELECT count(*) FROM users")

		f.Exec("UPDATE users SET name = $2 WHERE id = $1", 1, "anna")
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		f.Hit(harness.UserByID, 2)
		f.Miss("SELECT count(*) FROM users")

		f.Exec("DELETE FROM users WHERE id IN ($1, $2)", 2, 7)
		f.Miss(harness.UserByID, 2)
		f.Hit(harness.UserByID, 1)

		f.Exec("INSERT INTO users VALUES ($1, 'dan', 'Bonn')", 4)
		f.Hit(harness.UserByID, 1)
		f.Miss("SELECT count(*) FROM users")
		f.Miss(harness.UserByID, 4)

		f.Exec("UPDATE users SET name = 'x' WHERE city = 'Oslo'")
		f.Miss(harness.UserByID, 1)
		f.Miss(harness.UserByID, 4)
	})
}

func TestAWriteOfATableLeavesTheOthers(t *testing.T) {
	harness.Scenario(t, harness.People+"CREATE TABLE colours (name text)", func(f *harness.Fixture) {
		f.Warm("SELECT name FROM users")
		f.Warm("SELECT name FROM colours")
		f.Warm("SELECT users.name FROM users CROSS JOIN colours")
		f.Exec("INSERT INTO colours VALUES ('red')")
		f.Hit("SELECT name FROM users")
		f.Miss("SELECT name FROM colours")
		f.Miss("SELECT users.name FROM users CROSS JOIN colours")
	})
}

// The column by which a read finds its rows changes: the question for the old
// value and the one for the new value both have another answer.
func TestUpdatingALookedUpColumnInvalidatesTheOldAndTheNewValue(t *testing.T) {
	harness.Scenario(t, `CREATE TABLE accounts (id int PRIMARY KEY, mail text UNIQUE);
		INSERT INTO accounts VALUES (1, 'a@x'), (2, 'b@x')`, func(f *harness.Fixture) {
		const byMail, byID = "SELECT id FROM accounts WHERE mail = $1", "SELECT mail FROM accounts WHERE id = $1"
		for _, mail := range []string{"a@x", "b@x", "new@x"} {
			f.Warm(byMail, mail)
		}
		f.Warm(byID, 1)
		f.Warm(byID, 2)
		f.Exec("UPDATE accounts SET mail = 'new@x' WHERE id = 1")
		f.Fresh(byMail, "a@x").Is("")
		f.Fresh(byMail, "new@x").Is("1")
		f.Fresh(byMail, "b@x")
		f.Miss(byID, 1)
		f.Hit(byID, 2)

		// By the other key, and a primary key that changes.
		f.Warm(byID, 9)
		f.Exec("UPDATE accounts SET id = 9 WHERE mail = 'b@x'")
		f.Fresh(byID, 2).Is("")
		f.Fresh(byID, 9).Is("b@x")
		f.Fresh(byMail, "b@x").Is("9")

		// Two rows swap their values in one statement.
		f.Exec("ALTER TABLE accounts DROP CONSTRAINT accounts_mail_key, ADD UNIQUE (mail) DEFERRABLE INITIALLY DEFERRED")
		f.Known(byMail, "new@x")
		f.Known(byMail, "b@x")
		f.Exec("UPDATE accounts SET mail = CASE mail WHEN 'new@x' THEN 'b@x' ELSE 'new@x' END")
		f.Fresh(byMail, "new@x").Is("9")
		f.Fresh(byMail, "b@x").Is("1")
	})
}

// Whatever writes invalidates, whichever way it comes: a write by Query, with
// its rows read or not, is as much a write as one by Exec.
func TestEveryKindOfWriteInvalidates(t *testing.T) {
	const rows = "SELECT id, name FROM users ORDER BY id"
	setup := harness.People + `
		CREATE FUNCTION renamed(n text) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE users SET name = n; RETURN 1; END';
		CREATE PROCEDURE rename_all(n text) LANGUAGE plpgsql AS 'BEGIN UPDATE users SET name = n; END';`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
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
			f.Step(tc.name, func(f *harness.Fixture) {
				if tc.name == "merge" {
					harness.NeedsServer(f, 15)
				}
				for _, way := range []func(){
					func() { f.Exec(tc.sql) },
					func() { // nobody reads the rows
						r, err := f.DB.QueryContext(f.Ctx, tc.sql)
						if err != nil {
							f.Fatal(err)
						}
						r.Close()
					},
				} {
					f.Past("TRUNCATE users")
					f.Past("INSERT INTO users VALUES (1, 'ann'), (2, 'bob')")
					f.Exec("UPDATE users SET city = 'Rome'") // tells of the two before
					f.Warm(rows)
					f.Warm(harness.UserByID, 1)
					way()
					f.Fresh(rows)
					f.Fresh(harness.UserByID, 1)
					f.Known(rows)
					f.Known(harness.UserByID, 1)
				}
			})
		}
	})
}

// An INSERT … RETURNING by Query runs each time, and its rows are PostgreSQL's.
func TestAWriteByQueryAlwaysRuns(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE log (id serial PRIMARY KEY, at text)", func(f *harness.Fixture) {
		const add = "INSERT INTO log (at) VALUES ($1) RETURNING id"
		f.Runs(keying.NotRead, add, "a").Is("1")
		f.Runs(keying.NotRead, add, "a").Is("2")
		f.Warm("SELECT count(*) FROM log").Is("2")
		f.Runs(keying.NotRead, add, "a").Is("3")
		f.Miss("SELECT count(*) FROM log").Is("3")
	})
}

// A statement that PostgreSQL refuses gives PostgreSQL's error and changes nothing.
func TestAWriteThatFailsGivesTheErrorOfPgx(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		for _, sql := range []string{
			"INSERT INTO users VALUES (1, 'again')",
			"UPDATE users SET name = NULL",
			"INSERT INTO nowhere VALUES (1) RETURNING 1",
			"INSERT INTO users VALUES (8, 'x') RETURNING 1 / (id - 8)",
		} {
			f.Fails(sql)
			_, got := f.DB.ExecContext(f.Ctx, sql)
			_, want := f.Plain.ExecContext(f.Ctx, sql)
			harness.SameError(f, got, want)
		}
		f.Known(harness.UserByID, 1)
		f.Fresh("TABLE users")
	})
}

// A result that is too large for the cache goes through as it comes.
func TestAResultThatIsTooLargePassesThrough(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE n AS SELECT i, repeat('x', 1000) AS v FROM generate_series(1, 2000) i", func(f *harness.Fixture) {
		v := f.With("cache_max_entry=16KiB")
		const all, few = "SELECT i, v FROM n ORDER BY i", "SELECT i FROM n WHERE i < 10 ORDER BY i"
		for range 2 {
			if r := v.Miss(all); len(r.Rows) != 2000 {
				f.Errorf("%d rows, want 2000", len(r.Rows))
			}
		}
		v.Warm(few)
		if s := StatsOf(v.DB); s.TooLarge != 2 || s.Fills != 1 || s.Bytes > 16<<10 {
			f.Errorf("%d too large, %d fills, %d bytes, want 2, 1 and few", s.TooLarge, s.Fills, s.Bytes)
		}
		// It is not read ahead further than what might have been stored.
		err := f.Conn(v.DB).Raw(func(c any) error {
			rows, err := c.(*Conn).QueryContext(f.Ctx, all, nil)
			if err != nil {
				return err
			}
			if n := rows.(*Rows).rows().Held(); n > 18<<10 {
				f.Errorf("%d bytes were read ahead", n)
			}
			return rows.Close()
		})
		if err != nil {
			f.Error(err)
		}
		// Read in part: the rest is PostgreSQL's to throw away.
		for _, after := range []int{0, 1, 500} {
			rows, err := v.DB.QueryContext(f.Ctx, all)
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
		v.Fresh(all)
		// An error after some rows comes where pgx brings it.
		const fails = "SELECT 1 / (1500 - i), v FROM n"
		v.Fails(fails)
		ours, theirs := rowsUntilError(f, v.DB, fails), rowsUntilError(f, f.Plain, fails)
		if ours != theirs {
			f.Errorf("the error comes after %d rows, with plain pgx after %d", ours, theirs)
		}
		f.Fails(fails) // and where everything would have been stored
		f.Fails(fails)
	})
}

func rowsUntilError(f *harness.Fixture, db *sql.DB, query string) (n int) {
	f.Helper()
	rows, err := db.QueryContext(f.Ctx, query)
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
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm("SELECT id FROM users ORDER BY id")
		s, _ := f.Session()
		for range 2 { // misses, then hits, on one connection one after the other, and mixed
			outer, err := s.Ask.QueryContext(f.Ctx, "SELECT id FROM users ORDER BY id")
			if err != nil {
				f.Fatal(err)
			}
			for outer.Next() {
				var id int
				if err := outer.Scan(&id); err != nil {
					f.Fatal(err)
				}
				f.Fresh(harness.UserByID, id)
			}
			if err := outer.Close(); err != nil {
				f.Error(err)
			}
		}
		f.Warm("SELECT id, name FROM users WHERE false")
	})
}
