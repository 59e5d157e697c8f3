//go:build unix

package behind

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/step"
)

const perLife = 20

// TestTheOneThatIsKilled is the process that TestAProcessKilledAtAnyStep… kills:
// it queues writes until it comes to a step.
func TestTheOneThatIsKilled(t *testing.T) {
	f := harness.NewVictim(t)
	release := heldQueue(f.Fixture)
	if f.At == step.Queued {
		f.Arm(perLife)
	} else {
		f.Arm(1)
	}
	for i := range perLife {
		if i == perLife/2 && f.At != step.Queued {
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
	f.Drained()
	dead := inside.Queue(f.Via.DB).Store().DeadLetters()
	f.DB.Close()
	steps := []string{step.Queued, step.Executed, step.Marked, step.Applied, step.Committed, step.Recorded, step.Released}
	refused := 0
	for life, at := range steps {
		said := f.Killed("TestTheOneThatIsKilled", at)
		if (at != step.Queued) != strings.Contains(said, "queued\n") {
			t.Fatalf("%s: %s", at, said)
		}
		if at != step.Queued {
			refused++
		}
		db := f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
		f.Live(db)
		v := f.Asking(db)
		v.Drained()
		n := v.Read(db, readHit, []any{1}).String()
		length, err := r.Client().XLen(f.Ctx, dead).Result()
		if err != nil {
			t.Fatal(err)
		}
		queued, err := r.Client().XLen(f.Ctx, inside.Queue(v.DB).Store().QueueName()).Result()
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
	f.Drained()
	f.DB.Close()
	stopped := f.Stopped("TestTheOneThatIsKilled", step.Applied)
	db := f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
	f.Live(db)
	v := f.Asking(db)
	f.Until("PostgreSQL to end its transaction", func() bool {
		got := v.Read(db, readHit, []any{1})
		return got.Err == nil && got.String() == fmt.Sprint(perLife)
	})
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	v.Exec(countHit, 1)
	v.Drained()
	v.Fresh(readHit, 1).Is(fmt.Sprint(perLife + 1))
}
