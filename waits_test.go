package cachedpg

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// Commits past a store that is gone ask together whether their notice stands: while one
// question is under way all others come to the next.
func TestCommitsPastTheStoreDoNotWaitForEachOther(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		r.Kill()
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		n := &keeperOf(f.Via).notice
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held == nil {
			f.Fatal("no notice was posted")
		}
		goOn := held.Still() // PostgreSQL answers its questions no more
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
