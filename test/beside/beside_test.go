package beside

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	duration = flag.Duration("beside.duration", 20*time.Second, "how long applications are made up")
	seed     = flag.Uint64("beside.seed", 0, "seed of the first application; 0 takes one from the clock")
)

// bound is how much longer than with pgx a statement may take. A writer that cannot
// reach its Redis waits for the end of a lease (2 s and a margin), whoever finds no catalog
// for 1 s, and who finds no answer of Redis for its time-out (500 ms); each of them may
// happen to one statement once. The rest is for machines that do much else. What
// stalls lasts until the statement has returned, so who waits for it takes longer than this.
const bound = 20 * time.Second

// stepsOf is how long an application is.
const stepsOf = 60

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The rule: the driver's own work is nobody's debt. It is not done under a caller's
// deadline, settings, transaction or role, and queries go to PostgreSQL meanwhile.
func TestNothingFailsOrWaitsThatDoesNotWithPgx(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	apps, steps := 0, 0
	for end := time.Now().Add(*duration); time.Now().Before(end) || apps < len(circumstances); apps++ {
		n := first + uint64(apps)
		var script strings.Builder
		if !t.Run(fmt.Sprint("seed ", n), func(t *testing.T) {
			steps += run(t, n, circumstances[n%uint64(len(circumstances))], &script)
		}) {
			t.Fatalf("again: go test -run '^%s$' -beside.seed=%d -beside.duration=1ns ./test/beside\n%s", t.Name(), n, &script)
		}
	}
	t.Logf("%d applications, %d steps", apps, steps)
}

// run makes up an application and does it with both drivers, step by step.
func run(t *testing.T, seed uint64, c circumstance, script *strings.Builder) (steps int) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), c: c}
	fmt.Fprintf(script, "%s\n", c)
	w := newWorld(t, g, c, script)
	for steps = range stepsOf {
		w.stall(steps)
		s := g.next()
		fmt.Fprintf(script, "%s\n", s)
		want, took := w.pgx.do(s)
		g.learn(s, want)
		deadline := took + bound
		got, ok := w.cached.within(s, deadline)
		switch {
		case !ok:
			w.unstall()
			t.Fatalf("step %d, %s: takes longer than %v, pgx %v (%s)", steps, s, deadline, took, want)
		case !got.as(want):
			w.unstall()
			t.Fatalf("step %d, %s:\ngot  %s\npgx: %s", steps, s, got, want)
		}
	}
	w.unstall()
	return steps
}

// within does a step, and reports whether that took no longer than the deadline.
func (a *app) within(s step, deadline time.Duration) (outcome, bool) {
	done := make(chan outcome, 1)
	go func() {
		o, _ := a.do(s)
		done <- o
	}()
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case o := <-done:
		return o, true
	case <-timer.C:
		a.cancel() // so that the test can end
		return <-done, false
	}
}

// do does a step and says how long it took.
func (a *app) do(s step) (outcome, time.Duration) {
	ctx := a.ctx
	if s.tenant != "" {
		ctx = context.WithValue(ctx, tenantKey{}, s.tenant)
	}
	if s.deadline > 0 {
		deadline, cancel := context.WithTimeout(ctx, s.deadline)
		defer cancel()
		ctx = deadline
	}
	if s.abandoned {
		running, cancel := context.WithCancel(ctx)
		defer cancel()
		ctx = running
		go a.abandon(ctx, s.sql, cancel)
	}
	began := time.Now()
	o := a.step(ctx, s)
	return o, time.Since(began)
}

// abandon cancels once PostgreSQL runs the statement: a deadline may have passed before
// that, and then the connection is as good as it was.
func (a *app) abandon(ctx context.Context, sql string, cancel func()) {
	for running := false; !running && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		err := a.super.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND state = 'active' AND wait_event = 'PgSleep' AND query = $2)",
			a.name, sql).Scan(&running)
		if err != nil {
			break
		}
	}
	cancel()
}
