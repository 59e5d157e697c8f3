package core

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/flight"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// fetch is what a lookup that missed leaves to do.
type fetch struct {
	key    store.Key
	tags   []store.Tag
	always int // that many of tags concern every result
	rows   int // the others concern one of fewer rows
	stamps []store.Stamp

	outcome store.Outcome // of the lookup; Busy: another process is running the SELECT
	early   *store.Entry  // valid, and to be refreshed before it expires
	large   bool          // the result has been too large to be kept: it is not read first
}

// miss runs the SELECT and stores its result, or waits for the one that does.
func (c *Conn) miss(ctx context.Context, q *call, m *fetch) (backend.ResultSet, error) {
	fs := &q.space.Flights
	waits := m.outcome == store.Busy && c.tx == nil && c.mayWait()
	f, leader := fs.Join(m.key, m.stamps, q.text.Lasts(), waits)
	if leader {
		return c.lead(ctx, q, m, f, waits)
	}
	if m.early != nil {
		return newRows(c, m.early), nil // somebody refreshes it already
	}
	if c.tx != nil || !c.mayWait() {
		// The leader may be waiting for a lock that this transaction holds, or for the place;
		// PostgreSQL cannot see a deadlock that runs through us.
		return c.fill(ctx, q, m, nil)
	}
	// What the lookup has taken need not be given up: the flight's fill ends it, or its failure.
	if !space.MayFill(m.outcome) || !f.Takes() {
		joins, err := f.Follow(ctx, c.patience(ctx))
		if err != nil {
			return nil, err
		}
		if !joins {
			if rows, err, ok := c.landed(f.Landed, q); ok {
				c.d.stats.joined.Add(1)
				return rows, err
			}
			// The leader has failed, for a reason that need not be ours. Others may wait for us.
			f = fs.Lead(m.key, m.stamps, q.text.Lasts())
		}
	}
	defer f.Leave(ctx)
	m.large = q.space.Large.Has(m.key, c.d.Config.MaxEntry)
	return c.fill(ctx, q, m, f)
}

// lead gets the result for whoever joins. leave runs whatever happens, a
// panic included, so that nobody waits for ever.
func (c *Conn) lead(ctx context.Context, q *call, m *fetch, f *flight.Flight, waits bool) (backend.ResultSet, error) {
	defer func() { f.Leave(ctx) }()
	if waits {
		if entry := c.awaitOther(ctx, q, m); entry != nil {
			f.Land(flight.Landing{Entry: entry})
			c.d.stats.joined.Add(1)
			return newRows(c, entry), nil
		}
		switch m.outcome {
		case store.Busy:
			f.Begins()
		case store.Dirty: // who waits for us has waited for that one, which is gone
			f.Leave(ctx)
			f = nil
		default:
			f.Leave(ctx)
			f = q.space.Flights.Lead(m.key, m.stamps, q.text.Lasts())
		}
	}
	rows, err := c.fill(ctx, q, m, f)
	if err != nil && m.early != nil && ctx.Err() == nil && !q.tooOld(m.early) {
		return newRows(c, m.early), nil
	}
	return rows, err
}

// awaitOther looks again and again while another process runs the SELECT. It
// returns nil when it is up to this one, or the context has ended. If the other
// process has died, that is soon: see store.FillLock. If the outcome is Busy still, the
// other takes longer than this one waits.
func (c *Conn) awaitOther(ctx context.Context, q *call, m *fetch) *store.Entry {
	until := time.Now().Add(min(c.patience(ctx), flight.Overdue(q.text.Lasts())))
	for wait := time.Millisecond; m.outcome == store.Busy; wait = min(2*wait, 20*time.Millisecond) {
		left := time.Until(until)
		if left <= 0 || pause.For(ctx, min(wait, left)) != nil {
			return nil
		}
		entry, outcome, err := q.space.Lookup(ctx, m.key, m.tags, m.stamps)
		if outcome == store.Hit && err == nil {
			if !q.tooOld(entry) {
				return entry
			}
			outcome = store.Dirty // a hit gives no stamps
		}
		if m.outcome = outcome; err != nil {
			m.outcome = store.Dirty
		}
		if m.outcome == store.Dirty || m.stamps[0] != q.view.Stamp {
			q.space.GiveUp(m.key, m.stamps, m.outcome)
			m.outcome = store.Dirty
			clear(m.stamps) // not to be stored
			q.rowsOnly = true
		}
	}
	return nil
}

