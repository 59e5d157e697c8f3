//go:build unix

package cachedpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

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
	f := &fixture{T: t, dsn: dsn}
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	f.db = f.open("cachedpg", dsn)
	pgDSN, _, err := ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.plain = f.open("pgx", pgDSN)
	f.via = f.asking(f.db)
	f.live(f.db)
	f.known(userByID, 1)
	armed.Store(true)
	f.exec(setCity, os.Getenv(refillerAt))
	t.Fatal("the commit has returned")
}

// Wherever a writer dies, others read what is committed, and cache it again.
func TestAWriterKilledInItsRefillHarmsNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people, "cache_store="+pgtest.Redis(t), usersThrough)
	for _, at := range []string{step.Marked, step.Committed, step.Released, step.LookedUp, step.Selected, step.Filled} {
		f.known(userByID, 1)
		cmd := exec.CommandContext(f.ctx, os.Args[0], "-test.run=^TestTheRefillerThatIsKilled$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), refillerDSN+"="+withKeys(f.dsn, f.keys), refillerAt+"="+at)
		said, err := cmd.Output()
		if !strings.Contains(fmt.Sprint(err), "killed") {
			t.Fatalf("%s: %v\n%s", at, err, said)
		}
		r := f.again(userByID, 1)
		if at != step.Marked { // its transaction ends without a COMMIT
			r.is("1 ann " + at)
		}
	}
}
