package core

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/internal/through"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// A refill is a fill like any other: after its commit is released, the writer looks
// an entry up, runs its SELECT and stores the rows with the stamps of the lookup.
// Nothing is stored because of who wrote it, so whatever happens in between, no
// older value is ever found. Two writers of one row, in the naive form that
// stores what it has written:
//
//	writer 1                        writer 2
//	UPDATE → 1, COMMIT
//	                                UPDATE → 2, COMMIT
//	                                SET 2
//	SET 1, stale for good
//
// and here:
//
//	writer 1                        writer 2
//	intend, COMMIT 1, release
//	lookup: stamp a
//	SELECT → 1
//	                                intend: a is dead
//	                                COMMIT 2, release
//	                                lookup: stamp b, SELECT → 2, fill
//	fill 1 with stamp a: never valid
//
// If the last two lines change places it is no different: an entry with a dead stamp
// is never a hit, whether it is stored under, over or instead of the other.
//
// If the writer dies after its release, there is an entry less. The lock that its
// lookup took in a shared store ends by itself (store.FillLock).
//
// The SELECTs run on the writer's own connection, whose session is the one that
// made the entry or they are left out, in a transaction that reads only: there
// PostgreSQL itself ends the one that takes too long. To end it from here by a
// context would close the connection, which may be pinned by a sql.Conn.

const (
	// refillTime is how long after its commit a writer begins SELECTs, and how long
	// PostgreSQL runs one of them. So no commit waits longer than twice that,
	refillTime = 200 * time.Millisecond

	// but for a PostgreSQL, or a store, that answers nothing; of the former the
	// connection is given up.
	refillBreak = 2 * time.Second
)

// beginRefill begins a transaction in which each SELECT takes a snapshot of its
// own, after its lookup (I1).
var beginRefill = fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = %d", refillTime.Milliseconds())

// refill pays what the connection owes. It is called at the end of the calls that
// may have committed, has no error, and leaves the connection as it was. ctx is
// the caller's: once it has ended nothing more is begun.
func (c *Conn) refill(ctx context.Context) {
	if c.owed == nil {
		return
	}
	d := c.owed
	c.owed = nil
	r := refiller{c: c, space: d.space, until: time.Now().Add(refillTime)}
	left := len(d.due)
	if !c.inner.Closed() && c.inner.TxStatus() == 'I' && !c.d.statementPool.Load() && r.await(ctx, d.released) {
		// Not the caller's context: it may end in the middle of a SELECT, which
		// would cost the connection, and its hints are for the statement.
		own, cancel := context.WithDeadline(context.Background(), r.until.Add(refillBreak))
		defer cancel()
		for i := range d.due {
			if r.stop || ctx.Err() != nil || !time.Now().Before(r.until) {
				break
			}
			left--
			r.count(r.one(own, &d.due[i]))
		}
		r.end()
		r.arrived(ctx)
	}
	c.d.stats.refillSkipped.Add(uint64(left))
}

// refiller is one run of refill.
type refiller struct {
	c     *Conn
	space *space.Space
	until time.Time
	began bool      // a transaction
	since time.Time // when it began
	stop  bool      // there is no use in going on

	stored []store.Key
}

type refillResult uint8

const (
	refillDone refillResult = iota
	refillNeedless
	refillSkipped
	refillFailed
)

func (r *refiller) count(result refillResult) {
	s := &r.c.d.stats
	switch result {
	case refillDone:
		s.refilled.Add(1)
	case refillSkipped:
		s.refillSkipped.Add(1)
	case refillFailed:
		s.refillFailed.Add(1)
	}
}

