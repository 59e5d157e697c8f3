package behind

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Queue is the way into the queue of a host with relations of the strategy, and what empties it.
// It is safe for concurrent use.
type Queue struct {
	host  Host
	store *redis.Store // the host's

	mu     sync.Mutex // guards the fields below
	wanted uint64     // rounds that were asked for
	done   uint64     // the last of them that a finished round has served
	err    error      // of that round
	barred error      // why the last one that knew it found nothing to be done here
	served chan struct{}
	pos    string          // applied, as far as it is known here
	given  int64           // the highest sequence number that is known to have been given out
	roles  map[string]bool // that queue here; true when PostgreSQL knows of it

	ready atomic.Bool // a round has succeeded: the table is there
	risk  atomic.Pointer[string]

	now, soon chan struct{}
	closing   chan struct{} // closed when no further round is to begin
	stop      context.CancelFunc
	ended     chan struct{}

	queued, applied, dead, drains, lost atomic.Uint64
}

const (
	// batchMost bounds the statements of one transaction.
	batchMost = 256

	// linger is how long the first write waits for others to share its
	// transaction, and lookEvery how often the queue of dead processes is looked at.
	linger    = 10 * time.Millisecond
	lookEvery = time.Second

	// silent is for how long the owner of the queue must not have been seen before
	// another server may take it over. Its processes show that it is alive at every look.
	silent = 5 * time.Second

	// waitingPause is between two questions whether that time is over.
	waitingPause = 50 * time.Millisecond

	// backoffMost bounds the wait after a round that failed.
	backoffMost = 2 * time.Second

	// closeWait bounds what Close waits for. What is not applied by then stays in
	// the queue, for whoever comes next.
	closeWait = 5 * time.Second

	// lockTimeout bounds how long a queued write waits for a lock, so that who
	// waits for the queue while he holds that lock gets an error and not a deadlock.
	lockTimeout = "2s"

	// idleTimeout is how long PostgreSQL waits for an applier in the middle of a batch.
	idleTimeout = "10s"

	// MaxEntry bounds an entry of the queue, and with batchMost and
	// Host.Max what the queue takes of the memory of a process and of Redis.
	MaxEntry = 64 << 10
)

var (
	// ErrRowsAffected is the answer of a Result.
	ErrRowsAffected = errors.New("cachedpg: RowsAffected is not known: the statement was queued by strategy \"write-behind\" and runs later;" +
		" run it in a transaction where the number is needed")
	// ErrLock is what a transaction gets that may itself hold up what it waits for.
	ErrLock = errors.New("cachedpg: write-behind: a queued write that must come first waits for a lock, which this transaction may hold; end it and try again")
)

// New returns the queue of a host, and begins to empty it.
func New(host Host) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Queue{host: host, store: host.Store, served: make(chan struct{}), now: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		closing: make(chan struct{}), stop: cancel, ended: make(chan struct{}), roles: make(map[string]bool)}
	go b.run(ctx)
	return b
}

// Close drains the queue as far as there is time. It is an error if something is
// left, or may be: it is in no PostgreSQL until somebody comes.
func (b *Queue) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	err := b.Drain(ctx, false)
	close(b.closing)
	select {
	case <-b.ended:
	case <-ctx.Done(): // a round that is cut off leaves its marks to whoever meets them
	}
	b.stop()
	<-b.ended
	if err != nil {
		err = fmt.Errorf("cachedpg: write-behind: writes may be left in the queue; the next process with this configuration applies them: %v", err)
	}
	return err
}

// Drain returns when everything is applied that was in the queue when it was called. inTx says that
// the caller has a transaction open, which may hold what the queue waits for.
func (b *Queue) Drain(ctx context.Context, inTx bool) error {
	last, owner, err := b.store.Last(ctx)
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return fmt.Errorf("cachedpg: write-behind: the queue cannot be read, so that nobody knows what must come first: %w", err)
	}
	if last == "" {
		return nil
	}
	if b.foreignTo(owner) {
		return nil // what is queued there concerns nobody here
	}
	b.drains.Add(1)
	for {
		b.mu.Lock()
		begun, reached := b.wanted, false
		b.mu.Unlock()
		err := b.ask(ctx, inTx, func() bool {
			reached = !queueLess(b.pos, last)
			return reached || b.done > begun && b.err == nil
		})
		switch {
		case isForeign(err):
			return nil
		case err != nil || reached:
			return err
		}
		// What nobody will ever apply is not waited for: it may have been taken out.
		now, _, err := b.store.Last(ctx)
		switch {
		case err == nil && now == "":
			return nil
		case err == nil && queueLess(now, last):
			last = now
		}
	}
}

