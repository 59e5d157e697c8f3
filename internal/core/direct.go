package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
)

// direct runs the statement on PostgreSQL, exactly as pgx would.
func (c *Conn) direct(ctx context.Context, q *call, reason keying.Reason) (backend.ResultSet, error) {
	c.d.stats.bypass(q.text.Stats, reason)
	before := c.inner
	if err := c.readyFor(ctx, q); err != nil {
		return nil, err
	}
	if c.inner != before { // planned with what was known of another one
		if err := c.plan(ctx, q); err != nil {
			return nil, err
		}
	}
	if err := c.catchUp(ctx, q); err != nil {
		return nil, err
	}
	c.prepares(ctx, q)
	if q.text.Plan.Limits {
		c.limit = hurried
	}
	if !q.text.Effects() {
		c.sends(q)
		return c.pass(ctx, q)
	}
	if err := c.check(ctx, q); err != nil {
		return nil, err
	}
	q.ours = true
	if err := c.refusedAsBefore(ctx, q); err != nil {
		return nil, err
	}
	if c.returns(ctx, q); c.inner.Closed() {
		return nil, c.unsent(ctx, nil)
	}
	e, err := c.begin(ctx, q)
	if err != nil {
		return nil, c.unsent(ctx, err)
	}
	if e.kind == writeWrapped {
		return c.autocommitRows(ctx, q, e)
	}
	e.asksAlong(q)
	rows, err := c.passReturning(ctx, q)
	c.returning.ended(c, q, err)
	if err != nil {
		err = c.hears(err)
		e.done(err)
		return nil, err
	}
	return withEffect(rows, e), nil
}
