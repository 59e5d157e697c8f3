//go:build unix

package writes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/step"
)

const (
	refillerDSN = "CACHEDPG_REFILLER_DSN"
	refillerAt  = "CACHEDPG_REFILLER_AT"
)

// TestTheRefillerThatIsKilled is the process that TestAWriterKilled… kills: it reads
// a row, changes it, and dies at a step of the commit or of the refill.
func TestTheRefillerThatIsKilled(t *testing.T) {
	dsn := os.Getenv(refillerDSN)
	if dsn == "" {
		t.Skip("it is run by another test")
	}
	var armed atomic.Bool
	step.Hook = func(at string) {
		if armed.Load() && at == os.Getenv(refillerAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	f := &harness.Fixture{T: t, DSN: dsn}
	var cancel context.CancelFunc
	f.Ctx, cancel = context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	f.DB = f.Open("cachedpg", dsn)
	pgDSN, _, err := cachedpg.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.Plain = f.Open("pgx", pgDSN)
	f.Via = f.Asking(f.DB)
	f.Live(f.DB)
	f.Known(harness.UserByID, 1)
	armed.Store(true)
	f.Exec(setCity, os.Getenv(refillerAt))
	t.Fatal("the commit has returned")
}

// Wherever a writer dies, others read what is committed, and cache it again.
func TestAWriterKilledInItsRefillHarmsNobody(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), usersThrough)
	for _, at := range []string{step.Marked, step.Committed, step.Released, step.LookedUp, step.Selected, step.Filled} {
		f.Known(harness.UserByID, 1)
		cmd := exec.CommandContext(f.Ctx, os.Args[0], "-test.run=^TestTheRefillerThatIsKilled$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), refillerDSN+"="+harness.WithKeys(f.DSN, f.Keys), refillerAt+"="+at)
		said, err := cmd.Output()
		if !strings.Contains(fmt.Sprint(err), "killed") {
			t.Fatalf("%s: %v\n%s", at, err, said)
		}
		r := f.Again(harness.UserByID, 1)
		if at != step.Marked { // its transaction ends without a COMMIT
			r.Is("1 ann " + at)
		}
	}
}