// await waits for the release: until then the lookup finds the writer's own marks.
func (r *refiller) await(ctx context.Context, released []chan struct{}) bool {
	timer := time.NewTimer(time.Until(r.until))
	defer timer.Stop()
	for _, done := range released {
		select {
		case <-done:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// one refills one entry. It waits for nobody: who reads the same, or changes it,
// is left to it.
func (r *refiller) one(ctx context.Context, recipe *through.Recipe) refillResult {
	c := r.c
	if !c.known.current() || c.known.space != r.space || !c.known.session.Same(recipe.Session) {
		return refillSkipped
	}
	q := call{sql: recipe.SQL, args: recipe.Values, values: recipe.Values, mode: recipe.Mode, refills: true}
	if recipe.Mode != c.inner.Mode() {
		q.args = append([]backend.Arg{{Ordinal: 1, Value: recipe.Mode}}, recipe.Values...)
	}
	if recipe.TTL > 0 {
		ctx = WithTTL(ctx, recipe.TTL)
	}
	if err := c.plan(ctx, &q); err != nil {
		r.stop = true
		return refillFailed
	}
	l, reason := c.lookup(ctx, &q)
	if reason != keying.NoReason || l.key != recipe.Key || len(q.text.Through) == 0 || q.text.Queue.Drains {
		return refillSkipped
	}
	stamps := make([]store.Stamp, len(l.tags))
	asking, cancel := context.WithDeadline(ctx, r.until)
	entry, outcome, err := r.space.Lookup(asking, l.key, l.tags, stamps)
	cancel()
	switch {
	case err != nil:
		c.d.stats.storeErrors.Add(1)
		r.stop = true
		return refillFailed
	case outcome == store.Hit:
		return refillNeedless
	case outcome != store.Miss && outcome != store.Stale:
		return refillSkipped // another commit is under way, or another process is reading it
	case stamps[0] != q.view.Stamp:
		r.space.GiveUp(l.key, stamps, outcome)
		return refillSkipped
	}
	f, leader := r.space.Flights.Join(l.key, stamps, q.text.Lasts(), false)
	if !leader {
		r.space.GiveUp(l.key, stamps, outcome)
		return refillSkipped
	}
	defer f.Leave(ctx)
	if err := r.begin(ctx); err != nil {
		r.space.GiveUp(l.key, stamps, outcome)
		return refillFailed
	}
	q.snapshot = r.since
	step.At(step.LookedUp)
	m := &fetch{key: l.key, tags: slices.Clone(l.tags), always: l.always, rows: l.rows, stamps: stamps, outcome: outcome, early: entry}
	rows, err := c.fill(ctx, &q, m, f)
	if err == nil {
		err = rows.Close()
	}
	if err != nil || !q.stored {
		r.space.Recipes.Forget(recipe.Key)
		r.stop = c.inner.Closed() || c.inner.TxStatus() != 'T'
		return refillFailed
	}
	r.stored = append(r.stored, l.key)
	return refillDone
}

// arrived waits until other processes find what was stored.
func (r *refiller) arrived(ctx context.Context) {
	s, ok := r.space.Store.(interface {
		Stored(context.Context, store.Key) error
	})
	if !ok || len(r.stored) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, r.until)
	defer cancel()
	for _, key := range r.stored {
		if s.Stored(ctx, key) != nil {
			return
		}
	}
}

// begin begins the transaction, once there is something to run in it.
func (r *refiller) begin(ctx context.Context) error {
	if r.began {
		return nil
	}
	r.began, r.since = true, time.Now()
	_, err := r.c.inner.ExecContext(ctx, beginRefill, nil)
	r.stop = err != nil
	return err
}

// end leaves no transaction behind. If that cannot be had, the connection is
// closed, and database/sql finds out when it wants to use it.
func (r *refiller) end() {
	in := r.c.inner
	if !r.began || in.Closed() || in.TxStatus() == 'I' {
		return
	}
	// With time of its own: a Redis that does not answer is no reason to lose it.
	ctx, cancel := context.WithTimeout(context.Background(), refillBreak)
	defer cancel()
	if _, err := in.ExecContext(ctx, "ROLLBACK", nil); err != nil || in.TxStatus() != 'I' {
		_ = in.Close()
	}
}

// remembered is what is remembered of q.
func (q *call) remembered() through.Read {
	return through.Read{SQL: q.sql, Values: q.values, Mode: q.mode, Session: &q.session.Session, Relations: q.text.Through, Refills: q.refills}
}

// remember notes a hit of a result that writers refill.
func (c *Conn) remember(ctx context.Context, q *call, l lookup, entry *store.Entry) {
	tags := l.tags
	if entry.Rows >= l.rows {
		tags = tags[:l.always]
	}
	q.space.Recipes.Remember(q.remembered(), l.key, tags, entry, false, hintsOf(ctx).TTL)
}
