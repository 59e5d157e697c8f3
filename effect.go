package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// effect is a statement between the marking of its tags and PostgreSQL's answer.
type effect struct {
	c     *Conn
	space *space
	view  *view
	tags  []store.Tag
	also  sideEffects         // what else the statements do
	write *invalidation.Write // nil when nothing is marked
	leave func()              // of the generation that the tags were planned in

	wraps bool // the statement is to run in a transaction of our own, see autocommit.go

	drifts  bool   // it is not sure on which server it runs, see move.go
	blind   bool   // and the server is asked only after it has
	located bool   // the transaction was asked where it is
	strayed bool   // and is elsewhere
	counted *space // in whose underway it is counted

	// Only with a store that processes share.
	alone       bool      // it cannot: it is marked before it runs, and may commit while it does
	beside      *rotation // holds the lock of what runs alone where its own connection cannot
	leaveNotice func()    // the commit stands under a notice instead of marks

	// Only with an outbox.
	plain    bool // a kind of statement that may be sent together with its event
	posted   bool // it was
	readOnly bool // the transaction takes no more writes
	unsure   bool // the schema tag was marked as well

	commit   bool // tx.Commit, nothing else
	ends     bool // the text of a COMMIT or PREPARE TRANSACTION, nothing else
	xid      string
	nameless bool // PostgreSQL does not tell it, so that "" means nothing
	over     bool // done was called

	commits commitMode // of the transaction; once it is marked, or where it was asked for
	assumed bool       // it is what the session had learned

	told chan struct{} // by whom the release is awaited, see refill.go
}

// begin marks what the statements change if their effect may become visible
// at once, and otherwise remembers it until the transaction commits. Several
// calls are one unit, as in a batch.
func (c *Conn) begin(ctx context.Context, calls ...*call) (*effect, error) {
	c.settle()
	before := c.stance()
	e := &effect{c: c, space: c.known.space, drifts: c.drifts(), also: c.sideEffectsOf(calls, before)}
	visible := c.tx == nil
	for _, q := range calls {
		if visible && q.text.has(parser.Begin) {
			c.warmFirst(ctx)
		}
		if q.text.plan.Leaves {
			c.attach()
		}
		visible = visible || q.text.mayCommit()
	}
	defer e.also.forget(c)
	if c.tx != nil {
		c.tx.runs(&e.also, before)
	}
	if e.space == nil && !e.drifts { // no cache: nothing to invalidate here
		if c.tx != nil && c.tx.unseen && slices.ContainsFunc(calls, func(q *call) bool { return q.text.mayCommit() }) {
			return e, c.showAnyway(ctx)
		}
		if !slices.ContainsFunc(calls, func(q *call) bool { return q.text.plan.Writes || q.text.plan.Asks }) {
			return e, nil
		}
		return e, c.announceOutside(ctx)
	}
	if visible && e.space != nil {
		e.leave = e.space.gens.Enter()
	}
	for _, q := range calls {
		// Who enters first and plans then is waited for by a DDL that changes
		// what the plan stands on.
		if visible && q.view != noCatalog && e.space.view.Load() != q.view {
			if err := c.plan(ctx, q); err != nil {
				e.left()
				return nil, err
			}
		}
		if e.view = q.view; q.text.plan.Writes {
			first := len(e.tags)
			if e.tags == nil {
				e.tags = make([]store.Tag, 0, 4)
			}
			e.tags = q.text.plan.WriteTags(e.tags, q.keyingValues())
			if q.text.plan.Catalog || q.text.plan.Opaque {
				e.tags = append(e.tags, store.Tag{Kind: store.TagCatalog})
			}
			if c.tx != nil {
				c.tx.add(q.view, e.tags[first:])
			}
		}
		if c.tx != nil && e.also.asks {
			c.tx.asks = true
			c.tx.planned(q.view)
		}
	}
	if !visible {
		return e, nil
	}
	e.ends = c.tx != nil && len(calls) == 1 && calls[0].text.endsTransaction()
	canWrap := c.tx == nil && !c.d.statementPool.Load() && len(calls) == 1 && calls[0].ours && calls[0].canWrap()
	writes := len(e.tags) > 0 || e.also.asks
	switch {
	case e.space == nil: // a read of a standby must not take longer for its functions
		e.wraps = writes && canWrap && !calls[0].text.has(parser.Select)
	case e.space.keeper != nil:
		e.wraps = (!e.afterwards() || e.posts() || e.drifts) && writes && canWrap
		e.plain = e.wraps && isPlain(calls[0])
		e.alone = !e.wraps && !e.ends
	default:
		e.wraps = (e.also.asks || e.drifts && writes) && canWrap
	}
	if e.wraps {
		return e, nil // marked when its transaction has an id
	}
	if e.blind = e.drifts && writes && !e.ends; e.blind && e.space == nil {
		return e, nil
	}
	if (e.also.asks || c.tx != nil && c.tx.asks) && !e.ends {
		e.everything()
		if c.tx != nil {
			c.tx.add(noCatalog, everything)
		}
	}
	err := e.mark(ctx)
	if err != nil && e.ends && c.inner.txStatus() != 'I' {
		// The transaction ends, as it does when COMMIT fails.
		_ = e.rollback(err)
	}
	return e, err
}

