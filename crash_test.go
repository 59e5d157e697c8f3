//go:build unix

package cachedpg

import (
	"database/sql"
	"fmt"
	"syscall"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// crashes are ways in which what is not on disk gets lost, by name.
func (f *fixture) crashes(s *pgtest.Server) map[string]func() {
	return map[string]func(){
		"of the server": func() { s.Crash(); s.Start() },
		"of a backend": func() { // the postmaster goes on, and so does its name for all that was cached
			victim, conn := pgtest.Connect(f, s.DSN()), pgtest.Connect(f, s.DSN())
			began := s.Query("SELECT pg_postmaster_start_time()::text")
			if err := syscall.Kill(int(victim.PgConn().PID()), syscall.SIGKILL); err != nil {
				f.Fatal(err)
			}
			for err := error(nil); err == nil; _, err = conn.Exec(f.ctx, "SELECT 1") {
			}
			f.until("PostgreSQL", func() bool { return s.Try("SELECT") == nil })
			if got := s.Query("SELECT pg_postmaster_start_time()::text"); got != began {
				f.Fatalf("the postmaster began at %s, then at %s", began, got)
			}
		},
	}
}

// PostgreSQL crashes before a commit is on disk that the caller was told of and
// others have read: it has never been, and the cache says so too.
func TestWhatACrashUndoesIsNotAHit(t *testing.T) {
	asynchronous(t, people, func(f *fixture, s *pgtest.Server) {
		hurried := f.with(setAside + "=off")
		hurried.db.SetMaxIdleConns(0)
		if !f.inMemory() {
			f.live(hurried.db)
		}
		for name, crash := range f.crashes(s) {
			f.step(name, func(f *fixture) {
				f.until("a hit", func() bool { f.calm(userByID, 1); return f.isHitNow(userByID, 1) })
				f.flushes()
				before := s.Query("SELECT city FROM cache_statement.users WHERE id = 1")
				s.StopWALWriter() // the crash before has begun another
				if _, err := hurried.db.ExecContext(f.ctx, "UPDATE users SET city = city || ' lost' WHERE id = 1"); err != nil {
					f.Fatal(err)
				}
				for range 3 {
					f.calm(userByID, 1)
				}
				crash()
				if got := s.Query("SELECT city FROM cache_statement.users WHERE id = 1"); got != before {
					f.Fatalf("after the crash the city is %q, before the commit that it shall undo it was %q", got, before)
				}
				f.until("an answer", func() bool { return f.read(f.db, userByID, []any{1}).err == nil })
				for range 3 {
					f.fresh(userByID, 1).is("1 ann " + before)
				}
				f.until("a hit", func() bool { f.calm(userByID, 1); return f.isHitNow(userByID, 1) })
			})
		}
	})
}

// calm reads past connections that a crash has ended.
func (f *fixture) calm(query string, args ...any) {
	f.until("an answer", func() bool { return f.read(f.db, query, args).err == nil })
}

func (f *fixture) isHitNow(query string, args ...any) bool {
	before := StatsOf(f.db).Hits
	f.calm(query, args...)
	return StatsOf(f.db).Hits > before
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
			f := newFixture(t, s.DSN(), "cache_statement",
				fmt.Sprintf("CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counts SELECT i, 0 FROM generate_series(1, %d) i", commits), keys...)
			f.plain.SetMaxIdleConns(0)
			hurried := f.with(setAside + "=off").db
			if !f.inMemory() {
				f.live(hurried)
			}
			const read = "SELECT id, n FROM counts WHERE id = $1"
			for name, crash := range f.crashes(s) {
				f.step(name, func(f *fixture) {
					lost := 0
					f.until("a crash that undoes commits", func() bool {
						f.until("a hit", func() bool { f.calm(read, 1); return f.isHitNow(read, 1) })
						f.until("an answer", func() bool { return f.read(hurried, read, []any{1}).err == nil })
						seen := make([]result, commits)
						for i := range seen {
							if _, err := hurried.ExecContext(f.ctx, "UPDATE counts SET n = n + 1 WHERE id = $1", i+1); err != nil {
								f.Fatal(err)
							}
							for range 2 { // a miss, and a hit if it may be one
								seen[i] = f.read(f.db, read, []any{i + 1})
							}
							f.read(hurried, read, []any{i + 1})
						}
						crash()
						f.until("an answer", func() bool { return f.read(f.plain, read, []any{1}).err == nil })
						for i := range seen {
							now := f.read(f.plain, read, []any{i + 1})
							if now.err != nil {
								f.Fatal(now.err)
							}
							if seen[i].String() != now.String() {
								lost++
							}
							for _, db := range []*sql.DB{f.db, hurried} {
								var got result
								f.until("an answer", func() bool { got = f.read(db, read, []any{i + 1}); return got.err == nil })
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
