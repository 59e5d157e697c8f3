package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// effect is the life of a write, from before PostgreSQL gets it until it has answered:
//
//	begin       what is written, and of which kind the write is; also beginCommit, beginUnseen
//	mark        before the commit, whenever that is (mark.go)
//	done        the marks are released, or left to the resolver (finish.go)
//
// It is used by one goroutine at a time.
type effect struct {
	c    *Conn
	kind writeKind
	also sideEffects // what the statements do besides writing tables

	// What is written, and in which space it is marked. Whoever finds out more than the texts say
	// adds tags; nothing is taken away but by PostgreSQL's word that the transaction wrote nothing.
	space *space.Space // nil where nothing is cached
	view  *space.View  // the catalog that the tags were planned with; nil if there were several
	tags  []store.Tag

	where location
	commitFacts
	event outboxEvent
	marks
	over bool // done was called
}

// writeKind says in which transaction a write commits, and so when it is marked. begin decides
// it; only one that was wrapped becomes another, where PostgreSQL refuses to run it so (goAlone). A write
// that is queued (queue.go) is of none: it is a write when it is applied.
type writeKind uint8

const (
	// writeRemembered is in the caller's transaction, whose state has its tags until its COMMIT
	// marks them; or where nothing is cached.
	writeRemembered writeKind = iota

	// writeCommit is the COMMIT of the caller's transaction, or its PREPARE TRANSACTION, which
	// marks everything that the transaction wrote.
	writeCommit

	// writeWrapped runs in a transaction of the driver's own, and is marked when that has an id,
	// see autocommit.go.
	writeWrapped

	// writeAlone may commit while it runs, so it is marked before: a statement outside of
	// transactions, a text with a COMMIT in the middle, or whatever a caller does with the
	// pgx connection that is lent to him.
	writeAlone
)

// marking is how tags are marked.
type marking uint8

const (
	markedNowhere    marking = iota // nothing is cached where the write runs
	markedHere                      // in this process
	markedShared                    // in a store that processes share, with what others can ask PostgreSQL about
	markedAfterwards                // there, but not before the commit, see Config.Consistency
)

func (e *effect) marking() marking {
	switch sp := e.space; {
	case sp == nil:
		return markedNowhere
	case sp.Keeper == nil:
		return markedHere
	case e.c.d.Config.Consistency == config.ConsistencyEventual && !e.c.d.Stranger(sp):
		return markedAfterwards
	}
	return markedShared
}

// marks are what protects a write until it is over.
type marks struct {
	write    *invalidation.Write // nil while nothing is marked
	schema   bool                // the shared store has marked the schema tag as well
	departed departure           // it is counted among what is under way
	released chan struct{}       // closed when the store was asked to release; nil if nobody waits for that, see refill.go

	// Others wait for the end of these, see unblock.
	leave       func() // of the generation that the tags were planned in; nil if it is in none
	leaveNotice func() // of the notice under which it commits past the store; nil if there is none
	lock        aloneLock
}

// unblock lets those go on who wait for the write.
func (m *marks) unblock() {
	m.lock.release()
	for _, leave := range []*func(){&m.leave, &m.leaveNotice} {
		if *leave != nil {
			(*leave)()
			*leave = nil
		}
	}
}

// unmark ends what protects a write that PostgreSQL was never sent, or has not committed.
func (m *marks) unmark() {
	m.departed.end()
	if m.write != nil {
		m.write.Release()
		m.write = nil
	}
	m.unblock()
}

// begin marks what the statements change if their effect may become visible
// at once, and otherwise remembers it until the transaction commits. Several
// calls are one unit, as in a batch.
func (c *Conn) begin(ctx context.Context, calls ...*call) (*effect, error) {
	c.settle()
	before := c.stance()
	e := &effect{c: c, kind: writeRemembered, space: c.known.space, where: c.location(), also: c.sideEffectsOf(calls, before)}
	commits := c.tx == nil
	for _, q := range calls {
		if commits && q.text.Has(parser.Begin) {
			c.warmFirst(ctx)
		}
		if q.text.Plan.Leaves {
			c.attach()
		}
		commits = commits || q.text.MayCommit()
	}
	defer e.also.forget(c)
	if c.tx != nil {
		c.tx.runs(&e.also, before)
	}
	if e.space == nil && !e.where.drifts() {
		return e, c.announceUncached(ctx, calls)
	}
	if commits && e.space != nil {
		e.leave = e.space.Gens.Enter()
	}
	if err := e.plan(ctx, calls, commits); err != nil {
		e.unblock()
		return nil, err
	}
	if !commits {
		return e, nil
	}
	e.kind = e.kindOf(calls)
	switch e.kind {
	case writeWrapped:
		return e, nil
	case writeCommit:
		err := e.mark(ctx)
		if err != nil && c.inner.TxStatus() != 'I' {
			// The transaction ends, as it does when COMMIT fails.
			_ = e.rollback(err)
		}
		return e, err
	}
	if e.where.drifts() && e.writes() {
		if e.where = locationBlind; e.space == nil {
			return e, nil
		}
	}
	if e.also.asks || c.tx != nil && c.tx.asks {
		e.everything()
		if c.tx != nil {
			c.tx.add(space.NoCatalog, space.Everything)
		}
	}
	return e, e.mark(ctx)
}

