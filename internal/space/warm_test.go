package space

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// starting is a story of a process that starts while others, which it does not know
// of, are at work as a role of which it sees nothing in pg_stat_activity.
func starting(t *testing.T, stores []string, story func(f *harness.Fixture, other *pgx.Conn, start func() harness.Via)) {
	t.Helper()
	t.Parallel()
	for _, name := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database(t)
			roles := []string{"humble_" + suffix(), "secret_" + suffix()}
			for _, role := range roles {
				pgtest.Exec(t, database, "CREATE ROLE "+role+" LOGIN")
				t.Cleanup(func() { pgtest.Exec(t, database, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
			}
			f := harness.New(t, database, "cache_statement", harness.People+`
				CREATE FUNCTION slowly(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
					PERFORM pg_advisory_lock_shared($1), pg_advisory_unlock_shared($1); UPDATE users SET city = 'slow' WHERE id = 1; RETURN 1; END $$;
				GRANT USAGE ON SCHEMA cache_statement TO `+strings.Join(roles, ",")+`; GRANT ALL ON users TO `+strings.Join(roles, ","))
			other, err := pgx.Connect(f.Ctx, harness.WithKey(f.DSN, "user", roles[1]))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.Close(context.Background()) })
			story(f, other, func() harness.Via {
				t.Helper()
				keys := []string{"user=" + roles[0]}
				if name == "redis" {
					keys = append(keys, "cache_store="+pgtest.Redis(t))
				}
				return f.Beside("new", keys...)
			})
		})
	}
}

func suffix() string { return strings.ToLower(rand.Text()[:12]) }

// cold: nothing is stored, whatever is read.
func cold(v harness.Via) {
	v.F.Helper()
	for until := time.Now().Add(time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		v.Fresh(harness.UserByID, 1)
	}
	if s := inside.Counted(v.DB); s.Hits > 0 || s.Fills > 0 {
		v.F.Errorf("while the commit of another is under way: %d fills, %d hits", s.Fills, s.Hits)
	}
}

func getsWarm(v harness.Via) {
	v.F.Helper()
	v.F.Until("a hit", func() bool {
		before := inside.Counted(v.DB).Hits
		v.Fresh(harness.UserByID, 1)
		return inside.Counted(v.DB).Hits > before
	})
}

// A commit of before the start becomes visible after it, of a role whose sessions
// are hidden (I14).
func TestANewProcessWaitsForTheCommitOfAnotherRole(t *testing.T) {
	starting(t, []string{"memory", "redis"}, func(f *harness.Fixture, other *pgx.Conn, start func() harness.Via) {
		run(f, other, "BEGIN", "UPDATE users SET city = 'Bonn' WHERE id = 1")
		v := start()
		cold(v)
		run(f, other, "COMMIT")
		getsWarm(v)
		v.Fresh(harness.UserByID, 1).Is("1 ann Bonn")
	})
}

// A statement that has not written yet has no id to wait for (I14, I21). In a shared store its
// writer has marked what it changes, or holds a lock.
func TestANewProcessWaitsForAStatementThatWillWrite(t *testing.T) {
	starting(t, []string{"memory"}, func(f *harness.Fixture, other *pgx.Conn, start func() harness.Via) {
		g := f.CloseGate()
		done := make(chan error, 1)
		go func() {
			_, err := other.Exec(f.Ctx, "SELECT slowly(1)")
			done <- err
		}()
		g.Await(1)
		v := start()
		cold(v)
		g.Open()
		if err := <-done; err != nil {
			f.Fatal(err)
		}
		getsWarm(v)
		v.Fresh(harness.UserByID, 1).Is("1 ann slow")
	})
}

// Of a transaction that was prepared before the start its manager decides later.
func TestANewProcessWaitsForAPreparedTransaction(t *testing.T) {
	starting(t, []string{"memory", "redis"}, func(f *harness.Fixture, other *pgx.Conn, start func() harness.Via) {
		name := "prepared_" + suffix()
		run(f, other, "BEGIN", "UPDATE users SET city = 'Bern' WHERE id = 1", "PREPARE TRANSACTION '"+name+"'")
		v := start()
		cold(v)
		run(f, other, "COMMIT PREPARED '"+name+"'")
		getsWarm(v)
		v.Fresh(harness.UserByID, 1).Is("1 ann Bern")
	})
}