// afterwards reports that nothing is marked before the commit, see Config.Consistency.
func (e *effect) afterwards() bool {
	return e.space != nil && e.space.keeper != nil && e.c.d.config.Consistency == consistencyEventual && !e.c.d.stranger(e.space)
}

// beginCommit marks everything that the transaction wrote.
func (c *Conn) beginCommit(ctx context.Context) (*effect, error) {
	c.settle()
	if c.tx != nil && c.known.space == nil && c.tx.asks {
		c.tx.queried = true // nothing follows that could mind
		_ = c.learn(ctx)
	}
	e := &effect{c: c, space: c.known.space, drifts: c.drifts(), commit: true, also: sideEffects{end: endCommitted}}
	if c.tx != nil && c.tx.unseen && e.space == nil && c.inner.txStatus() == 'T' {
		return e, c.showAnyway(ctx)
	}
	if c.tx == nil || e.space == nil && !e.drifts || len(c.tx.tags) == 0 && !c.tx.asks || c.inner.txStatus() == 'E' {
		return e, nil // nothing written, or PostgreSQL will answer ROLLBACK
	}
	if e.space != nil {
		e.leave = e.space.gens.Enter()
	}
	return e, e.mark(ctx)
}

// beginOpaque marks everything, for statements that are not seen.
func (c *Conn) beginOpaque(ctx context.Context) (*effect, error) {
	if c.moved() {
		_ = c.learn(ctx)
	}
	c.settle()
	e := &effect{c: c, space: c.known.space, drifts: c.drifts(), also: anything, tags: everything}
	e.blind = e.drifts
	defer e.also.forget(c)
	if c.tx != nil {
		c.tx.runs(&e.also, c.stance())
	}
	if e.space == nil {
		return e, c.announceOutside(ctx)
	}
	if c.tx != nil {
		c.tx.add(noCatalog, e.tags)
	}
	e.leave, e.alone = e.space.gens.Enter(), true
	return e, e.mark(ctx)
}

