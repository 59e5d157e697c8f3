package core

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/parser"
)

// exec is the life of a write: plan, mark what it will change, execute,
// release the marks when PostgreSQL has answered.
func (c *Conn) exec(ctx context.Context, q *call) (backend.Result, error) {
	c.d.stats.others.Add(1)
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return c.inner.ExecContext(ctx, q.sql, q.args) // pgx sends nothing and says why
	}
	q.ours = true
	if err := c.plan(ctx, q); err != nil || c.inner.Closed() {
		return nil, c.unsent(ctx, err)
	}
	if result, queued, err := c.writeBehind(ctx, q); queued || err != nil {
		return result, err
	}
	if len(q.values) > 0 || q.text.Plan.Writes { // else pgx does not prepare, unless it was before
		c.prepares(ctx, q)
	}
	if q.text.Plan.Limits {
		c.limit = hurried
	}
	if !q.text.Effects() {
		c.sends(q)
		result, err := c.inner.ExecContext(ctx, q.sql, q.args)
		if err == nil && q.text.Plan.Analyses && len(q.text.Plan.Kinds) == 1 {
			c.since.session, c.since.unknown = nil, false
		}
		return result, err
	}
	if len(q.values) > 0 { // without arguments pgx uses the simple protocol
		if err := c.check(ctx, q); err != nil {
			return nil, err
		}
	}
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
		return c.autocommit(ctx, q, e)
	}
	e.asksAlong(q)
	result, err := c.run(ctx, q)
	err = c.hears(err)
	c.returning.ended(c, q, err)
	e.spareUnchanged(q, result, err)
	e.done(err)
	c.learnsOf(ctx, q, result, err)
	return result, err
}

// unsent is the error of a call whose statement has not been sent because of err. Where
// a question of the driver's own has found the connection gone, database/sql may try another.
func (c *Conn) unsent(ctx context.Context, err error) error {
	switch {
	case c.inner == nil || !c.inner.Closed():
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return backend.ErrBadConn
}

// check lets PostgreSQL judge a text that our parser does not understand,
// before it is taken for a write of everything: a typo shall not empty the cache.
func (c *Conn) check(ctx context.Context, q *call) error {
	if !q.text.Has(parser.Opaque) || q.mode == pgx.QueryExecModeSimpleProtocol {
		return nil // a text for the simple protocol may hold what cannot be prepared
	}
	if !strings.ContainsAny(q.sql, " \t\r\n") {
		return nil // the name of a statement that a hook has prepared on the pgx connection
	}
	err := c.inner.Judge(ctx, q.sql)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		q.single = true
		return nil
	case q.mode == pgx.QueryExecModeExec && errors.As(err, &refused):
		return refused // as it comes where pgx does not prepare
	}
	return err
}

// sends records that a statement without effects is sent.
func (c *Conn) sends(q *call) {
	if q.text.Plan.Leaves {
		c.attach()
	}
	if c.tx != nil && q.text.FixesSnapshot() {
		c.tx.queried = true
	}
}
