package guard

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/store"
)

// Rotation holds shared advisory locks in a transaction. Behind a pooler, which may
// give each transaction another session, nothing else can hold them; but PAUSE, with which
// a planned switchover begins, lets no transaction begin and waits for all that are
// open. So there none is open for longer than turnEnd, whatever else the process waits for.
// Two connections take turns, and the next has the locks before the last one ends:
//
//	holder                  spare                   pgbouncer
//	holds the locks
//	                        BEGIN, the locks
//	COMMIT
//	                        holds them              PAUSE waits for it
//	BEGIN: has to wait,
//	and gives up
//	                        is closed               is paused
//
// Then the locks are gone, and taken anew they are held since then.
//
// The connections are of the rotation alone. If its turn had to wait for another question
// of the process, and that for the pooler, PAUSE would wait for itself:
//
//	rotation                other question          pgbouncer
//	holds the locks
//	                                                PAUSE waits for it
//	                        has to wait
//	(waits for its answer …)
//
// It is safe for concurrent use. See docs/decisions/connections.md (D88).
type Rotation struct {
	guard *Guard
	rest  time.Duration // it ends when nobody has asked for so long, if not zero
	keeps bool          // once broken it begins again by itself

	ctx    context.Context // until close
	cancel context.CancelFunc

	mu     sync.Mutex // guards the fields below; held while PostgreSQL answers the holder or has to be dialled for one
	wanted []Lock
	since  map[Lock]time.Time // the locks that are held
	holder *seat              // with the transaction; nil: there is none
	spare  *seat              // without one; may be nil
	begun  time.Time          // the transaction of holder
	used   time.Time
	timer  *time.Timer
	life   context.Context // until the locks are lost
	end    context.CancelFunc
}

// seat is a connection of a rotation.
type seat struct {
	backend.Conn
	pooled bool // it takes turns
}

const (
	// turnAfter is when the next transaction takes over, and turnEnd when one
	// ends even if no other has taken over.
	turnAfter = store.Lease / 4
	turnEnd   = store.Lease
)

