//go:build unix

package durability

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// noticesReload returns what waits until a reload since is known that lets commits go on
// before they are on disk, and what was begun anew for it is warm.
func noticesReload(f *harness.Fixture) func(query string, args ...any) {
	before := inside.Reconfigured(f.DB)
	return func(query string, args ...any) {
		f.Until("the question", func() bool { f.Fresh(query, args...); return !f.InMemory() || inside.Reconfigured(f.DB) != before })
		f.Until("a hit", func() bool { flushes(f); f.Fresh(query, args...); return f.IsHit(query, args...) })
	}
}

// Somebody else has the server load another configuration. A session that had learned
// the one of before commits under the new one (I20).
func TestAReloadOfTheConfigurationIsNoticed(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, s *pgtest.Server) {
		v, conn := f.Session()
		defer conn.Close()
		v.On(conn).Exec("UPDATE users SET city = 'known' WHERE id = 1") // how it commits, too
		f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
		noticed := noticesReload(f)
		s.Exec("ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()")
		defer s.Exec("ALTER SYSTEM RESET synchronous_commit", "SELECT pg_reload_conf()")
		f.Until("the reload", func() bool {
			var setting string
			if err := conn.QueryRowContext(f.Ctx, "SHOW synchronous_commit").Scan(&setting); err != nil {
				f.Fatal(err)
			}
			return setting == "off"
		})
		commit := func() {
			f.Until("a commit that is not on disk", func() bool { // the WAL writer loads the configuration, too, and flushes
				v.On(conn).Exec("UPDATE users SET city = city || '!' WHERE id = 1")
				return f.IsUnflushed()
			})
		}
		commit()
		noticed(harness.UserByID, 1)
		commit() // by a session that has not been asked again
		checkUnflushed(f, harness.UserByID, 1)
		f.Until("a hit", func() bool { flushes(f); f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
	})
}

// The reload is noticed when a statement is on its way that was marked before (I20).
func TestAReloadIsNoticedWhileAStatementRuns(t *testing.T) {
	t.Parallel()
	s := harness.Unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People)
	f.Exec("UPDATE users SET city = 'known' WHERE id = 1")
	rows, err := f.DB.QueryContext(f.Ctx, "UPDATE users SET city = 'Rome' WHERE id = 1 RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	inside.Reconfigure(f.Ctx, f.DB, backend.Configuration{Mode: backend.CommitSync}, backend.Configuration{Mode: backend.CommitAsync, Direct: true})
	if _, err := pgtest.Connect(f, harness.WithKey(f.DSN, setAside, "off")).Exec(f.Ctx, "UPDATE users SET city = 'Pisa' WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	if !f.IsUnflushed() {
		t.Error("the log is on disk before it shall be")
	}
	rows.Close()
	if got := cachedpg.StatsOf(f.DB).Unflushed; got != 1 {
		t.Errorf("%d commits wait for the disk, want 1", got)
	}
}
