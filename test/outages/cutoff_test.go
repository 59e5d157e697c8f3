package outages

import (
	"context"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// A DDL's marks wait for every older statement of its process, the cache of the
// others does not.
func TestDDLWaitsForASlowStatement(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		other := f.Process("other")
		other.Again(harness.UserByID, 1)
		g := f.CloseGate()
		done := make(chan error, 1)
		go func() {
			_, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id = 3 AND pg_advisory_lock_shared(1) IS NOT NULL")
			done <- err
		}()
		g.Await(1)
		f.Exec("CREATE TABLE aside (id int)")
		hit := false
		before := cachedpg.StatsOf(other.DB).Hits
		for until := time.Now().Add(4 * time.Second); time.Now().Before(until) && !hit; time.Sleep(5 * time.Millisecond) {
			other.Fresh(harness.UserByID, 1)
			hit = cachedpg.StatsOf(other.DB).Hits > before
		}
		g.Open()
		<-done
		if !hit {
			f.Error("nothing is cached while a statement of before the DDL runs")
		}
	})
}

// A process that is cut off and writes no more keeps everybody cold.
func TestAnIdleCutOffProcess(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p))
		p.Cut()
		writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		hit := false
		before := cachedpg.StatsOf(f.DB).Hits
		for until := time.Now().Add(12 * time.Second); time.Now().Before(until) && !hit; time.Sleep(20 * time.Millisecond) {
			f.Fresh(harness.UserByID, 1)
			hit = cachedpg.StatsOf(f.DB).Hits > before
		}
		if !hit {
			f.Error("nothing is cached 12 s after the last write of a process that is cut off")
		}
	})
}

// lockNotice is the object of the advisory lock by which commits past the store show themselves.
const lockNotice = 0x65647067

// The notice is lost while others rely on it: a cancelled commit closes it.
func TestACancelledCommitDropsTheNotice(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		w := openWrapped(f, "wrapped", cachedpg.Config{Store: r.URLThrough(p)})
		f.Again(harness.UserByID, 1)
		p.Cut()
		handedOut(f, w, func() { // PostgreSQL ends the connection with the notice
			f.Past("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid = $1::int8", int64(lockNotice))
		})
	})
}

// PREPARE TRANSACTION, chain, savepoints, cancelled statements: nothing open afterwards.
func TestNothingIsLeftOpen(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		for i := range 20 {
			ctx, cancel := context.WithTimeout(f.Ctx, time.Duration(i*200)*time.Microsecond)
			if i%2 == 0 {
				f.DB.ExecContext(ctx, "UPDATE users SET city = $1 WHERE id = 1", "x")
			} else {
				f.DB.QueryRowContext(ctx, "UPDATE users SET city = 'y' WHERE id = 1 RETURNING id").Scan(new(int))
			}
			cancel()
		}
		conn := f.Conn(f.DB)
		on := f.On(conn)
		on.Exec("BEGIN")
		on.Exec("UPDATE users SET city = 'chain' WHERE id = 2")
		on.Exec("COMMIT AND CHAIN")
		on.Exec("UPDATE users SET city = 'rolled' WHERE id = 2")
		on.Exec("ROLLBACK")
		f.Fresh(harness.UserByID, 2).Is("2 bob chain")
		conn.Close()
		f.Until("no transaction to be open", func() bool {
			var n int
			if err := f.Plain.QueryRowContext(f.Ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'").Scan(&n); err != nil {
				f.Fatal(err)
			}
			return n == 0
		})
		var locks int
		if err := f.Plain.QueryRowContext(f.Ctx, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1667326824 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&locks); err != nil || locks != 0 {
			f.Error(locks, err)
		}
		f.Fresh(harness.UserByID, 1)
	})
}
