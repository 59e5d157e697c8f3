//go:build unix

package through

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/step"
)

// TestTheRefillerThatIsKilled is the process that TestAWriterKilled… kills: it reads
// a row, changes it, and dies at a step of the commit or of the refill.
func TestTheRefillerThatIsKilled(t *testing.T) {
	f := harness.NewVictim(t)
	f.Known(harness.UserByID, 1)
	f.Arm(1)
	f.Exec(setCity, f.At)
	t.Fatal("the commit has returned")
}

// Wherever a writer dies, others read what is committed, and cache it again.
func TestAWriterKilledInItsRefillHarmsNobody(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), usersThrough)
	for _, at := range []string{step.Marked, step.Committed, step.Released, step.LookedUp, step.Selected, step.Filled} {
		f.Known(harness.UserByID, 1)
		f.Killed("TestTheRefillerThatIsKilled", at)
		r := f.Again(harness.UserByID, 1)
		if at != step.Marked { // its transaction ends without a COMMIT
			r.Is("1 ann " + at)
		}
	}
}
