package feed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/store"
)

// Stats is cachedpg.FeedStats.
type Stats struct {
	Live         bool
	Leader       bool
	Problem      string
	LeftOut      string
	Transactions uint64
	Changes      uint64
	Gaps         uint64
	Lag          time.Duration
	Behind       int64
}

// Feed follows the log for a cache. With a store in memory each process does;
// its reads bypass while it does not. With a shared store the one that holds the
// lock leads, and no lease is renewed, and so nobody has a hit, unless one
// holds the lock of a feed that is live: the host sees to that.
//
//	leader                     another process            store
//	killed; its locks end
//	                                                      the lease stands: hits
//	                           psql commits
//	                           renewal: no feed
//	                                                      the lease ends: cold
//	                           takes the lock, a slot,
//	                           new schema stamp: live
//
// Both locks belong to the replication connection, so they end with the slot: a
// leader that is stopped and not dead loses them within walfeed.Silence.
type Feed struct {
	host  Host
	guard guard.Guard
	live  atomic.Bool

	out     atomic.Pointer[walfeed.Out] // the tables that are not followed
	leads   atomic.Bool
	ever    atomic.Bool // live once
	checked chan struct{}
	again   chan struct{} // what was wrong is mended

	mu      sync.Mutex // guards the fields below
	problem error
	found   inspection
	stats   Stats
	handled uint64    // LSN of the last transaction after which the cache is used
	reached uint64    // of the last one
	once    sync.Once // closes checked

	// left are transactions whose marks a follower has left behind. Of its
	// goroutine alone.
	left      []*followed
	inspected time.Time // of that goroutine, too

	cancel context.CancelFunc
	done   chan struct{}
}

const (
	// watchEvery is how often those who do not lead look whether they should.
	watchEvery = 500 * time.Millisecond

	minWait = 50 * time.Millisecond
	maxWait = 5 * time.Second
)

// New begins to follow the log.
func New(h Host) *Feed {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Feed{host: h, checked: make(chan struct{}), again: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	f.guard.ID = h.ID
	f.guard.Add(h.Dialler)
	go f.run(ctx)
	return f
}

// Join has d dial for the feed too.
func (f *Feed) Join(d guard.Dialler) { f.guard.Add(d) }

// Forget ends what Join, or New, began.
func (f *Feed) Forget(d guard.Dialler) { f.guard.Remove(d) }

// Cancel ends the feed, and does not wait for that.
func (f *Feed) Cancel() { f.cancel() }

// Close ends the feed.
func (f *Feed) Close() {
	f.cancel()
	<-f.done
	f.guard.Close()
}

// run follows until ctx ends, and begins again after each gap.
func (f *Feed) run(ctx context.Context) {
	defer close(f.done)
	wait := minWait
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if errors.Is(err, errFollower) {
			_ = pause.For(ctx, watchEvery/2+rand.N(watchEvery/2))
			continue
		}
		f.live.Store(false) // before anything else: reads bypass
		if f.leads.Swap(false) && ctx.Err() == nil {
			f.mu.Lock()
			f.stats.Gaps++
			f.mu.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		f.fail(err)
		if time.Since(began) > maxWait {
			wait = minWait
		}
		var wrong *walfeed.ConfigError
		if errors.As(err, &wrong) {
			wait = min(wait, inspectEvery) // one question tells whether it was mended
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-f.again:
		case <-ctx.Done():
		}
		timer.Stop()
		wait = min(2*wait, maxWait)
	}
}

var errStarts = errors.New("cachedpg: the feed begins when every transaction is over that was open before")

var errFollower = errors.New("cachedpg: another process follows the log")

// fail notes why the log is not followed.
func (f *Feed) fail(err error) {
	f.mu.Lock()
	f.problem = err
	f.mu.Unlock()
	f.once.Do(func() { close(f.checked) })
}

// follow leads once, until the log is lost.
func (f *Feed) follow(ctx context.Context) error {
	shared := f.host.Shared
	if shared {
		if err := f.inspect(ctx); err != nil {
			return err
		}
		if taken, err := f.guard.Yes(ctx, "SELECT "+guard.Held(guard.LockLeader)); err != nil {
			return err
		} else if taken {
			live, err := f.guard.Yes(ctx, "SELECT "+guard.Held(guard.LockFeed))
			if err != nil {
				return err
			}
			if f.live.Store(live); live {
				f.ever.Store(true)
				f.fail(nil)
			}
			return errFollower
		}
	}
	var fl *follower
	fl = &follower{
		guard: &f.guard, elect: shared, everything: f.host.Everything,
		cold: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			if err := f.host.Cache.InvalidateAll(ctx); err != nil {
				return err
			}
			for _, t := range f.left { // they are over, see follower.start
				if err := f.host.Cache.Release(ctx, t.writer, t.tags); err != nil {
					return err
				}
			}
			f.left = nil
			return nil
		},
		intend: func(ctx context.Context, w store.WriterID, tags []store.Tag) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			return f.host.Cache.Intend(ctx, w, tags)
		},
		release: func(ctx context.Context, w store.WriterID, tags []store.Tag) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			err := f.host.Cache.Release(ctx, w, tags)
			f.mu.Lock()
			f.handled = f.reached
			f.mu.Unlock()
			return err
		},
		apply: func(ctx context.Context, txs []*followed, behind int64) error {
			return f.apply(ctx, txs, behind, fl.shut == nil)
		},
		noticed:   f.noticed,
		connected: func() { f.fail(errStarts) },
		started: func() {
			f.leads.Store(true)
			f.ever.Store(true)
			f.live.Store(true)
			f.fail(nil)
			f.host.Live()
		},
	}
	err := fl.run(ctx)
	if fl.shut != nil {
		f.left = append(f.left, fl.shut)
	}
	for _, t := range fl.pending {
		if t.intended {
			f.left = append(f.left, t)
		}
	}
	return err
}