// NewRotation returns one that holds nothing yet, over connections that g dials. It ends when nobody has asked for
// as long as rest, if that is not zero; with keeps it begins again by itself once it is broken.
func NewRotation(g *Guard, rest time.Duration, keeps bool) *Rotation {
	r := &Rotation{guard: g, rest: rest, keeps: keeps, since: make(map[Lock]time.Time)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close gives the locks back.
func (r *Rotation) Close() {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked()
}

// drop is close for as long as nobody asks.
func (r *Rotation) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked()
}

// Hold makes it hold the locks, and then asks a question, if there is one, over the
// connection that holds them, so that an answer proves that it still does. It
// returns since when it has held each without a break. Locks that are not
// wanted any more are given back with the next turn.
func (r *Rotation) Hold(ctx context.Context, wanted []Lock, question string) (answer string, since map[Lock]time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmp.Or(r.ctx.Err(), ctx.Err()); err != nil { // who waited too long breaks nothing
		return "", nil, err
	}
	r.used, r.wanted = time.Now(), wanted
	if !slices.ContainsFunc(wanted, func(w Lock) bool { return !r.since[w].IsZero() }) {
		r.breakLocked() // a transaction gives no single lock back
	}
	answer, err = r.holdLocked(ctx, question)
	if err != nil { // whatever it was, what is held now is not known
		r.dropLocked()
		return "", nil, err
	}
	return answer, maps.Clone(r.since), nil
}

func (r *Rotation) holdLocked(ctx context.Context, question string) (answer string, err error) {
	if len(r.wanted) == 0 {
		if r.spare, err = r.idle(ctx, r.spare); err == nil && question != "" {
			answer, err = r.guard.ask(ctx, r.spare, question)
		}
		return answer, err
	}
	if r.holder == nil {
		next, err := r.begin(ctx, r.spare)
		if r.spare = nil; err != nil {
			return "", err
		}
		r.holder, r.begun = next, time.Now()
		r.life, r.end = context.WithCancel(r.ctx)
		r.armLocked()
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	for _, w := range r.wanted {
		if r.since[w].IsZero() {
			if err := r.guard.take(ctx, r.holder, w); err != nil {
				return "", err
			}
			r.since[w] = time.Now()
		}
	}
	if question != "" {
		if answer, err = r.guard.ask(ctx, r.holder, question); err != nil {
			return "", err
		}
	}
	return answer, backend.ForgetSnapshot(ctx, r.holder)
}

// bounded is ctx, but not for longer than the transaction may last.
func (r *Rotation) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.holder.pooled {
		return context.WithDeadline(ctx, r.begun.Add(turnEnd))
	}
	return context.WithCancel(ctx)
}

func (r *Rotation) armLocked() {
	if r.holder.pooled {
		life := r.life
		r.timer = time.AfterFunc(turnAfter, func() { r.turn(life) })
	}
}

// turn has the next transaction hold the locks, and ends the one that does.
func (r *Rotation) turn(life context.Context) {
	r.mu.Lock()
	if life.Err() != nil {
		r.mu.Unlock()
		return
	}
	if r.rest > 0 && time.Since(r.used) > r.rest {
		r.dropLocked()
		r.mu.Unlock()
		return
	}
	ctx, cancel := context.WithDeadline(life, r.begun.Add(turnEnd))
	defer cancel()
	spare := r.spare
	r.spare = nil
	r.mu.Unlock() // the holder answers while the pooler lets the next one wait
	next, err := r.begin(ctx, spare)
	r.mu.Lock()
	defer r.mu.Unlock()
	if life.Err() != nil {
		if err == nil {
			_ = next.Close()
		}
		return
	}
	if err == nil {
		err = r.passLocked(ctx, next)
	}
	if err != nil {
		r.dropLocked()
		if r.keeps {
			r.timer = time.AfterFunc(turnAfter, r.again)
		}
	}
}

// passLocked has next hold the locks instead of the holder.
func (r *Rotation) passLocked(ctx context.Context, next *seat) error {
	begun := time.Now()
	for held := range r.since {
		if !slices.Contains(r.wanted, held) {
			delete(r.since, held)
		} else if err := r.guard.take(ctx, next, held); err != nil {
			_ = next.Close()
			return err
		}
	}
	if err := backend.ForgetSnapshot(ctx, next); err != nil {
		_ = next.Close()
		return err
	}
	last := r.holder
	r.holder, r.begun = next, begun
	if _, err := last.ExecContext(ctx, "COMMIT", nil); err != nil {
		_ = last.Close() // the locks are held all the same
	} else {
		r.spare = last
	}
	r.armLocked()
	return nil
}

// again takes the locks anew.
func (r *Rotation) again() {
	ctx, cancel := context.WithTimeout(r.ctx, AskTimeout)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil || r.holder != nil {
		return
	}
	if _, err := r.holdLocked(ctx, ""); err != nil {
		r.dropLocked()
		r.timer = time.AfterFunc(turnAfter, r.again)
	}
}

// begin returns a connection with an open transaction.
func (r *Rotation) begin(ctx context.Context, spare *seat) (*seat, error) {
	if time.Since(time.Unix(0, r.guard.statementPool.Load())) < Rest {
		return nil, backend.ErrStatementPool // each try costs a connection of the pooler's
	}
	in, err := r.idle(ctx, spare)
	if err != nil {
		return nil, err
	}
	if _, err = in.ExecContext(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", nil); err == nil {
		err = lasting(ctx, in, in.pooled)
	}
	if err != nil {
		_ = in.Close()
		if err = backend.OfStatementPool(err); err == backend.ErrStatementPool {
			r.guard.statementPool.Store(time.Now().UnixNano())
		}
		return nil, err
	}
	return in, nil
}

// idle returns a connection without a transaction: the one given, if it can be used.
func (r *Rotation) idle(ctx context.Context, spare *seat) (*seat, error) {
	if spare != nil && !spare.Closed() {
		return spare, nil
	}
	in, pooled, err := r.guard.dialKnowing(ctx, false)
	if err != nil {
		return nil, err
	}
	return &seat{in, pooled}, nil
}

// lasting is backend.Patient, but that PostgreSQL ends a transaction which takes turns if
// the process does nothing for long, because it was stopped or is cut off.
func lasting(ctx context.Context, in backend.Conn, turns bool) error {
	if !turns {
		return backend.Patient(ctx, in)
	}
	_, err := in.Ask(ctx, "SELECT pg_catalog.count(pg_catalog.set_config(name, CASE WHEN name OPERATOR(pg_catalog.=) 'transaction_timeout' THEN '0' ELSE '"+
		strconv.FormatInt((2*turnEnd).Milliseconds(), 10)+"' END, true))::pg_catalog.text FROM pg_catalog.pg_settings"+
		" WHERE name OPERATOR(pg_catalog.=) ANY ('{idle_in_transaction_session_timeout,transaction_timeout}')")
	return err
}

// breakLocked ends the transaction, and with it the locks.
func (r *Rotation) breakLocked() {
	if r.holder == nil {
		return
	}
	r.end()
	r.timerStop()
	_ = r.holder.Close()
	r.holder = nil
	clear(r.since)
}

// dropLocked closes everything.
func (r *Rotation) dropLocked() {
	r.breakLocked()
	r.timerStop()
	if r.spare != nil {
		_ = r.spare.Close()
		r.spare = nil
	}
}

func (r *Rotation) timerStop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}
