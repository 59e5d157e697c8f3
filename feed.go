package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// WALSetupSQL makes in a database what Config.External = "wal" needs: the
// publication cachedpg, and event triggers that tell of changes of the schema.
// It can be run again. It needs a superuser, gives tables without a primary key
// REPLICA IDENTITY FULL, and PostgreSQL 14 or newer.
const WALSetupSQL = walfeed.SetupSQL

// FeedStats is what this process knows of the feed from the write-ahead log.
type FeedStats struct {
	// Live: the log is being followed, by this process or, with a shared store,
	// by the one that leads. While it is not, reads go to PostgreSQL.
	Live bool

	// Leader: it is this process that follows.
	Leader bool

	// Problem is why the log is not followed now; "" while it is.
	Problem string

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
	guard guard
	live  atomic.Bool

	leads   atomic.Bool
	ever    atomic.Bool // live once
	checked chan struct{}

	mu      sync.Mutex // guards the fields below
	problem error
	stats   FeedStats
	handled uint64    // LSN of the last transaction
	once    sync.Once // closes checked

	// left are transactions whose marks a follower has left behind. Of its
	// goroutine alone.
	left []*followed

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
	f := &feed{space: sp, checked: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	f.guard.id = sp.key.identity
	f.guard.add(d)
	go f.run(ctx)
	return f
}

func (f *feed) close() {
	f.cancel()
	<-f.done
	f.guard.close()
}

// run follows until ctx ends, and begins again after each gap.
func (f *feed) run(ctx context.Context) {
	defer close(f.done)
	wait := feedMinWait
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if errors.Is(err, errFollower) {
			_ = sleep(ctx, watchEvery/2+rand.N(watchEvery/2))
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
		_ = sleep(ctx, wait)
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
		if taken, err := f.guard.yes(ctx, "SELECT "+held(lockLeader)); err != nil {
			return err
		} else if taken {
			live, err := f.guard.yes(ctx, "SELECT "+held(lockFeed))
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
	fl := &follower{
		guard: &f.guard, elect: shared,
		cold: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
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
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			return f.space.store.Intend(ctx, w, tags)
		},
		apply:     f.apply,
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
	for _, t := range fl.pending {
		if t.intended {
			f.left = append(f.left, t)
		}
	}
	return err
}

// apply invalidates what visible transactions have changed.
func (f *feed) apply(ctx context.Context, txs []*followed, behind int64) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, t := range txs {
		if t.everything {
			if err := f.space.invalidateAll(ctx); err != nil {
				return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
			}
		}
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
		f.handled = max(f.handled, t.LSN)
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
	return s
}

// check waits until it is known whether PostgreSQL lets the log be followed, and
// says why not. Once it was followed, a gap is no reason to fail.
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
	defer f.mu.Unlock()
	if f.ever.Load() || f.problem == errFeedStarts {
		return nil
	}
	return f.problem
}

// down reports that reads must not use the store because nobody follows the
// log. In a shared store the lease tells.
func (f *feed) down() bool { return f != nil && f.space.keeper == nil && !f.live.Load() }

// storeReason is the bypass reason of an error of the space's store.
func (sp *space) storeReason(err error) keying.Reason {
	reason := storeReason(err)
	switch {
	case reason != keying.Warming || sp.keeper == nil:
		return reason
	case sp.keeper.feedless.Load():
		return keying.FeedDown
	}
	return sp.peers.reason()
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
		f.guard.add(d)
		return
	}
	sp.feed.Store(newFeed(sp, d))
}

// SetupWAL runs WALSetupSQL in the database of db, whose driver may be this one
// or pgx's.
func SetupWAL(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, WALSetupSQL); err != nil {
		return fmt.Errorf("cachedpg: setting up for cache_external=wal: %w", err)
	}
	return nil
}
