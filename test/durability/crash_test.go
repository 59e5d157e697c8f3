//go:build unix

package durability

import (
	"database/sql"
	"fmt"
	"syscall"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// crashes are ways in which what is not on disk gets lost, by name.
func crashes(f *harness.Fixture, s *pgtest.Server) map[string]func() {
	return map[string]func(){
		"of the server": func() { s.Crash(); s.Start() },
		"of a backend": func() { // the postmaster goes on, and so does its name for all that was cached
			victim, conn := pgtest.Connect(f, s.DSN()), pgtest.Connect(f, s.DSN())
			began := s.Query("SELECT pg_postmaster_start_time()::text")
			if err := syscall.Kill(int(victim.PgConn().PID()), syscall.SIGKILL); err != nil {
				f.Fatal(err)
			}
			for err := error(nil); err == nil; _, err = conn.Exec(f.Ctx, "SELECT 1") {
			}
			f.Until("PostgreSQL", func() bool { return s.Try("SELECT") == nil })
			if got := s.Query("SELECT pg_postmaster_start_time()::text"); got != began {
				f.Fatalf("the postmaster began at %s, then at %s", began, got)
			}
		},
	}
}

// PostgreSQL crashes before a commit is on disk that the caller was told of and
// others have read: it has never been, and the cache says so too.
func TestWhatACrashUndoesIsNotAHit(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, s *pgtest.Server) {
		hurried := f.With(setAside + "=off")
		hurried.DB.SetMaxIdleConns(0)
		if !f.InMemory() {
			f.Live(hurried.DB)
		}
		for name, crash := range crashes(f, s) {
			f.Step(name, func(f *harness.Fixture) {
				f.Until("a hit", func() bool { readCalmed(f, harness.UserByID, 1); return isHitNow(f, harness.UserByID, 1) })
				flushes(f)
				before := s.Query("SELECT city FROM cache_statement.users WHERE id = 1")
				s.StopWALWriter() // the crash before has begun another
				if _, err := hurried.DB.ExecContext(f.Ctx, "UPDATE users SET city = city || ' lost' WHERE id = 1"); err != nil {
					f.Fatal(err)
				}
				for range 3 {
					readCalmed(f, harness.UserByID, 1)
				}
				crash()
				if got := s.Query("SELECT city FROM cache_statement.users WHERE id = 1"); got != before {
					f.Fatalf("after the crash the city is %q, before the commit that it shall undo it was %q", got, before)
				}
				f.Until("an answer", func() bool { return f.Read(f.DB, harness.UserByID, []any{1}).Err == nil })
				for range 3 {
					f.Fresh(harness.UserByID, 1).Is("1 ann " + before)
				}
				f.Until("a hit", func() bool { readCalmed(f, harness.UserByID, 1); return isHitNow(f, harness.UserByID, 1) })
			})
		}
	})
}

// readCalmed reads past connections that a crash has ended.
func readCalmed(f *harness.Fixture, query string, args ...any) {
	f.Until("an answer", func() bool { return f.Read(f.DB, query, args).Err == nil })
}

func isHitNow(f *harness.Fixture, query string, args ...any) bool {
	before := cachedpg.StatsOf(f.DB).Hits
	readCalmed(f, query, args...)
	return cachedpg.StatsOf(f.DB).Hits > before
}

// The same with PostgreSQL's own settings and hundreds of commits, each of which another
// connection, and another DB, have read before the crash.
func TestNoCommitThatACrashHasUndoneIsAHit(t *testing.T) {
	t.Parallel()
	const commits = 500
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := pgtest.StartServer(t)
			var keys []string
			if name == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			f := harness.New(t, s.DSN(), "cache_statement",
				fmt.Sprintf("CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counts SELECT i, 0 FROM generate_series(1, %d) i", commits), keys...)
			f.Plain.SetMaxIdleConns(0)
			hurried := f.With(setAside + "=off").DB
			if !f.InMemory() {
				f.Live(hurried)
			}
			const read = "SELECT id, n FROM counts WHERE id = $1"
			for name, crash := range crashes(f, s) {
				f.Step(name, func(f *harness.Fixture) {
					lost := 0
					f.Until("a crash that undoes commits", func() bool {
						f.Until("a hit", func() bool { readCalmed(f, read, 1); return isHitNow(f, read, 1) })
						f.Until("an answer", func() bool { return f.Read(hurried, read, []any{1}).Err == nil })
						seen := make([]harness.Result, commits)
						for i := range seen {
							if _, err := hurried.ExecContext(f.Ctx, "UPDATE counts SET n = n + 1 WHERE id = $1", i+1); err != nil {
								f.Fatal(err)
							}
							for range 2 { // a miss, and a hit if it may be one
								seen[i] = f.Read(f.DB, read, []any{i + 1})
							}
							f.Read(hurried, read, []any{i + 1})
						}
						crash()
						f.Until("an answer", func() bool { return f.Read(f.Plain, read, []any{1}).Err == nil })
						for i := range seen {
							now := f.Read(f.Plain, read, []any{i + 1})
							if now.Err != nil {
								f.Fatal(now.Err)
							}
							if seen[i].String() != now.String() {
								lost++
							}
							for _, db := range []*sql.DB{f.DB, hurried} {
								var got harness.Result
								f.Until("an answer", func() bool { got = f.Read(db, read, []any{i + 1}); return got.Err == nil })
								if got.String() != now.String() {
									f.Fatalf("row %d: got %q, PostgreSQL has %q", i+1, got, now)
								}
							}
						}
						return lost > 0
					})
					f.Logf("%d commits lost", lost)
				})
			}
		})
	}
}
