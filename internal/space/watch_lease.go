package space

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/store"
)

// WatchLease allows hits in the memory of this process for as long as PostgreSQL
// was asked lately whether the catalog has changed: patience.Lease from when the
// question was sent. While queries run it is asked twice in a lease; while none
// does, never, and the first one then waits for the answer. Hits need no clock for
// it: a timer ends the lease.
//
// Where PostgreSQL cannot be asked it matters why. If nobody listens at its address, or it
// says that it is starting or stopping, nobody gets at it there, so that nobody
// can have read anything newer, and hits go on. If there is no answer, or one that
// concerns us alone (a password, the number of connections), others may be changing
// what we do not see, and hits end.
//
//	reader                          watch                   psql
//	                                question is sent at t
//	                                                        ALTER TABLE, COMMIT
//	                                the answer: unchanged
//	hits of the old form, until t + lease
//	                                question, at t + lease/2
//	                                the answer: changed; cold
type WatchLease struct {
	watch
	space *Space

	stands atomic.Bool // a lease
	used   atomic.Bool // a read came by since the last question

	nudged chan struct{} // by a read that is the first since the last question, or has found no lease

	mu      sync.Mutex    // guards the fields below
	timer   *time.Timer   // ends the lease
	tried   chan struct{} // closed when PostgreSQL was asked since the lease was found over
	failing bool          // and has not answered

	cancel context.CancelFunc
	done   chan struct{}
}

// watchRetry is how soon a question is repeated that has no answer.
const watchRetry = store.Lease / 8

// newWatchLease asks over the space's guard, as peers do: to dial for each would take longer than what they ask.
func newWatchLease(sp *Space) *WatchLease {
	ctx, cancel := context.WithCancel(context.Background())
	l := &WatchLease{space: sp, nudged: make(chan struct{}, 1), tried: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	l.guard = sp.Guard
	l.reconfigured = sp.Reconfigured
	l.used.Store(true)
	l.timer = time.AfterFunc(time.Hour, func() { l.stands.Store(false) })
	l.timer.Stop()
	go l.run(ctx)
	return l
}

func (l *WatchLease) close() {
	l.cancel()
	<-l.done
	l.timer.Stop()
	l.stands.Store(false)
}

func (l *WatchLease) run(ctx context.Context) {
	defer close(l.done)
	for ctx.Err() == nil {
		l.used.Store(false)
		sent := time.Now()
		err := l.check(ctx)
		l.conclude(sent, err)
		next := sent.Add(patience.Lease / 2)
		if err != nil {
			next = time.Now().Add(watchRetry)
		}
		for l.pause(ctx, max(0, time.Until(next))) && !l.missed() {
		}
		for !l.used.Load() && ctx.Err() == nil {
			l.pause(ctx, -1)
		}
	}
}

// missed reports that a read waits for a question that need not be put off.
func (l *WatchLease) missed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.stands.Load() && !l.failing
}

// pause waits for a time, without end if it is negative, or until a read nudges.
func (l *WatchLease) pause(ctx context.Context, d time.Duration) (nudged bool) {
	var over <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-l.nudged:
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}

// check asks, and makes everything cold if the catalog is another than what was
// planned with. If that has to be loaded to be known the lease may end meanwhile, and
// begins again when it is: what is cached stays, if it is the same.
func (l *WatchLease) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	for {
		number, err := l.ask(ctx)
		if err != nil && l.guard.Lost() { // it may have been closed while nobody used it
			number, err = l.ask(ctx)
		}
		if err != nil || !l.space.planned() {
			return err // who loads the catalog now finds that the number has changed
		}
		switch digest, known := l.digest(number); {
		case known && l.space.differs(digest):
			return l.space.InvalidateAll(ctx)
		case known:
			return nil
		}
		select {
		case <-l.space.Loads.Begin(): // a nil channel if it is too soon for another load
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// conclude begins a lease counted from when the question was sent, or notes that there
// was no answer.
func (l *WatchLease) conclude(sent time.Time, err error) {
	l.space.Problems.Note(WorkWatch, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = err != nil && !nobodyThere(err)
	if left := patience.Lease - time.Since(sent); !l.failing && left > 0 {
		l.timer.Reset(left)
		l.stands.Store(true)
	}
	select {
	case <-l.tried:
	default:
		close(l.tried)
	}
}

// Holds reports that hits are allowed. Who finds no lease asks for a question and
// waits for what comes of it, unless the last one had no answer.
func (l *WatchLease) Holds(ctx context.Context) bool {
	if !l.used.Load() {
		l.used.Store(true)
		l.nudge()
	}
	if l.stands.Load() {
		return true
	}
	l.mu.Lock()
	select {
	case <-l.tried:
		if !l.failing {
			l.tried = make(chan struct{})
		}
	default:
	}
	tried := l.tried
	l.mu.Unlock()
	l.nudge()
	if !within(ctx, tried, patience.For(ctx, guard.AskTimeout)) && ctx.Err() == nil {
		l.tire(tried)
	}
	return l.stands.Load()
}

func (l *WatchLease) nudge() {
	select {
	case l.nudged <- struct{}{}:
	default:
	}
}

// tire ends the waiting for a question that takes too long, for everybody until it
// is answered.
func (l *WatchLease) tire(tried chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried != tried {
		return
	}
	select {
	case <-tried:
	default:
		l.failing = true
		close(tried)
	}
}

// first waits until PostgreSQL was asked once, so that the catalog which is
// loaded then needs not be loaded again for its digest.
func (l *WatchLease) first(ctx context.Context) {
	l.mu.Lock()
	tried := l.tried
	l.mu.Unlock()
	select {
	case <-tried:
	case <-ctx.Done():
	}
}

// nobodyThere reports that an attempt to connect shows that nobody can: of all
// addresses that were tried.
func nobodyThere(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if !nobodyThere(one) {
				return false
			}
		}
		return len(e.Unwrap()) > 0
	case *pgconn.PgError:
		return e.Code == pgerr.CannotConnectNow
	case syscall.Errno:
		return e == syscall.ECONNREFUSED || e == syscall.ENOENT
	}
	if err == os.ErrNotExist {
		return true
	}
	return nobodyThere(errors.Unwrap(err))
}

// Reconfigured takes in what the watch was told before, and now. When it returns nothing
// is a hit any more that a commit has changed which is not on disk, and every
// session is learned anew.
func (sp *Space) Reconfigured(ctx context.Context, before, now backend.Configuration) {
	known := sp.Asynchronous.Load()
	if now.Apart || now.Mode != backend.CommitSync {
		sp.Asynchronous.Store(true)
	}
	if now.Mode == backend.CommitSync || now.Mode == before.Mode || known && !now.Direct {
		return
	}
	sp.Configured.Add(1)
	sp.chill(ctx, false)
}