// inspect looks for one that may not lead, and so hears nothing of changes.
func (f *Feed) inspect(ctx context.Context) error {
	if time.Since(f.inspected) < inspectEvery {
		return nil
	}
	f.mu.Lock()
	before := f.found
	f.mu.Unlock()
	found, err := inspect(ctx, &f.guard, before, false)
	if err != nil {
		return err
	}
	f.inspected = time.Now()
	return f.noticed(ctx, found)
}

// apply invalidates what visible transactions have changed. The cache is used
// after it, unless the follower withholds it.
func (f *Feed) apply(ctx context.Context, txs []*followed, behind int64, used bool) error {
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	if slices.ContainsFunc(txs, func(t *followed) bool { return t.everything }) {
		if err := f.host.Cache.InvalidateAll(ctx); err != nil {
			return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
		}
	}
	for _, t := range txs {
		if err := f.host.Cache.Release(ctx, t.writer, t.tags); err != nil {
			return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
		}
	}
	step.At(step.Fed)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range txs {
		f.stats.Transactions++
		f.stats.Changes += t.Changes
		f.stats.Lag = time.Since(t.Committed)
		f.reached = max(f.reached, t.LSN)
	}
	if used {
		f.handled = f.reached
	}
	f.stats.Behind = behind
	return nil
}

// Report is what Stats says.
func (f *Feed) Report() Stats {
	if f == nil {
		return Stats{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Live, s.Leader = f.live.Load(), f.leads.Load()
	if f.problem != nil && !s.Live {
		s.Problem = f.problem.Error()
	}
	if f.found.out != nil {
		s.LeftOut = f.found.out.Names
	}
	return s
}

// Check waits until it is known whether PostgreSQL lets the log be followed, and
// says why not. Once it was followed, a gap is no reason to fail; that something was
// altered is.
func (f *Feed) Check(ctx context.Context) error {
	if f == nil {
		return nil
	}
	select {
	case <-f.checked:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	problem := f.problem
	f.mu.Unlock()
	var wrong *walfeed.ConfigError
	var altered *badConfig
	switch {
	case errors.As(problem, &altered):
		_, err := inspect(ctx, &f.guard, inspection{}, false)
		if !errors.As(err, &altered) { // mended since
			select {
			case f.again <- struct{}{}:
			default:
			}
			return nil
		}
		return err
	case errors.As(problem, &wrong):
		return problem
	}
	if f.ever.Load() || problem == errStarts {
		return nil
	}
	return problem
}

// CheckAll is Check, and says as well for which tables something is wrong.
func (f *Feed) CheckAll(ctx context.Context) error {
	if err := f.Check(ctx); err != nil || f == nil {
		return err
	}
	f.mu.Lock()
	found := f.found
	f.mu.Unlock()
	if found.refused != nil { // perhaps not any more
		if again, err := inspect(ctx, &f.guard, found, true); err == nil {
			found = again
		}
	}
	return found.err()
}

// Live reports that the log is followed, by this process or, where one leads, by another.
func (f *Feed) Live() bool { return f.live.Load() }

// Handled is the position in the log of the last transaction after which the cache is used.
func (f *Feed) Handled() (lsn uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handled
}

// Down reports that reads must not use the store because nobody follows the
// log. In a shared store the lease tells.
func (f *Feed) Down() bool { return f != nil && !f.host.Shared && !f.live.Load() }
