package cachedpg

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
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// FeedStats is what this process knows of the feed from the write-ahead log.
type FeedStats struct {
	// Live: the log is being followed, by this process or, with a shared store,
	// by the one that leads. While it is not, reads go to PostgreSQL.
	Live bool

	// Leader: it is this process that follows.
	Leader bool

	// Problem is why the log is not followed now; "" while it is.
	Problem string

	// LeftOut are the tables, separated by commas, that no replica identity can
	// serve: what reads them goes to PostgreSQL.
	LeftOut string

	Transactions uint64 // that were followed by this process
	Changes      uint64 // rows changed and tables truncated in them
	Gaps         uint64 // times that the log was lost and everything became cold, the start not counted

	// Lag is the time from the commit of the last transaction, by PostgreSQL's
	// clock, until it was invalidated, by ours. Behind is the log in bytes that
	// PostgreSQL had written past it by then.
	Lag    time.Duration
	Behind int64
}

// feed follows the log for a space. With a store in memory each process does;
// its reads bypass while it does not. With a shared store the one that holds the
// lock leads, and no lease is renewed, and so nobody has a hit, unless one
// holds the lock of a feed that is live: see keeper.sure.
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
type feed struct {
	space *space
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
	stats   FeedStats
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

	feedMinWait = 50 * time.Millisecond
	feedMaxWait = 5 * time.Second
)

func newFeed(sp *space, d *connector) *feed {
	ctx, cancel := context.WithCancel(context.Background())
	f := &feed{space: sp, checked: make(chan struct{}), again: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	f.guard.ID = sp.key.Identity
	f.guard.Add(d)
	go f.run(ctx)
	return f
}

func (f *feed) close() {
	f.cancel()
	<-f.done
	f.guard.Close()
}

// run follows until ctx ends, and begins again after each gap.
func (f *feed) run(ctx context.Context) {
	defer close(f.done)
	wait := feedMinWait
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
		if time.Since(began) > feedMaxWait {
			wait = feedMinWait
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
		wait = min(2*wait, feedMaxWait)
	}
}

var errFeedStarts = errors.New("cachedpg: the feed begins when every transaction is over that was open before")

var errFollower = errors.New("cachedpg: another process follows the log")

// fail notes why the log is not followed.
func (f *feed) fail(err error) {
	f.mu.Lock()
	f.problem = err
	f.mu.Unlock()
	f.once.Do(func() { close(f.checked) })
}

// follow leads once, until the log is lost.
func (f *feed) follow(ctx context.Context) error {
	shared := f.space.keeper != nil
	if shared {
		if err := f.inspect(ctx); err != nil {
			return err
		}
		if taken, err := f.guard.Yes(ctx, "SELECT "+held(lockLeader)); err != nil {
			return err
		} else if taken {
			live, err := f.guard.Yes(ctx, "SELECT "+held(lockFeed))
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
		guard: &f.guard, elect: shared,
		cold: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			if err := f.space.invalidateAll(ctx); err != nil {
				return err
			}
			for _, t := range f.left { // they are over, see follower.start
				if err := f.space.store.Release(ctx, t.writer, t.tags); err != nil {
					return err
				}
			}
			f.left = nil
			return nil
		},
		intend: func(ctx context.Context, w store.WriterID, tags []store.Tag) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			return f.space.store.Intend(ctx, w, tags)
		},
		release: func(ctx context.Context, w store.WriterID, tags []store.Tag) error {
			ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
			defer cancel()
			err := f.space.store.Release(ctx, w, tags)
			f.mu.Lock()
			f.handled = f.reached
			f.mu.Unlock()
			return err
		},
		apply: func(ctx context.Context, txs []*followed, behind int64) error {
			return f.apply(ctx, txs, behind, fl.shut == nil)
		},
		noticed:   f.noticed,
		connected: func() { f.fail(errFeedStarts) },
		started: func() {
			f.leads.Store(true)
			f.ever.Store(true)
			f.live.Store(true)
			f.fail(nil)
			if f.space.keeper != nil {
				f.space.keeper.nudge()
			}
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
func (f *feed) inspect(ctx context.Context) error {
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
func (f *feed) apply(ctx context.Context, txs []*followed, behind int64, used bool) error {
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	if slices.ContainsFunc(txs, func(t *followed) bool { return t.everything }) {
		if err := f.space.invalidateAll(ctx); err != nil {
			return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
		}
	}
	for _, t := range txs {
		if err := f.space.store.Release(ctx, t.writer, t.tags); err != nil {
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

// report is what Stats says.
func (f *feed) report() FeedStats {
	if f == nil {
		return FeedStats{}
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

// check waits until it is known whether PostgreSQL lets the log be followed, and
// says why not. Once it was followed, a gap is no reason to fail; that something was
// altered is.
func (f *feed) check(ctx context.Context) error {
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
	if f.ever.Load() || problem == errFeedStarts {
		return nil
	}
	return problem
}

// checkAll is check, and says as well for which tables something is wrong.
func (f *feed) checkAll(ctx context.Context) error {
	if err := f.check(ctx); err != nil || f == nil {
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

// down reports that reads must not use the store because nobody follows the
// log. In a shared store the lease tells.
func (f *feed) down() bool { return f != nil && f.space.keeper == nil && !f.live.Load() }

// storeReason is the bypass reason of an error of the space's store.
func (sp *space) storeReason(err error) keying.Reason {
	reason := storeReason(err)
	if reason == keying.Warming && sp.keeper != nil {
		return sp.keeper.coldBecause()
	}
	return reason
}

// joinFeed makes sure that the log is followed if a connector asks for it. Who
// calls it holds spacesMu.
func (sp *space) joinFeed(d *connector) {
	if d.config.External != externalWAL {
		return
	}
	if sp.keeper != nil {
		sp.keeper.feeds.Store(true)
	}
	if f := sp.feed.Load(); f != nil {
		f.guard.Add(d)
		return
	}
	sp.feed.Store(newFeed(sp, d))
}
