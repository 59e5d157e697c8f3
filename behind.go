package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Strategy "write-behind": a statement returns when Redis has queued it, and
// PostgreSQL runs it later. Four rules make that as good as a commit for
// whoever reads through the driver:
//
//  1. To queue a write and to give its tags new stamps is one step of Redis'.
//  2. A SELECT that may read such a table is sent after a look into the queue
//     that came after its stamps were read; what is there is applied first. A hit
//     needs no look.
//  3. A write is applied as any other write: its tags are marked before COMMIT.
//  4. The position in the queue is recorded in the transaction that applies.
//  5. One server of PostgreSQL owns the queue, and applies it alone, see behind_owner.go.
//
// With rules 1 and 2 no entry is older than the queue when it is hit:
//
//	reader                          writer
//	lookup: stamp 1
//	look: the queue is empty
//	                                queue the write, stamp 1 is dead
//	SELECT → old, right for a read that began before
//	fill with stamp 1: never a hit
//
// and the other way round the look finds the write. Nothing needs to be marked
// while it waits, so there is nothing to be lost but the queue itself.
//
// The naive form invalidates and queues in two steps, and does not look:
//
//	reader                          writer
//	                                delete the entry
//	                                queue the write, acknowledged
//	miss, SELECT → old, fill old
//	                                (applied, and the entry is old for good)

// writeQueue is what a connector with relations of that strategy has: the way into
// the queue, and the one who empties it. See docs/decisions/write-behind.md.
type writeQueue struct {
	d     *connector
	queue *redis.Store

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
	// behindBatch bounds the statements of one transaction.
	behindBatch = 256

	// behindLinger is how long the first write waits for others to share its
	// transaction, and behindLook how often the queue of dead processes is looked at.
	behindLinger = 10 * time.Millisecond
	behindLook   = time.Second

	// behindSilent is for how long the owner of the queue must not have been seen before
	// another server may take it over. Its processes show that it is alive at every look.
	behindSilent = 5 * time.Second

	// behindWaiting is between two questions whether that time is over.
	behindWaiting = 50 * time.Millisecond

	// behindBackoff bounds the wait after a round that failed.
	behindBackoff = 2 * time.Second

	// behindClose bounds what Close waits for. What is not applied by then stays in
	// the queue, for whoever comes next.
	behindClose = 5 * time.Second

	// behindLock bounds how long a queued write waits for a lock, so that who
	// waits for the queue while he holds that lock gets an error and not a deadlock.
	behindLock = "2s"

	// behindIdle is how long PostgreSQL waits for an applier in the middle of a batch.
	behindIdle = "10s"

	// maxQueued bounds an entry of the queue, and with behindBatch and
	// Config.QueueMax what the queue takes of the memory of a process and of Redis.
	maxQueued = 64 << 10
)

var (
	errRowsAffected = errors.New("cachedpg: RowsAffected is not known: the statement was queued by strategy \"write-behind\" and runs later;" +
		" run it in a transaction where the number is needed")
	errBehindLock = errors.New("cachedpg: write-behind: a queued write that must come first waits for a lock, which this transaction may hold; end it and try again")
)

func newWriteQueue(d *connector, queue *redis.Store) *writeQueue {
	ctx, cancel := context.WithCancel(context.Background())
	b := &writeQueue{d: d, queue: queue, served: make(chan struct{}), now: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		closing: make(chan struct{}), stop: cancel, ended: make(chan struct{}), roles: make(map[string]bool)}
	go b.run(ctx)
	return b
}

// writesBehind reports that the configuration has a relation of the strategy.
func (c Config) writesBehind() bool {
	return slices.ContainsFunc(c.Policies, func(p Policy) bool { return p.Strategy == strategyWriteBehind })
}

// close drains the queue as far as there is time. It is an error if something is
// left, or may be: it is in no PostgreSQL until somebody comes.
func (b *writeQueue) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), behindClose)
	defer cancel()
	err := b.drain(ctx, false)
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

