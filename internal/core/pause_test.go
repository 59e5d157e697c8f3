//go:build unix

package core

import (
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/space"
)

// PAUSE of pgbouncer lets no transaction begin, and ends when none is open. A test
// fails when it does not end.

func guardOf(v *harness.Visitor) *guard.Guard { return dbOf(v.DB).space().Guard }

// What shows a process is not held for longer because another question of the process
// has to wait for the pooler.
func TestPauseEndsWhileAQuestionWaitsForIt(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(5)
		var waiting, done sync.WaitGroup
		resumed := make(chan struct{})
		guards := make(map[*guard.Guard]bool) // in memory they are one process
		for _, v := range all {
			guards[guardOf(v)] = true
		}
		waiting.Add(len(guards))
		for g := range guards {
			done.Go(func() {
				err := g.With(w.Ctx, func(in backend.Conn) error {
					waiting.Done()
					<-resumed
					return nil
				})
				if err != nil {
					w.Error(err)
				}
			})
		}
		waiting.Wait()
		pooler.Pause()
		pooler.Resume()
		close(resumed)
		done.Wait()
		for _, v := range all {
			v.Hits("first")
		}
		agree(all)
	})
}

// agree has one of them write, and all see it.
func agree(all []*harness.Visitor) {
	all[0].W.Helper()
	all[0].Moves("second")
	for _, v := range all {
		v.Sees("second")
	}
}

// A process that is stopped ends no transaction. PostgreSQL does.
func TestPauseEndsWhileAProcessIsStopped(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(1)
		r := guardOf(all[0]).Rotation()
		goOn := r.Still()
		pooler.Pause()
		goOn()
		pooler.Resume()
		all[0].Hits("first")
	})
}

// A transaction that needs the catalog does not wait for as long as a load that waits for the pooler.
func TestPauseEndsWhileATransactionNeedsTheCatalog(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(1)
		sp := dbOf(all[0].DB).space()
		tx, err := all[0].DB.BeginTx(w.Ctx, nil)
		if err != nil {
			w.Fatal(err)
		}
		inside := *all[0]
		inside.Ask = tx
		inside.Sees("first")
		var watch *space.Watch
		if w.Shared() {
			watch = &sp.Keeper.Watch
		} else {
			watch = &sp.Lease.Watch
		}
		watch.Asking.Lock()
		sp.DropView()
		ended := pooler.Pausing()
		inside.Sees("first")
		inside.Moves("second")
		if err := tx.Commit(); err != nil {
			w.Error(err)
		}
		ended()
		watch.Asking.Unlock()
		pooler.Resume()
		all[0].Hits("second")
	})
}

// What shows that a statement runs alone is there again after it was lost.
func TestWhatIsShownOfAStatementThatRunsAloneComesBackAfterPause(t *testing.T) {
	t.Parallel()
	w := harness.NewTravel(t)
	w.Keys = []string{"cache_store=" + redistest.Start(t).URL()}
	pooler, all := w.Crowd(1)
	g := guardOf(all[0])
	r := guard.NewRotation(g, 0, true)
	defer r.Close()
	if _, _, err := r.Hold(w.Ctx, []guard.Lock{{Class: guard.LockClass, Object: guard.LockAlone}}, ""); err != nil {
		t.Fatal(err)
	}
	pooler.Pause()
	pooler.Resume()
	for shown := false; !shown; {
		var err error
		if shown, err = g.Yes(w.Ctx, "SELECT "+guard.Held(guard.LockAlone)); err != nil {
			t.Fatal(err)
		}
	}
}
