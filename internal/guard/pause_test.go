//go:build unix

package guard

import (
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// PAUSE of pgbouncer lets no transaction begin, and ends when none is open. A test
// fails when it does not end.

func guardOf(v *harness.Visitor) *Guard { return inside.Guard(v.DB).(*Guard) }

// What shows a process is not held for longer because another question of the process
// has to wait for the pooler.
func TestPauseEndsWhileAQuestionWaitsForIt(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(5)
		var waiting, done sync.WaitGroup
		resumed := make(chan struct{})
		guards := make(map[*Guard]bool) // in memory they are one process
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
		r := guardOf(all[0]).rotation()
		goOn := r.still()
		pooler.Pause()
		goOn()
		pooler.Resume()
		all[0].Hits("first")
	})
}

// What shows that a statement runs alone is there again after it was lost.
func TestWhatIsShownOfAStatementThatRunsAloneComesBackAfterPause(t *testing.T) {
	t.Parallel()
	w := harness.NewTravel(t)
	w.Keys = []string{"cache_store=" + redistest.Start(t).URL()}
	pooler, all := w.Crowd(1)
	g := guardOf(all[0])
	r := NewRotation(g, 0, true)
	defer r.Close()
	if _, _, err := r.Hold(w.Ctx, []Lock{{Class: LockClass, Object: LockAlone}}, ""); err != nil {
		t.Fatal(err)
	}
	pooler.Pause()
	pooler.Resume()
	for shown := false; !shown; {
		var err error
		if shown, err = g.Yes(w.Ctx, "SELECT "+Held(LockAlone)); err != nil {
			t.Fatal(err)
		}
	}
}
