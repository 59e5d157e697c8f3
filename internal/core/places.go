package core

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// A hit asks PostgreSQL nothing, and yet it needs one of database/sql's connections: as many slow
// statements as the pool may have of those hold up every hit. With Config.MaxConns the pool may have as many as
// it likes, and what is bounded is the backends under them. A Conn takes one when it needs PostgreSQL:
//
//	Conn without a backend     ready: takes a place, with a free backend in it, or dials
//	Conn with one              uses it until database/sql has no use for the Conn (Idle), that is until
//	                           the result, the transaction or the sql.Conn is closed
//	                           then gives it back, or is parked with it
//
// Who comes first is served first. A Conn is parked whose session has something that nobody else must find
// there, see keying.Plan.Leaves. It goes on with that when it is used again; if somebody waits for a place before, the
// backend is closed.
//
// Who has a place waits for nobody who may be waiting for one:
//
//	Conn 1, with the only place     Conn 2
//	                                misses, leads, waits for a place
//	misses, follows Conn 2                                              and nobody ever goes on
//
// So it runs its SELECT itself, see Conn.mayWait.

// How long a backend lasts that nobody uses, and one that is used. sql.DB.SetConnMaxIdleTime and
// SetConnMaxLifetime are about Conns.
const (
	backendIdle     = 5 * time.Minute
	backendLifetime = time.Hour
)

// places are what a DB has for backends. It is safe for concurrent use.
type places struct {
	d   *DB
	max int64

	mu     sync.Mutex // guards the fields below, and of a parked Conn its backend
	taken  int64      // by backends, free ones too, and by who dials or is closing one
	free   []*link    // the one given back last at the end
	parked []*Conn    // the one that is so longest first
	queue  []*waiter  // for a place
	closed bool
	timer  *time.Timer // nil, or until the first of free is to be closed

	// lender is the backend of which DB.known is the state, if that holds no longer than it lasts.
	lender *link
	lent   *state

	waits  uint64
	waited time.Duration
}

// placement is a Conn's share of them. Without Config.MaxConns it stays the zero value. The Conn's own goroutine
// changes it; while it is parked others may take its place away, see places.evictLocked.
type placement struct {
	state  placementState
	parked bool // database/sql has no use for the Conn, which keeps its place unless somebody waits for one

	waited  bool // the Conn has waited for its place, since that was asked last (Conn.fill)
	unswept bool // the backend was not in its hands until now, see sweep
}

type placementState uint8

const (
	placementNone  placementState = iota
	placementTaken                // it has one, so far for the driver's own questions
	placementUsed                 // and has run a statement of the caller's
)

func (p *placement) has() bool { return p.state != placementNone }

// uses notes that a statement of the caller's is about to run.
func (p *placement) uses() {
	if p.state == placementTaken {
		p.state = placementUsed
	}
}

// waiter is served before ready is closed.
type waiter struct {
	ready chan struct{}
	b     *link // nil: there is room to dial
}

// take returns a backend that is free, or nil if the caller is to dial one.
func (p *places) take(ctx context.Context) (b *link, waited bool, err error) {
	p.mu.Lock()
	switch {
	case len(p.free) > 0:
		b = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		p.mu.Unlock()
		return b, false, nil
	case p.taken < p.max:
		p.taken++
		p.mu.Unlock()
		return nil, false, nil
	case ctx.Err() != nil:
		p.mu.Unlock()
		return nil, false, ctx.Err()
	}
	w := &waiter{ready: make(chan struct{})}
	p.queue = append(p.queue, w)
	p.waits++
	evicted := p.evictLocked()
	p.mu.Unlock()
	began := time.Now()
	if evicted != nil {
		p.end(evicted) // and serves the first who waits
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	p.waited += time.Since(began)
	i := slices.Index(p.queue, w)
	if err != nil && i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
	p.mu.Unlock()
	switch {
	case err == nil:
		return w.b, true, nil
	case i >= 0:
	case w.b != nil: // served all the same
		p.give(w.b)
	default:
		p.leave()
	}
	return nil, true, err
}

// serveLocked gives a place, with b in it unless that is nil, to the first who waits.
func (p *places) serveLocked(b *link) bool {
	if len(p.queue) == 0 {
		return false
	}
	w := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	w.b = b
	close(w.ready)
	return true
}

// give gives b back.
func (p *places) give(b *link) {
	now := time.Now()
	p.mu.Lock()
	if b.inner.Closed() || now.After(b.until) || p.closed && len(p.queue) == 0 {
		p.mu.Unlock()
		p.end(b)
		return
	}
	defer p.mu.Unlock()
	if p.serveLocked(b) {
		return
	}
	b.freed = now
	p.free = append(p.free, b)
	if p.timer == nil {
		p.timer = time.AfterFunc(backendIdle, p.closeIdle)
	}
}

// suspect has those that are free asked whether they are still there, since one was not: the server may have been
// restarted. database/sql tries no more than three.
func (p *places) suspect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.free {
		b.suspect = true
	}
}