// What cannot change this database any more is not waited for: a session that is
// idle and has written nothing, a report, a transaction of another database, one
// that was begun or prepared since.
func TestANewProcessDoesNotWaitForOthers(t *testing.T) {
	starting(t, []string{"memory", "redis"}, func(f *harness.Fixture, other *pgx.Conn, start func() harness.Via) {
		run(f, other, "BEGIN", "SELECT * FROM users")
		another := pgtest.Database(f)
		elsewhere := pgtest.Connect(f, another)
		run(f, elsewhere, "CREATE TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)")
		prepared := "elsewhere_" + suffix()
		further := pgtest.Connect(f, another)
		run(f, further, "BEGIN", "INSERT INTO t VALUES (2)", "PREPARE TRANSACTION '"+prepared+"'")
		f.Cleanup(func() { pgtest.Exec(f, another, "ROLLBACK PREPARED '"+prepared+"'") })
		began := time.Now()
		v := start()
		getsWarm(v)
		if took := time.Since(began); took >= readsOver {
			f.Errorf("it took %v", took)
		}
	})
}

// A report that runs under the process' own role, or under any if it may see that, is
// known to write nothing.
func TestANewProcessDoesNotWaitForAReport(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		report := pgtest.Connect(f, f.DSN)
		g := f.CloseGate()
		done := make(chan error, 1)
		go func() {
			_, err := report.Exec(f.Ctx, "SELECT pg_advisory_lock_shared(1), count(*) FROM users")
			done <- err
		}()
		g.Await(1)
		began := time.Now()
		v := f.Beside("new")
		getsWarm(v)
		if took := time.Since(began); took >= readsOver {
			f.Errorf("it took %v", took)
		}
		g.Open()
		<-done
	})
}

// Behind a pooler a question may come to another server, where nothing is under way (I19).
func TestAnotherServerSaysNothingOfWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	other := pgtest.StartServer(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	run(f, pgtest.Connect(t, f.DSN), "BEGIN", "UPDATE users SET city = 'Bonn' WHERE id = 1")
	v := f.Beside("new")
	v.Fresh(harness.UserByID, 1)
	there, err := f.DB.Driver().(driver.DriverContext).OpenConnector(other.DSN())
	if err != nil {
		t.Fatal(err)
	}
	in, err := inside.Dial(f.Ctx, there)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sp := spaceOf(v.DB)
	sp.warming.Helped()
	if sp.IsWarm(f.Ctx, in, nil, nil) {
		t.Error("another server has told that nothing is under way")
	}
}

// A program all of whose reads stand in transactions gets a cache, too.
func TestACacheBeginsForReadsInTransactions(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		f.Until("a hit", func() bool {
			v, tx := f.Begin(&sql.TxOptions{ReadOnly: true})
			v.Fresh(harness.UserByID, 1)
			f.Commit(tx)
			return inside.Counted(f.DB).Hits > 0
		})
	})
}

// One answer after another.
func TestWhatIsUnderWay(t *testing.T) {
	now := time.Now()
	plain := func(text string) bool { return text == "plain" }
	for _, c := range []struct {
		name    string
		answers [][]string
		after   time.Duration // of the last answer
		over    bool
	}{
		{"nobody", [][]string{nil}, 0, true},
		{"a writer", [][]string{{"w3/1\x1f"}}, time.Hour, false},
		{"a writer that ends", [][]string{{"w3/1\x1f"}, nil}, 0, true},
		{"another one that begins", [][]string{{"w3/1\x1f"}, {"w3/2\x1f", "w4/1\x1f"}}, 0, true},
		{"a reader", [][]string{{"r3/1\x1f"}}, 0, false},
		{"a reader for long", [][]string{{"r3/1\x1f"}, {"r3/1\x1f"}}, readsOver, true},
		{"a reader that writes", [][]string{{"r3/1\x1f"}, {"w3/1\x1f"}}, readsOver, false},
		{"a plain query", [][]string{{"r3/1\x1fplain"}}, 0, true},
		{"a writer that runs a plain query", [][]string{{"w3/1\x1fplain"}}, 0, false},
	} {
		var u UnderWay
		for i, answer := range c.answers {
			at := now
			if i == len(c.answers)-1 {
				at = now.Add(c.after)
			}
			u.seen(slices.Clone(answer), plain, at)
		}
		if u.over != c.over {
			t.Errorf("%s: over is %t, want %t", c.name, u.over, c.over)
		}
	}
}
