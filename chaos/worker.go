package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the referees' driver
	"golang.org/x/sys/unix"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/step"
)

// task is what a worker process is told by its environment.
type task struct {
	Name    string // of the process; a new one for each start
	Seed    uint64
	Cached  string // DSN for cachedpg
	Plain   string // DSN for pgx
	Log     string // file
	Readers int    // clients that read through the cache
	Writers int
	Judges  int // clients that read past the cache
}

const taskVariable = "CACHEDPG_CHAOS_TASK"

// The words between the processes, a line each. Everything else that the
// parent does to a worker is done by signals.
const (
	sayReady   = "ready"   // a worker that is connected
	sayArm     = "arm"     // … signal step: send it to yourself when you come to that step
	sayDisarm  = "disarm"  // forget it
	sayPrepare = "prepare" // leave a prepared transaction
	sayStop    = "stop"    // end what you are doing
	sayFinish  = "finish"  // commit or roll back what others have prepared
	saySweep   = "sweep"   // see that all is well
	sayDone    = "done"    // … and what was found
)

// worker is one process.
type worker struct {
	task
	cached, plain *sql.DB
	log           *recorder
	stop          context.CancelFunc
	clients       sync.WaitGroup
	written       atomic.Int64 // counts values, which makes them unique
	trap          atomic.Pointer[trap]

	mu  sync.Mutex // guards out
	out io.Writer
}

// trap is where the process is to kill or stop itself.
type trap struct {
	step   string
	signal unix.Signal
}

// runWorker is the main function of a worker process.
func runWorker(in io.Reader, out io.Writer) error {
	w := &worker{out: out}
	if err := json.Unmarshal([]byte(os.Getenv(taskVariable)), &w.task); err != nil {
		return err
	}
	var err error
	if w.log, err = newRecorder(w.Log); err != nil {
		return err
	}
	step.Hook = w.at // before anything is opened
	if w.cached, err = sql.Open("cachedpg", w.Cached); err != nil {
		return err
	}
	defer w.cached.Close()
	if w.plain, err = sql.Open("pgx", w.Plain); err != nil {
		return err
	}
	defer w.plain.Close()
	for _, db := range []*sql.DB{w.cached, w.plain} {
		db.SetMaxOpenConns(6)
		db.SetMaxIdleConns(6)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.stop = cancel
	w.start(ctx)
	w.say(sayReady)

	lines := bufio.NewScanner(in)
	for lines.Scan() { // until the parent is gone
		switch words := strings.Split(lines.Text(), "\t"); words[0] {
		case sayArm:
			t := &trap{step: words[2]}
			if _, err := fmt.Sscan(words[1], &t.signal); err != nil {
				return err
			}
			w.trap.Store(t)
		case sayDisarm:
			w.trap.Store(nil)
			w.say(sayDone)
		case sayPrepare:
			ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
			w.prepare(ctx, rand.New(rand.NewPCG(w.Seed, 0)))
			cancel()
			w.say(sayDone)
		case sayStop:
			w.trap.Store(nil)
			w.stop()
			w.clients.Wait()
			w.say(sayDone)
		case sayFinish:
			if err := w.finishAll(); err != nil {
				return err
			}
			w.say(sayDone)
		case saySweep:
			w.sweep()
			w.tally()
			w.say(sayDone)
		}
	}
	return lines.Err()
}

func (w *worker) say(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintln(w.out, line)
}

// at is called at every step of a read and a write.
func (w *worker) at(name string) {
	t := w.trap.Load()
	if t != nil && t.step == name && w.trap.CompareAndSwap(t, nil) {
		// To this very thread, so that it does not run on for a moment.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), t.signal)
	}
}

// The longest pauses of a client between two operations.
const (
	readPace    = 8 * time.Millisecond
	writePace   = 800 * time.Millisecond
	finishPace  = 300 * time.Millisecond
	troublePace = 300 * time.Millisecond // after one that failed
	opTimeout   = 8 * time.Second        // longer than any fault that heals by itself
)

// start starts the clients.
func (w *worker) start(ctx context.Context) {
	n := uint64(0)
	client := func(pace time.Duration, do func(context.Context, *rand.Rand) outcome) {
		n++
		rng := rand.New(rand.NewPCG(w.Seed, n))
		w.clients.Go(func() {
			for ctx.Err() == nil {
				// Not of ctx: cut short by the end, it would be of unknown outcome.
				op, cancel := context.WithTimeout(context.Background(), patience(rng))
				wait := pace
				if do(op, rng) != ok {
					wait = troublePace
				}
				cancel()
				rest(ctx, time.Duration(rng.Int64N(int64(wait))))
			}
		})
	}
	for range w.Readers {
		client(readPace, func(ctx context.Context, rng *rand.Rand) outcome { return w.read(ctx, w.cached, "", pick(rng)) })
	}
	for range w.Writers {
		client(writePace, w.write)
	}
	for range w.Judges {
		client(2*readPace, func(ctx context.Context, rng *rand.Rand) outcome { return w.read(ctx, w.plain, "referee: ", pick(rng)) })
	}
	if w.Writers > 0 {
		client(finishPace, func(ctx context.Context, _ *rand.Rand) outcome { return w.finish(ctx) })
	}
	w.clients.Go(func() { // what a process that is killed has counted until then
		for ctx.Err() == nil {
			w.tally()
			rest(ctx, time.Second/2)
		}
	})
}

// patience is how long a client waits for an operation. Some give up early, in
// the middle of it or of what it waits for.
func patience(rng *rand.Rand) time.Duration {
	switch rng.IntN(50) {
	case 0:
		return time.Duration(rng.Int64N(int64(5 * time.Millisecond)))
	case 1, 2:
		return time.Duration(rng.Int64N(int64(lease)))
	}
	return opTimeout
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// read asks and writes down what it got. An error says nothing of the rows.
func (w *worker) read(ctx context.Context, on asker, who string, q query) outcome {
	_, o := w.saw(ctx, on, who, q)
	return o
}

func (w *worker) saw(ctx context.Context, on asker, who string, q query) (values, outcome) {
	op := w.log.invoke(record{What: who + describe(q)})
	found, err := q.ask(ctx, on)
	if err != nil {
		return nil, w.respond(op, record{Outcome: failed})
	}
	return found, w.respond(op, record{Outcome: ok, Saw: found})
}

func describe(q query) string {
	if len(q.args) == 0 {
		return q.text
	}
	return fmt.Sprint(q.text, " ", q.args)
}

// tally are counters of a process.
type tally struct {
	Hits, Misses, Stale, Fills, Unmarked, Unknown, Refilled uint64
	Bypasses                                                map[string]uint64
}

func (w *worker) tally() {
	s := cachedpg.StatsOf(w.cached)
	t := tally{s.Hits, s.Misses, s.Stale, s.Fills, s.Unmarked, s.UnknownOutcome, s.Refilled, s.Bypasses}
	w.log.respond(0, record{Stats: &t})
}

// bad notes something that cannot be, beside what the histories show.
func (w *worker) bad(format string, args ...any) {
	w.log.respond(0, record{Bad: fmt.Sprintf(format, args...)})
}