// mark sets the intents: on return nobody gets an entry that depends on one
// of the tags, until release. In a transaction they are the tags of
// everything that it wrote.
func (e *effect) mark(ctx context.Context) error {
	c := e.c
	if tx := c.tx; tx != nil && !e.wraps {
		if tx.mixed || e.space != nil && e.space.keeper == nil && tx.view != nil && !tx.view.same(e.space.view.Load()) {
			// Some statement was planned with a catalog that has changed since;
			// its locks keep its own tables as they were, but not those that
			// a new foreign key or view leads to.
			if tx.tags == nil {
				tx.tags = make(map[store.Tag]struct{})
			}
			tx.tags[store.Tag{Kind: store.TagSchema}] = struct{}{}
		}
		e.view, e.also.catalog = tx.view, e.also.catalog || tx.catalog
		e.tags = make([]store.Tag, 0, len(tx.tags))
		for tag := range tx.tags {
			e.tags = append(e.tags, tag)
		}
		if e.commit || e.ends {
			if err := e.askAtCommit(ctx); err != nil {
				e.left()
				return err // PostgreSQL's, of a deferred trigger
			}
		}
	}
	if len(e.tags) == 0 {
		e.left()
		return nil
	}
	err := e.locate(ctx)
	if err != nil {
		e.left()
		return err
	}
	if e.space != nil && (e.space.keeper == nil || e.afterwards()) { // else when the store is known in which it is marked
		if err := e.space.peers.announce(ctx, e.c); err != nil {
			e.left()
			return fmt.Errorf("cachedpg: showing others that the process writes: %w", err)
		}
	}
	switch {
	case e.space == nil && (c.known.session == nil || c.known.session.standby):
		return nil
	case e.space == nil: // nobody caches here
		if err = c.d.outer.Load().announce(ctx, c); err != nil {
			e.left()
		}
		return err
	case e.afterwards():
		e.write = e.space.writes.Begin()
		e.write.Remember(e.tags)
	case e.space.keeper != nil:
		err = e.markShared(ctx)
	default:
		err = e.markHere(ctx)
	}
	if err == nil {
		if err = e.post(ctx); err != nil {
			e.unmark()
			return err
		}
		if e.write != nil {
			e.commits = e.commitModeNow(ctx)
		}
	}
	if err != nil {
		e.unmark()
		return fmt.Errorf("cachedpg: marking what the transaction changed: %w", err)
	}
	if e.write == nil {
		e.left()
	}
	return nil
}

// markHere is mark in a store in this process.
func (e *effect) markHere(ctx context.Context) error {
	if e.xid == "" && !e.located && (e.also.prepared || e.c.tx != nil && e.c.pid == 0) {
		// The outcome may have to be asked of PostgreSQL later, and there is
		// nothing but the transaction's id to ask with. In a failed
		// transaction there is no answer, and nothing to ask.
		if e.c.inner.txStatus() == 'T' {
			if err := e.transaction(ctx); err != nil {
				return err
			}
		}
	}
	for {
		e.depart()
		e.write = e.space.writes.Begin()
		if err := e.write.Intend(ctx, e.tags); err != nil || !e.space.superseded.Load() {
			return err
		}
		// Who supersedes a space does not see the marks of who comes later.
		before := e.space
		if err := e.follow(ctx); err != nil {
			return err
		}
		if e.space == nil || e.space == before {
			return nil
		}
	}
}

// unmark ends an effect that PostgreSQL was never sent.
func (e *effect) unmark() {
	e.arrived()
	if e.write != nil {
		e.write.Release()
		e.write = nil
	}
	e.left()
}

// left counts the effect out of what waits for it.
func (e *effect) left() {
	if e.alone {
		e.c.retract()
		e.alone = false
	}
	if e.beside != nil {
		e.beside.close()
		e.beside = nil
	}
	for _, leave := range []*func(){&e.leave, &e.leaveNotice} {
		if *leave != nil {
			(*leave)()
			*leave = nil
		}
	}
}

// done ends the statement: PostgreSQL has answered, or the connection is gone.
// err is what the caller gets. A second call does nothing.
func (e *effect) done(err error) {
	if e.over {
		return
	}
	e.over = true
	c := e.c
	c.ran(&e.also, err)
	defer e.arrived() // after an outcome that is not known has been counted
	if e.blind {
		defer c.lookBack(e)
	}
	if tx := c.tx; tx != nil && e.write != nil { // a text that opened a transaction, or went on after a COMMIT
		tx.catalog = tx.catalog || e.also.catalog
		tx.add(e.view, e.tags)
	}
	if e.also.resolved && e.space != nil {
		e.space.writes.Kick()
		if e.space.keeper != nil {
			e.space.keeper.hurry()
		}
	}
	switch {
	case e.write == nil:
		e.left()
	case c.inner.closed() && e.commit && c.pid == 0 && e.xid == "" && !e.nameless && e.space.keeper == nil:
		e.release() // the transaction had no id, so it had nothing to commit
	case c.inner.closed() && (e.alone || e.nameless) && c.pid == 0 && e.space.keeper != nil:
		// Nothing can be asked by its id. The sweep of any process finds out when
		// it is over.
		c.d.stats.unknown.Add(1)
		if e.also.catalog {
			e.space.dropView()
		}
		e.left()
		e.space.keeper.hurry()
	case c.inner.closed():
		// It may be on its way still, and only PostgreSQL knows. driver.ErrBadConn
		// proves nothing: pgx reports a connection that broke after the statement
		// was sent as one that was closed before.
		e.abandon(c.d.ended(e.space, c.pid, e.xid, e.commits))
	case e.also.prepared && err == nil && e.xid != "":
		e.abandon(c.d.ended(e.space, 0, e.xid, commitSync)) // to commit it waits for the disk, whatever is set
	case e.also.prepared && err == nil && e.nameless:
		// Whoever commits it, nobody can tell when.
		e.abandon(func(context.Context) (bool, error) { return false, nil })
	default:
		step.At(step.Committed)
		if e.assumed && c.configured != e.space.configured.Load() {
			e.commits = commitUnknown // the reload may have been before the commit
		}
		if e.commits == commitDoubtful && c.onDisk(e.space) {
			e.commits = commitSync
		}
		if err == nil {
			c.owe(e)
		}
		if e.commits != commitSync {
			e.releaseFlushed()
			return
		}
		e.release()
	}
}

