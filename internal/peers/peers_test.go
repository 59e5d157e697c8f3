package peers

import (
	"context"
	"fmt"
	"testing"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

func peersOf(v harness.Via) *Peers { return inside.Peers(v.DB).(*Peers) }

// shown counts the locks that camps show themselves by.
func shown(f *harness.Fixture) int {
	f.Helper()
	return f.Count(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = '%d' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", guard.LockCamps))
}

// A lone process shows itself without waiting for anybody.
func TestTheFirstWriteOfALoneProcessWaitsForNobody(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		lone := f.Beside(f.Name(), f.Keys...)
		lone.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		p := peersOf(lone)
		p.mu.Lock()
		writing, due := p.writing, p.due
		p.mu.Unlock()
		if writing.IsZero() || f.InMemory() && !due.IsZero() {
			f.Errorf("it shows that it writes since %v; commits wait until %v", writing, due)
		}
	})
}

// A write waits for the caches of others, no longer than its context.
func TestTheWaitForOtherCachesEndsWithTheContext(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, b := f.Beside("a"), f.Beside("b")
		a.Warm(harness.UserByID, 1)
		ctx, cancel := context.WithTimeout(f.Ctx, Wait()/4)
		defer cancel()
		tx, err := b.DB.BeginTx(ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err = tx.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1"); err == nil {
			err = tx.Commit()
		}
		if ctx.Err() == nil || err == nil {
			f.Errorf("got %v before %v was over", err, Wait()/4)
		}
		a.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

// I24: who could not be seen for a while may have missed a writer that came and
// went. What was cached before is none of the answers after.
func TestACacheThatWasHiddenBeginsAnew(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a := f.Beside("a")
		a.Warm(harness.UserByID, 1)
		p := peersOf(a)
		p.turn.Lock() // it asks nothing, as if it were stopped
		f.Past("SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND classid = " + fmt.Sprint(guard.LockCamps) +
			" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
		b := f.Beside("b")
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1") // it sees nobody, and does not wait
		b.DB.Close()
		p.turn.Unlock()
		f.Until("it to be seen again", func() bool { return shown(f) > 0 })
		f.Until("an answer", func() bool { return p.round(func() bool { return false }) == nil && p.hitsUntil.Load() > 0 })
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
	})
}