// announceUncached has others see that the calls write where nothing is cached, and nothing is to be marked.
func (c *Conn) announceUncached(ctx context.Context, calls []*call) error {
	if c.tx != nil && c.tx.unseen && slices.ContainsFunc(calls, func(q *call) bool { return q.text.MayCommit() }) {
		return c.showAnyway(ctx)
	}
	if slices.ContainsFunc(calls, func(q *call) bool { return q.text.Plan.Writes || q.text.Plan.Asks }) {
		return c.announceOutside(ctx)
	}
	return nil
}

// plan finds the tags of what the calls write, and has the transaction remember them.
func (e *effect) plan(ctx context.Context, calls []*call, commits bool) error {
	c := e.c
	for _, q := range calls {
		// Who enters first and plans then is waited for by a DDL that changes
		// what the plan stands on.
		if commits && q.view != space.NoCatalog && e.space.View.Load() != q.view {
			if err := c.plan(ctx, q); err != nil {
				return err
			}
		}
		if e.view = q.view; q.text.Plan.Writes {
			first := len(e.tags)
			if e.tags == nil {
				e.tags = make([]store.Tag, 0, 4)
			}
			e.tags = q.text.Plan.WriteTags(e.tags, q.keyingValues())
			if q.text.Plan.Catalog || q.text.Plan.Opaque {
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
	return nil
}

// kindOf returns the kind of the calls, which may commit.
func (e *effect) kindOf(calls []*call) writeKind {
	if len(calls) != 1 {
		return writeAlone
	}
	c, q := e.c, calls[0]
	switch {
	case c.tx != nil && q.text.EndsTransaction():
		return writeCommit
	case c.tx != nil, !e.writes(), c.d.statementPool.Load(), !q.ours, !q.canWrap():
		return writeAlone
	}
	var wraps bool
	switch e.marking() {
	case markedNowhere: // a read of a standby must not take longer for its functions
		wraps = !q.text.Has(parser.Select)
	case markedHere:
		wraps = e.also.asks || e.where.drifts()
	case markedShared:
		wraps = true
	case markedAfterwards:
		wraps = e.posts() || e.where.drifts()
	}
	if wraps {
		return writeWrapped
	}
	return writeAlone
}

// writes reports that the texts write tables, or may.
func (e *effect) writes() bool { return len(e.tags) > 0 || e.also.asks }

// everything adds what nothing survives: it is not known what was changed.
func (e *effect) everything() {
	e.tags = append(e.tags, space.Everything...)
	e.also.catalog, e.also.session = true, true
}

// beginCommit marks everything that the transaction wrote.
func (c *Conn) beginCommit(ctx context.Context) (*effect, error) {
	c.settle()
	if c.tx != nil && c.known.space == nil && c.tx.asks {
		c.tx.queried = true // nothing follows that could mind
		_ = c.learn(ctx)
	}
	e := &effect{c: c, kind: writeCommit, space: c.known.space, where: c.location(), also: sideEffects{end: endCommitted}}
	if c.tx != nil && c.tx.unseen && e.space == nil && c.inner.TxStatus() == 'T' {
		return e, c.showAnyway(ctx)
	}
	if c.tx == nil || e.space == nil && !e.where.drifts() || c.tx.tags.Len() == 0 && !c.tx.asks || c.inner.TxStatus() == 'E' {
		return e, nil // nothing written, or PostgreSQL will answer ROLLBACK
	}
	if e.space != nil {
		e.leave = e.space.Gens.Enter()
	}
	return e, e.mark(ctx)
}

// beginUnseen marks everything, for a caller who gets the pgx connection.
func (c *Conn) beginUnseen(ctx context.Context) (*effect, error) {
	if c.moved() {
		_ = c.learn(ctx)
	}
	c.settle()
	e := &effect{c: c, kind: writeAlone, space: c.known.space, where: c.location(), also: anything, tags: space.Everything}
	if e.where.drifts() {
		e.where = locationBlind
	}
	defer e.also.forget(c)
	if c.tx != nil {
		c.tx.runs(&e.also, c.stance())
	}
	if e.space == nil {
		return e, c.announceOutside(ctx)
	}
	if c.tx != nil {
		c.tx.add(space.NoCatalog, e.tags)
	}
	e.leave = e.space.Gens.Enter()
	return e, e.mark(ctx)
}