// release ends the marks. After a DDL it waits, off the caller's path, for
// those who planned with the old catalog.
func (e *effect) release() {
	if !e.also.catalog {
		e.left()
		e.write.ReleaseTelling(e.told)
		return
	}
	released := make(chan struct{})
	e.space.loads.follow(released)
	generation := e.space.dropView()
	e.left()
	e.space.gens.WhenOlderLeft(generation, func() { e.write.ReleaseTelling(released) })
}

// abandon leaves the marks to the resolver, which asks ended until it says
// that nothing more can become visible.
func (e *effect) abandon(ended func(context.Context) (bool, error)) {
	e.c.d.stats.unknown.Add(1)
	e.alone = false // its lock, if any, ended with the connection, which is no longer ours to use

	if e.write.Empty() { // nobody opens what it has relied on before it is over
		e.left()
		return
	}
	e.space.enter()
	waiting := make(chan struct{})
	dropped := false
	e.write.Abandon(func(ctx context.Context) (bool, error) {
		if !dropped {
			ok, err := ended(ctx)
			if errors.Is(err, errServerReplaced) { // nobody asks for what was cached of that server: its marks may stay
				e.left()
				go e.space.leave() // it may end the resolver that is calling
				return false, fmt.Errorf("%w: %w", invalidation.ErrNever, err)
			}
			if !ok || err != nil {
				return false, err
			}
			dropped = true
			if !e.also.catalog {
				close(waiting)
			} else {
				e.space.gens.WhenOlderLeft(e.space.dropView(), func() { close(waiting) })
			}
			e.left()
		}
		select {
		case <-waiting:
			go e.space.leave() // it may end the resolver that is calling
			return true, nil
		default:
			return false, nil
		}
	})
}

// effectRows are the rows of a statement with an effect, which ends when they
// are closed: an INSERT … RETURNING commits when its last row was read.
type effectRows struct {
	*stdlib.Rows // with all its optional interfaces
	effect       *effect
}

// Close reads what is left and ends the effect.
func (r *effectRows) Close() error {
	return r.effect.closes(r.Rows)
}

// scriptedRows are effectRows of an inner connection that is not pgx's.
type scriptedRows struct {
	driver.Rows
	effect *effect
}

func (r *scriptedRows) Close() error {
	return r.effect.closes(r.Rows)
}

// effectOwnRows are effectRows that the driver decodes.
type effectOwnRows struct {
	*Rows
	effect *effect
}

func (r *effectOwnRows) Close() error {
	return r.effect.closes(r.Rows)
}

// closes ends the effect with the rows.
func (e *effect) closes(rows driver.Rows) error {
	err := e.c.hears(rows.Close())
	e.done(err)
	e.c.refill(context.Background())
	return err
}

func withEffect(rows driver.Rows, e *effect) driver.Rows {
	switch r := rows.(type) {
	case *stdlib.Rows:
		return &effectRows{Rows: r, effect: e}
	case *Rows:
		return &effectOwnRows{Rows: r, effect: e}
	}
	return &scriptedRows{Rows: rows, effect: e}
}