// leave gives a place back that nothing is in.
func (p *places) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.serveLocked(nil) {
		p.taken--
	}
}

// end closes b, and then gives its place back.
func (p *places) end(b *link) {
	_ = b.close()
	p.d.recant(b)
	if in, ok := b.inner.(backend.Wire); ok {
		select {
		case <-in.Ended():
		default: // pgx still calls a statement off, so that the backend may go on
			go func() {
				<-in.Ended()
				p.leave()
			}()
			return
		}
	}
	p.leave()
}

// park keeps c's backend for it. It does not if somebody waits.
func (p *places) park(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 || p.closed {
		return false
	}
	p.parked = append(p.parked, c)
	return true
}

// unpark is called before c is used again. Its backend may be gone.
func (p *places) unpark(c *Conn) {
	c.placement.parked, c.placement.unswept = false, true
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.parked, c); i >= 0 {
		p.parked = slices.Delete(p.parked, i, i+1)
	}
}

// evictLocked takes the backend from the Conn that is parked longest; nil if none is.
func (p *places) evictLocked() *link {
	if len(p.parked) == 0 {
		return nil
	}
	c := p.parked[0]
	p.parked = slices.Delete(p.parked, 0, 1)
	return c.detach()
}

// closeIdle closes what has been free for long.
func (p *places) closeIdle() {
	p.mu.Lock()
	old := time.Now().Add(-backendIdle)
	n := 0
	for n < len(p.free) && !p.free[n].freed.After(old) {
		n++
	}
	idle := slices.Clone(p.free[:n])
	p.free = slices.Delete(p.free, 0, n)
	if p.timer = nil; len(p.free) > 0 {
		p.timer = time.AfterFunc(p.free[0].freed.Sub(old), p.closeIdle)
	}
	p.mu.Unlock()
	for _, b := range idle {
		p.end(b)
	}
}

// closeFree closes what is free. Who waits still is served as others leave, like any query that has begun
// when its sql.DB is closed; for good says that nothing is kept from now on.
func (p *places) closeFree(forGood bool) {
	p.mu.Lock()
	p.closed = p.closed || forGood
	free := p.free
	p.free = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, b := range free {
		p.end(b)
	}
}

// lend has those without a backend go by what is known of b, which any of them may be given, if nothing else
// is known. It holds as long as b lasts.
func (d *DB) lend(b *link) {
	if d.known.Load().current() || !b.known.current() || b.known.space == nil || b.misread || b.attached {
		return
	}
	known := b.known
	if d.eager { // a hook may have registered types
		d.types.Store(b.inner.TypeMap().Copy())
	}
	p := d.places
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lender, p.lent = b, &known
	d.limit.Store(int64(b.limit))
	d.known.Store(&known)
}

// recant ends what was lent by b.
func (d *DB) recant(b *link) {
	p := d.places
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lender == b {
		d.known.CompareAndSwap(p.lent, nil)
		p.lender, p.lent = nil, nil
	}
}

// discard has a statement closed that was prepared on b, when b is used next.
func (p *places) discard(b *link, s backend.Statement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.discarded = append(b.discarded, s)
}

// newTypes are those that results are replayed with where there is no backend.
func (d *DB) newTypes() *pgtype.Map {
	if shared := d.types.Load(); shared != nil {
		return shared.Copy()
	}
	return pgtype.NewMap()
}

// lifetime is how long a backend lasts that is dialled now. Those that are dialled together do not end together.
func lifetime() time.Duration {
	return backendLifetime - time.Duration(rand.Int64N(int64(backendLifetime/10)))
}

var errWrappedPlaces = errors.New("cachedpg: cache_max_conns: the connections of a wrapped connector are not the driver's to bound:" +
	" of a pool set MaxConns, and use NewConnector or a DSN that is not from RegisterConnConfig otherwise")

// PlaceStats is cachedpg.PlaceStats.
type PlaceStats struct {
	InUse   int
	Free    int
	Waiting int
	Waits   uint64
	Waited  time.Duration
}

func (p *places) stats() PlaceStats {
	if p == nil {
		return PlaceStats{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return PlaceStats{InUse: int(p.taken) - len(p.free), Free: len(p.free), Waiting: len(p.queue), Waits: p.waits, Waited: p.waited}
}