// applyBehind finds out whether the shape may wait, and whether what waits must
// come before it. What cannot be seen to leave the queue's relations alone
// comes after the queue.
func (sh *shape) applyBehind(config Config, v *view) {
	if !config.writesBehind() {
		return
	}
	p := sh.plan
	sh.drains = p.Calls || p.Asks || p.Opaque || p.Unknown || slices.Contains(p.Kinds, parser.Begin) ||
		p.Catalog || p.Beyond
	of := func(oid uint32) bool {
		rel := v.snapshot.ByOID(oid)
		return rel == nil || config.hasStrategy(v.snapshot, rel, strategyWriteBehind)
	}
	sh.drains = sh.drains || slices.ContainsFunc(p.Reads(), of) || slices.ContainsFunc(p.WritesTo(), of)
	// A foreign key makes PostgreSQL look into the other table, which the plan does
	// not show: a row may refer to one that is queued, or one that is queued to it.
	for _, oid := range p.WritesTo() {
		if rel := v.snapshot.ByOID(oid); rel != nil {
			sh.drains = sh.drains || slices.ContainsFunc(rel.References, func(r catalog.Reference) bool { return of(r.Table) })
		}
	}
	for rel := range v.snapshot.Relations() {
		if sh.drains || len(p.WritesTo()) == 0 {
			break
		}
		sh.drains = len(rel.References) > 0 && of(rel.OID) &&
			slices.ContainsFunc(rel.References, func(r catalog.Reference) bool { return slices.Contains(p.WritesTo(), r.Table) })
	}
	// A write of a partition that is not named itself is not one that queues.
	if p.Later && len(p.WritesTo()) == 1 {
		if rel := v.snapshot.ByOID(p.WritesTo()[0]); rel != nil {
			policy, own := config.policyOf(v.snapshot, rel)
			sh.behind = own && policy != nil && policy.Strategy == strategyWriteBehind
		}
	}
}

// drain returns when everything is applied that was in the queue when it was called.
func (b *writeQueue) drain(ctx context.Context, inTx bool) error {
	last, owner, err := b.queue.Last(ctx)
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
		now, _, err := b.queue.Last(ctx)
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
func (b *writeQueue) ask(ctx context.Context, inTx bool, enough func() bool) error {
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
				return errBehindLock
			case isWaiting(err): // it will be known in some seconds whose the queue is
				if err := sleep(ctx, behindWaiting); err != nil {
					return err
				}
			case !isLockTimeout(err) && !isVictim(err):
				return err
			}
		}
	}
}

// once has one round made.
func (b *writeQueue) once(ctx context.Context) error {
	return b.await(ctx, b.want(), func() bool { return false })
}

// want asks for a round that has not begun.
func (b *writeQueue) want() (mine uint64) {
	b.mu.Lock()
	b.wanted++
	mine = b.wanted
	b.mu.Unlock()
	notify(b.now)
	return mine
}

// await returns the outcome of a round that began after it was asked for, or nil as
// soon as something that b.served tells of is enough.
func (b *writeQueue) await(ctx context.Context, mine uint64, enough func() bool) error {
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
			return errClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run makes the rounds, one after another.
func (b *writeQueue) run(ctx context.Context) {
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
		if err == nil || isNotOwner(err) || errors.Is(err, errQueueSealed) {
			b.barred = err
		}
		if err == nil {
			b.pos = pos
			b.ready.Store(true)
		}
		b.serveLocked()
		b.mu.Unlock()
		wait := behindLook
		switch {
		case err != nil:
			failed = min(max(2*failed, behindLinger), behindBackoff)
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
func (b *writeQueue) serveLocked() {
	close(b.served)
	b.served = make(chan struct{})
}

// applyError is what a round's failure is to those who wait for it. It never is
// driver.ErrBadConn: their own connections are as good as they were.
func applyError(err error) error {
	switch {
	case isNotOwner(err):
		return err
	case errors.Is(err, driver.ErrBadConn):
		return errors.New("cachedpg: write-behind: the connection broke over which queued writes are applied")
	case strings.HasPrefix(err.Error(), "cachedpg: "):
		return err
	}
	return fmt.Errorf("cachedpg: write-behind: queued writes cannot be applied: %w", err)
}

// idle reports that nothing is in the queue, so that PostgreSQL need not be bothered.
func (b *writeQueue) idle(ctx context.Context) bool {
	last, _, err := b.queue.Last(ctx)
	return err == nil && last == ""
}

// pause waits until a round is due; false when there are no more.
func (b *writeQueue) pause(ctx context.Context, wait time.Duration, healthy bool) bool {
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
			timer.Reset(behindLinger)
			soon = nil
		case <-b.closing:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// queueLess reports that one id comes before the other; "" comes before all.
func queueLess(a, b string) bool {
	ams, an, _ := redis.ParseQueueID(a)
	bms, bn, _ := redis.ParseQueueID(b)
	return ams < bms || ams == bms && an < bn
}
