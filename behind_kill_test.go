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

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/step"
)

const (
	killedDSN = "CACHEDPG_KILLED_DSN"
	killedAt  = "CACHEDPG_KILLED_AT"
	stoppedAt = "CACHEDPG_STOPPED_AT"
	perLife   = 20
)

// TestTheOneThatIsKilled is the process that TestAProcessKilledAtAnyStep… kills:
// it queues writes until it comes to a step.
func TestTheOneThatIsKilled(t *testing.T) {
	dsn := os.Getenv(killedDSN)
	if dsn == "" {
		t.Skip("it is run by another test")
	}
	var armed atomic.Bool
	var queued atomic.Int32
	step.Hook = func(at string) {
		if at == step.Queued {
			queued.Add(1)
		}
		if armed.Load() && at == os.Getenv(stoppedAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		if armed.Load() && at == os.Getenv(killedAt) && (at != step.Queued || queued.Load() == perLife) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	f := &harness.Fixture{T: t, DSN: dsn}
	var cancel context.CancelFunc
	f.Ctx, cancel = context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	f.DB = f.Open("cachedpg", dsn)
	pgDSN, _, err := ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f.Plain = f.Open("pgx", pgDSN)
	f.Via = f.Asking(f.DB)
	f.Live(f.DB)
	release := heldQueue(f)
	armed.Store(true)
	for i := range perLife {
		if i == perLife/2 && os.Getenv(killedAt) != step.Queued {
			f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 2, 2000000) // the check says no
		}
		f.Exec(countHit, 1)
	}
	fmt.Println("queued")
	release()
	select {}
}

// What was acknowledged is applied once, and what was refused is dead once,
// whoever dies in between.
func TestAProcessKilledAtAnyStepLosesNoQueuedWriteAndRepeatsNone(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind")
	drained(f.Via)
	dead := writeQueueOf(f.Via).Store().DeadLetters()
	f.DB.Close()
	steps := []string{step.Queued, step.Executed, step.Marked, step.Applied, step.Committed, step.Recorded, step.Released}
	refused := 0
	for life, at := range steps {
		cmd := exec.CommandContext(f.Ctx, os.Args[0], "-test.run=^TestTheOneThatIsKilled$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), killedDSN+"="+harness.WithKeys(f.DSN, f.Keys), killedAt+"="+at)
		said, err := cmd.Output()
		if !strings.Contains(fmt.Sprint(err), "killed") || (at != step.Queued) != strings.Contains(string(said), "queued\n") {
			t.Fatalf("%s: %v\n%s", at, err, said)
		}
		if at != step.Queued {
			refused++
		}
		db := f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
		f.Live(db)
		v := f.Asking(db)
		drained(v)
		n := v.Read(db, readHit, []any{1}).String()
		length, err := r.Client().XLen(f.Ctx, dead).Result()
		if err != nil {
			t.Fatal(err)
		}
		queued, err := r.Client().XLen(f.Ctx, writeQueueOf(v).Store().QueueName()).Result()
		if err != nil || queued != 0 {
			t.Errorf("%s: %d are left in the queue, %v", at, queued, err)
		}
		if n != fmt.Sprint((life+1)*perLife) || int(length) != refused {
			t.Fatalf("%s: n is %s and %d are dead, want %d and %d", at, n, length, (life+1)*perLife, refused)
		}
		db.Close()
	}
}

// A process that is stopped in the middle of a batch is as good as dead to the others,
// after a while, and does nothing a second time when it goes on.
func TestAProcessStoppedInABatchDoesNotStopTheQueue(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind")
	drained(f.Via)
	f.DB.Close()
	cmd := exec.CommandContext(f.Ctx, os.Args[0], "-test.run=^TestTheOneThatIsKilled$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), killedDSN+"="+harness.WithKeys(f.DSN, f.Keys), killedAt+"=", stoppedAt+"="+step.Applied)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	f.Until("it to stop", func() bool {
		var state syscall.WaitStatus
		pid, err := syscall.Wait4(cmd.Process.Pid, &state, syscall.WUNTRACED|syscall.WNOHANG, nil)
		return err == nil && pid == cmd.Process.Pid && state.Stopped()
	})
	db := f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
	f.Live(db)
	v := f.Asking(db)
	f.Until("PostgreSQL to end its transaction", func() bool {
		got := v.Read(db, readHit, []any{1})
		return got.Err == nil && got.String() == fmt.Sprint(perLife)
	})
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	v.Exec(countHit, 1)
	drained(v)
	v.Fresh(readHit, 1).Is(fmt.Sprint(perLife + 1))
}
