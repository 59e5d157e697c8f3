package guard

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// Commits past a store that is gone ask together whether their notice stands: while one
// question is under way all others come to the next.
func TestCommitsPastTheStoreDoNotWaitForEachOther(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		r.Kill()
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		n := inside.Notice(f.DB).(*Notice)
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held == nil {
			f.Fatal("no notice was posted")
		}
		goOn := held.still() // PostgreSQL answers its questions no more
		const commits = 3
		done := make(chan error, commits)
		for id := range commits {
			go func() {
				_, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET name = name || '!' WHERE id = $1", id+1)
				done <- err
			}()
		}
		f.Until("all of them to ask", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.holders == commits
		})
		goOn()
		for range commits {
			if err := <-done; err != nil {
				f.Error(err)
			}
		}
		f.Fresh(harness.UserByID, 1)
	})
}

// CREATE INDEX CONCURRENTLY waits for every older snapshot. What is kept open beside
// it, because it runs, has none.
func TestWhatIsKeptOpenHoldsNoSnapshot(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		n := Notice{Guard: inside.Notice(f.DB).(*Notice).Guard}
		posted, err := n.post(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		defer func() { n.leave(); n.Lift() }()
		free := func(when string) {
			f.Helper()
			const held = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::int8 AND backend_xmin IS NOT NULL"
			if f.Count(held, int64(n.held.pid())) != 0 {
				f.Errorf("a snapshot is held %s", when)
			}
		}
		free("when the notice is posted")
		if !n.hold(f.Ctx, posted) {
			f.Fatal("the notice is gone")
		}
		free("while a commit needs the notice")
	})
}
