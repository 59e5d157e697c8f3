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
	Watch
	Space *Space

	Stands atomic.Bool // a lease
	used   atomic.Bool // a read came by since the last question

	nudged chan struct{} // by a read that is the first since the last question, or has found no lease

	mu      sync.Mutex    // guards the fields below
	Timer   *time.Timer   // ends the lease
	Tried   chan struct{} // closed when PostgreSQL was asked since the lease was found over
	failing bool          // and has not answered

	cancel context.CancelFunc
	done   chan struct{}
}

// watchRetry is how soon a question is repeated that has no answer.
const watchRetry = store.Lease / 8

// newWatchLease asks over the space's guard, as peers do: to dial for each would take longer than what they ask.
func newWatchLease(sp *Space) *WatchLease {
	ctx, cancel := context.WithCancel(context.Background())
	l := &WatchLease{Space: sp, nudged: make(chan struct{}, 1), Tried: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	l.Guard = sp.Guard
	l.reconfigured = sp.Reconfigured
	l.used.Store(true)
	l.Timer = time.AfterFunc(time.Hour, func() { l.Stands.Store(false) })
	l.Timer.Stop()
	go l.run(ctx)
	return l
}

func (l *WatchLease) close() {
	l.cancel()
	<-l.done
	l.Timer.Stop()
	l.Stands.Store(false)
}

func (l *WatchLease) run(ctx context.Context) {
	defer close(l.done)
	for ctx.Err() == nil {
		l.used.Store(false)
		sent := time.Now()
		err := l.Check(ctx)
		l.Conclude(sent, err)
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
	return !l.Stands.Load() && !l.failing
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

// Check asks, and makes everything cold if the catalog is another than what was
// planned with. If that has to be loaded to be known the lease may end meanwhile, and
// begins again when it is: what is cached stays, if it is the same.
func (l *WatchLease) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	for {
		number, err := l.Ask(ctx)
		if err != nil && l.Guard.Lost() { // it may have been closed while nobody used it
			number, err = l.Ask(ctx)
		}
		if err != nil || !l.Space.planned() {
			return err // who loads the catalog now finds that the number has changed
		}
		switch digest, known := l.Digest(number); {
		case known && l.Space.differs(digest):
			return l.Space.InvalidateAll(ctx)
		case known:
			return nil
		}
		select {
		case <-l.Space.Loads.Begin(): // a nil channel if it is too soon for another load
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Conclude begins a lease counted from when the question was sent, or notes that there
// was no answer.
func (l *WatchLease) Conclude(sent time.Time, err error) {
	l.Space.Problems.Note(WorkWatch, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = err != nil && !NobodyThere(err)
	if left := patience.Lease - time.Since(sent); !l.failing && left > 0 {
		l.Timer.Reset(left)
		l.Stands.Store(true)
	}
	select {
	case <-l.Tried:
	default:
		close(l.Tried)
	}
}

// Holds reports that hits are allowed. Who finds no lease asks for a question and
// waits for what comes of it, unless the last one had no answer.
func (l *WatchLease) Holds(ctx context.Context) bool {
	if !l.used.Load() {
		l.used.Store(true)
		l.nudge()
	}
	if l.Stands.Load() {
		return true
	}
	l.mu.Lock()
	select {
	case <-l.Tried:
		if !l.failing {
			l.Tried = make(chan struct{})
		}
	default:
	}
	tried := l.Tried
	l.mu.Unlock()
	l.nudge()
	if !within(ctx, tried, patience.For(ctx, guard.AskTimeout)) && ctx.Err() == nil {
		l.tire(tried)
	}
	return l.Stands.Load()
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
	if l.Tried != tried {
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
	tried := l.Tried
	l.mu.Unlock()
	select {
	case <-tried:
	case <-ctx.Done():
	}
}

// NobodyThere reports that an attempt to connect shows that nobody can: of all
// addresses that were tried.
func NobodyThere(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if !NobodyThere(one) {
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
	return NobodyThere(errors.Unwrap(err))
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