// ask has rounds made until one makes enough true, which is called with mu held.
// A round that fails is the caller's error, but for a lock that it waited for in vain:
// whoever has it will give it up, unless it is the caller's own transaction. Nor is it
// the caller's affair that PostgreSQL has chosen the round as the victim of a deadlock.
func (b *Queue) ask(ctx context.Context, inTx bool, enough func() bool) error {
	for {
		b.mu.Lock()
		if enough() {
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		if err := b.once(ctx); err != nil {
			switch {
			case isLockTimeout(err) && inTx:
				return ErrLock
			case isWaiting(err): // it will be known in some seconds whose the queue is
				if err := pause.For(ctx, waitingPause); err != nil {
					return err
				}
			case !isLockTimeout(err) && !isVictim(err):
				return err
			}
		}
	}
}

// once has one round made.
func (b *Queue) once(ctx context.Context) error {
	return b.await(ctx, b.want(), func() bool { return false })
}

// want asks for a round that has not begun.
func (b *Queue) want() (mine uint64) {
	b.mu.Lock()
	b.wanted++
	mine = b.wanted
	b.mu.Unlock()
	pause.End(b.now)
	return mine
}

// await returns the outcome of a round that began after it was asked for, or nil as
// soon as something that b.served tells of is enough.
func (b *Queue) await(ctx context.Context, mine uint64, enough func() bool) error {
	for {
		b.mu.Lock()
		done, err, served := b.done, b.err, b.served
		b.mu.Unlock()
		switch {
		case enough():
			return nil
		case done >= mine:
			return err
		}
		select {
		case <-served:
		case <-b.ended:
			return b.host.Closed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run makes the rounds, one after another.
func (b *Queue) run(ctx context.Context) {
	defer close(b.ended)
	a := applier{b: b}
	defer a.close()
	var failed time.Duration
	for {
		b.mu.Lock()
		mine, asked, pos := b.wanted, b.wanted > b.done || b.err != nil, b.pos // to look does not mend a round that failed
		b.mu.Unlock()
		var more bool
		var err error
		if asked || !a.seen || !b.idle(ctx) || !a.look(ctx) {
			if more, pos, err = a.round(ctx); err != nil {
				err = applyError(err)
			}
		}
		b.mu.Lock()
		b.done, b.err = mine, err
		if err == nil || IsNotOwner(err) || errors.Is(err, errSealed) {
			b.barred = err
		}
		if err == nil {
			b.pos = pos
			b.ready.Store(true)
		}
		b.serveLocked()
		b.mu.Unlock()
		wait := lookEvery
		switch {
		case err != nil:
			failed = min(max(2*failed, linger), backoffMost)
			wait = failed
		case more:
			wait, failed = 0, 0
		default:
			failed = 0
		}
		if !b.pause(ctx, wait, err == nil) {
			return
		}
	}
}

// serveLocked wakes those who wait.
func (b *Queue) serveLocked() {
	close(b.served)
	b.served = make(chan struct{})
}

// applyError is what a round's failure is to those who wait for it. It never is
// backend.ErrBadConn: their own connections are as good as they were.
func applyError(err error) error {
	switch {
	case IsNotOwner(err):
		return err
	case errors.Is(err, backend.ErrBadConn):
		return errors.New("cachedpg: write-behind: the connection broke over which queued writes are applied")
	case strings.HasPrefix(err.Error(), "cachedpg: "):
		return err
	}
	return fmt.Errorf("cachedpg: write-behind: queued writes cannot be applied: %w", err)
}

// idle reports that nothing is in the queue, so that PostgreSQL need not be bothered.
func (b *Queue) idle(ctx context.Context) bool {
	last, _, err := b.store.Last(ctx)
	return err == nil && last == ""
}

// pause waits until a round is due; false when there are no more.
func (b *Queue) pause(ctx context.Context, wait time.Duration, healthy bool) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	soon := b.soon
	if !healthy {
		soon = nil // more of them do not make PostgreSQL answer earlier
	}
	for {
		select {
		case <-timer.C:
			return ctx.Err() == nil
		case <-b.now:
			return true
		case <-soon:
			timer.Reset(linger)
			soon = nil
		case <-b.closing:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// queueLess reports that one id comes before the other; "" comes before all.
func queueLess(a, b string) bool {
	ams, an, _ := redis.ParseQueueID(a)
	bms, bn, _ := redis.ParseQueueID(b)
	return ams < bms || ams == bms && an < bn
}
