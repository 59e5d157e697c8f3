package behind

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

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
// whoever has it will give it up, unless it is the caller's own transaction. A round
// that PostgreSQL has ended as the victim of a deadlock is made again, and is no error of the caller's.
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
