package peers_test

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/keying"
)

// What a process has sent may become visible when its locks are gone.
func TestACacheReturnsWhenTheLastCommitOfTheOtherIsOver(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, b := f.Beside("a"), f.Beside("b")
		a.Warm(harness.UserByID, 1)
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		outside.Withheld(a, "in its own memory", harness.UserByID, 1)
		tx, err := f.Plain.BeginTx(f.Ctx, nil) // b's, which was killed
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET city = 'Bergen' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		b.DB.Close()
		f.Until("the writer to be forgotten", func() bool {
			if err := a.DB.PingContext(f.Ctx); err != nil {
				return false
			}
			return inside.Peers(a.DB).(*peers.Peers).MayHaveHit()
		})
		for range 20 {
			a.Bypass(keying.Warming, harness.UserByID, 1).Is("1 ann Oslo")
		}
		f.Commit(tx)
		a.Caches(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

// Who asks what a statement would do is nobody that others have to wait for.
func TestExplainShowsNothingToOthers(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		v := f.Beside("explains")
		outside.Explain(v, harness.UserByID, 1)
		outside.Explain(v, "UPDATE users SET city = 'Rome' WHERE id = 1")
		if n := peers.ShownIn(f); n != 0 || inside.Peers(v.DB).(*peers.Peers).Asks() {
			f.Errorf("%d locks are held", n)
		}
		v.Caches(harness.UserByID, 1)
		if n := peers.ShownIn(f); n != 1 {
			f.Errorf("%d locks are held, want that of the cache", n)
		}
	})
}
