package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

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
	e.keepsReturned(calls[0])
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
			if q.session.Unchecked {
				e.tags = q.text.Plan.InsertedTags(e.tags)
			}
			if q.text.Plan.Catalog || q.text.Plan.Opaque {
				e.tags = append(e.tags, store.Tag{Kind: store.TagCatalog})
			}
			if e.expects(q, commits); c.tx != nil && e.returned == nil {
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
	if c.tx == nil || e.space == nil && !e.where.drifts() || c.tx.tags.Len() == 0 && !c.tx.asks && c.tx.unread == 0 || c.inner.TxStatus() == 'E' {
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

// canWrap reports that the text is one statement which may do inside a
// transaction what it does outside of one. PostgreSQL refuses some that are DDL.
func (q *call) canWrap() bool {
	plan := q.text.Plan
	if len(plan.Kinds) != 1 {
		return false
	}
	switch plan.Kinds[0] {
	case parser.Select, parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate,
		parser.Refresh, parser.DDL, parser.Remark, parser.Explain, parser.Execute:
		return true
	case parser.Do, parser.Call:
		return !plan.Commits
	case parser.Opaque:
		return q.single || !plan.Commits
	}
	return false
}
