package invalidation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store"
)

// Options configures a Coordinator. The zero value means the defaults.
type Options struct {
	// Local says that the store is in this process: Release is done when it
	// returns. Otherwise a release goes its way in the background.
	Local bool

	// MinWait and MaxWait bound the back-off between two attempts to resolve or
	// to release: it starts at MinWait and doubles. 0 is 20 ms and 5 s.
	MinWait, MaxWait time.Duration

	// Timeout bounds one attempt, and how long Close waits for releases that are
	// under way. 0 is 5 s.
	Timeout time.Duration
}

// Coordinator carries the intents of this process's writers through to their
// release. It is safe for concurrent use. It runs goroutines only while a
// release is under way or an outcome unknown.
type Coordinator struct {
	store    store.Store
	local    bool
	timeout  time.Duration
	resolver *retrier // asks for unknown outcomes
	releaser *retrier // repeats releases that the store did not take

	ctx    context.Context // of releases; cancelled when Close has waited long enough
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool           // no goroutine starts any more
	inflight sync.WaitGroup // first attempts to release; Add only with mu held and closed false

	pending  atomic.Int64
	intents  atomic.Uint64
	spared   atomic.Uint64
	releases atomic.Uint64
	failures atomic.Uint64
}

// New returns a Coordinator of writers to s. It does not own s: close the
// Coordinator first.
func New(s store.Store, o Options) *Coordinator {
	orDefault := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orDefault(&o.MinWait, 20*time.Millisecond)
	orDefault(&o.MaxWait, 5*time.Second)
	orDefault(&o.Timeout, 5*time.Second)
	c := &Coordinator{store: s, local: o.Local, timeout: o.Timeout}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.resolver = newRetrier(context.Background(), o)
	c.releaser = newRetrier(c.ctx, o)
	return c
}

// Begin returns a write with an id of its own (I6), by which nobody else can
// find out whether it is over. It costs the store nothing until it intends
// something, and may be forgotten until then.
func (c *Coordinator) Begin() *Write { return c.BeginAs(store.NewWriter()) }

// BeginAs is Begin with an id that was never used before.
func (c *Coordinator) BeginAs(id store.WriterID) *Write { return &Write{c: c, id: id} }

// Kick makes the resolver ask at once for every unknown outcome, and the
// pending releases be tried, instead of at the end of their back-off.
func (c *Coordinator) Kick() {
	c.resolver.kick()
	c.releaser.kick()
}

// Close gives up the unknown outcomes, whose tags stay dirty for as long as the
// store lives (while Stats.Unresolved is not zero, no new empty store may take
// its place), and waits for releases under way, at most Options.Timeout. The
// error says how many writes have left intents in the store. Writes may go on
// after Close; a release is then tried once, before Release returns.
func (c *Coordinator) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	left := c.resolver.close(true)
	abort := time.AfterFunc(c.timeout, c.cancel)
	defer abort.Stop()
	c.inflight.Wait()
	left += c.releaser.close(false)
	c.cancel()
	if left > 0 {
		return fmt.Errorf("cachedpg: the tags of %d writes stay marked in the store", left)
	}
	return nil
}

// Stats are counters of writes since New, and gauges of now.
type Stats struct {
	Intents          uint64 // successful calls of Intend that marked something
	Spared           uint64 // intents that were taken back
	Releases         uint64 // writes whose release the store took
	ReleaseFailures  uint64 // attempts to release that the store did not take
	Pending          int    // writes with a known outcome that are not released yet
	Unresolved       int    // writes with an unknown outcome
	OldestUnresolved time.Duration
}

// Stats returns the state at about this moment.
func (c *Coordinator) Stats() Stats {
	s := Stats{
		Intents:         c.intents.Load(),
		Spared:          c.spared.Load(),
		Releases:        c.releases.Load(),
		ReleaseFailures: c.failures.Load(),
		Pending:         int(c.pending.Load()),
	}
	s.Unresolved, s.OldestUnresolved = c.resolver.state()
	return s
}

// settle releases a write whose outcome is known (I4). told is closed after the
// first attempt.
func (c *Coordinator) settle(w *Write, told chan<- struct{}) {
	c.pending.Add(1)
	if c.local {
		if !c.release(context.Background(), w) {
			c.retry(w)
		}
		tell(told)
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.first(context.Background(), w)
		tell(told)
		return
	}
	c.inflight.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.inflight.Done()
		c.first(c.ctx, w)
		tell(told)
	}()
}

func tell(told chan<- struct{}) {
	if told != nil {
		close(told)
	}
}

// first tries to release to a store that may be slow.
func (c *Coordinator) first(ctx context.Context, w *Write) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if !c.release(ctx, w) {
		c.retry(w)
	}
}

// retry has the release repeated until the store takes it (I11).
func (c *Coordinator) retry(w *Write) {
	c.releaser.add(func(ctx context.Context) bool { return c.release(ctx, w) })
}

func (c *Coordinator) release(ctx context.Context, w *Write) bool {
	if err := c.store.Release(ctx, w.id, w.tags.Tags()); err != nil {
		c.failures.Add(1)
		return false
	}
	c.pending.Add(-1)
	c.releases.Add(1)
	step.At(step.Released)
	return true
}