// fill runs the SELECT on PostgreSQL and stores its result with the stamps
// that its tags had before. A fill that lost a race is never valid, so it
// needs no check.
func (c *Conn) fill(ctx context.Context, q *call, m *fetch, f *flight.Flight) (backend.ResultSet, error) {
	sp, stored := q.space, false
	stop := sp.Hold(m.key, m.stamps, m.outcome)
	defer func() {
		if stop(); !stored {
			sp.Abandon(m.key, m.stamps, m.outcome)
		}
	}()
	before := c.inner
	c.placement.waited = false
	if err := c.readyFor(ctx, q); err != nil {
		return nil, err
	}
	known := &c.known
	if c.inner != before {
		var err error
		if known, err = c.state(ctx); err != nil {
			return nil, err
		}
	}
	if c.inner != before && (known.session == nil || !known.session.Same(&q.session.Session) || known.space != sp) {
		// Not the session that the key stands for (a changed default, a
		// failover): run what was asked for here, and store nothing.
		q.session, q.space, q.text = nil, nil, nil
		if err := c.plan(ctx, q); err != nil {
			return nil, err
		}
		return c.direct(ctx, q, keying.SessionUnknown)
	}
	if c.placement.waited {
		f.Begins()
		if entry := c.lookAgain(ctx, q, m); entry != nil {
			f.Land(flight.Landing{Entry: entry})
			c.d.stats.joined.Add(1)
			return newRows(c, entry), nil
		}
	}
	if err := c.catchUp(ctx, q); err != nil {
		return nil, err
	}
	c.prepares(ctx, q)
	begin := time.Now()
	c.sends(q)
	wire, err := c.inner.Read(ctx, q.sent())
	if err != nil {
		c.refuse(q, f, nil, err)
		return nil, pgerr.AsStdlib(err)
	}
	limit := c.d.Config.MaxEntry
	if m.large {
		limit = 0
	}
	rows, err := c.readRowsUpTo(limit, wire, q.text.Shape)
	if err != nil {
		c.refuse(q, f, nil, err)
		return nil, err
	}
	if !q.refills && m.early == nil {
		q.text.Stats.Admission.Fill(q.text.Tables, q.asked)
	}
	if rows.live != nil {
		c.d.stats.tooLarge.Add(1)
		if !m.large {
			sp.Large.Add(m.key, limit)
		}
		return rows, nil
	}
	if rows.err != nil { // after some rows: the caller gets those, then the error
		c.refuse(q, f, rows.entry, rows.err)
		return rows, nil
	}
	if m.large { // it has none any more
		sp.Large.Forget(m.key)
		return rows, nil
	}
	step.At(step.Selected)
	took := time.Since(begin)
	q.text.Took.Store(int64(took))
	if !q.refills { // those are counted for themselves
		c.d.stats.filled(q.text.Stats, took)
	}
	tags, stamps := m.tags, m.stamps
	switch {
	case rows.entry.Rows >= m.rows:
		tags, stamps = tags[:m.always], stamps[:m.always]
	case q.rowsOnly:
		return rows, nil // neither stored nor shared: a row may have appeared since
	}
	ttl := q.ttl(ctx)
	ttl -= time.Duration(rand.Int64N(int64(ttl)/10 + 1))
	if q.byAge {
		aged := took
		if !q.snapshot.IsZero() {
			aged = begin.Add(took).Sub(q.snapshot)
		}
		if ttl -= aged; ttl <= 0 {
			return rows, nil // too old for who waits for it
		}
	}
	rows.entry.Took, rows.entry.Expires = took, store.MomentOf(begin).Add(took+ttl)
	stored = true
	if err := sp.Store.Fill(ctx, m.key, tags, stamps, rows.entry, ttl); err != nil {
		c.d.stats.storeErrors.Add(1)
	}
	f.Land(flight.Landing{Entry: rows.entry}) // who misses from now on finds it in the store
	step.At(step.Filled)
	if q.stored = true; q.text.Through != nil {
		sp.Recipes.Remember(q.remembered(), m.key, tags, rows.entry, true, hintsOf(ctx).TTL)
	}
	return rows, nil
}

// lookAgain looks the entry up once more after it was waited for a place: who had one may have stored it, and
// stamps that a commit has made useless meanwhile are replaced. With a shared store this process has held the SELECT
// for itself all the while.
func (c *Conn) lookAgain(ctx context.Context, q *call, m *fetch) *store.Entry {
	if q.space.Keeper != nil || m.large || m.early != nil || q.rowsOnly {
		return nil
	}
	stamps := make([]store.Stamp, len(m.stamps))
	entry, outcome, err := q.space.Lookup(ctx, m.key, m.tags, stamps)
	switch {
	case err != nil:
	case outcome == store.Hit && !q.tooOld(entry):
		return entry
	case space.MayFill(outcome) && stamps[0] == q.view.Stamp:
		copy(m.stamps, stamps)
	}
	return nil
}

// refuse lets those who follow have the error of a SELECT, after its rows before that if
// there are any, where it is theirs as well. It is one of the result, and so is shared like
// one: by those who have seen its stamps.
func (c *Conn) refuse(q *call, f *flight.Flight, before *store.Entry, err error) {
	if refused := flight.Certain(err); refused != nil && !q.rowsOnly && !q.byAge {
		f.Land(flight.Landing{Entry: before, Err: refused, SQL: q.sql})
	}
}

// refreshes reports that this hit is to run the SELECT and store its result
// anew, because the entry expires soon.
func (c *Conn) refreshes(ctx context.Context, q *call, entry *store.Entry, tags []store.Tag, stamps []store.Stamp) bool {
	if entry.Took <= 0 || c.tx != nil {
		return false
	}
	if !dueEarly(entry.Expires.Sub(store.Now()), entry.Took, rand.Float64) {
		return false
	}
	_, outcome, err := q.space.Lookup(ctx, store.Key{}, tags, stamps) // a hit gives no stamps
	return err == nil && outcome != store.Dirty && stamps[0] == q.view.Stamp
}

// dueEarly decides by chance, the likelier the closer the end of the entry is
// and the longer its SELECT takes, so that of many hits about one refreshes it, in
// time (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
// Stampede Prevention", 2015). random is from [0, 1).
func dueEarly(left, took time.Duration, random func() float64) bool {
	const never = 40 // e^-40 is as good as 0, and most hits are further from the end
	return left <= never*took && float64(left) <= -math.Log(1-random())*float64(took)
}

// landed gives a follower what the flight has landed with, false if that is not for it.
func (c *Conn) landed(l flight.Landing, q *call) (rows backend.ResultSet, err error, ok bool) {
	switch {
	case l.Err != nil && l.SQL != q.sql: // it may name a position
	case l.Err != nil && l.Entry == nil:
		return nil, l.OwnErr(), true
	case l.Err != nil:
		r := newRows(c, l.Entry)
		r.err = l.OwnErr()
		return r, nil, true
	case l.Entry != nil && !q.tooOld(l.Entry):
		return newRows(c, l.Entry), nil, true
	}
	return nil, nil, false
}
