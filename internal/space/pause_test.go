//go:build unix

package space

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A transaction that needs the catalog does not wait for as long as a load that waits for the pooler.
func TestPauseEndsWhileATransactionNeedsTheCatalog(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(1)
		sp := spaceOf(all[0].DB)
		tx, err := all[0].DB.BeginTx(w.Ctx, nil)
		if err != nil {
			w.Fatal(err)
		}
		inside := *all[0]
		inside.Ask = tx
		inside.Sees("first")
		var watch *watch
		if w.Shared() {
			watch = &sp.Keeper.watch
		} else {
			watch = &sp.Lease.watch
		}
		watch.asking.Lock()
		sp.DropView()
		ended := pooler.Pausing()
		inside.Sees("first")
		inside.Moves("second")
		if err := tx.Commit(); err != nil {
			w.Error(err)
		}
		ended()
		watch.asking.Unlock()
		pooler.Resume()
		all[0].Hits("second")
	})
}
