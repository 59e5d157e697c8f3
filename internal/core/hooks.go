package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// pgx runs a caller's code when a connection is dialled, and when database/sql
// takes one again that was used before: stdlib.OptionResetSession and
// OptionShouldPing. Such a hook may set from the context what a result depends on,
// a tenant's search_path or role, or refuse the connection. So it runs when pgx
// would run it, with the caller's context, before anything is looked up; and the
// session is what it leaves. Were it put off until PostgreSQL is needed:
//
//	request of tenant a                  request of tenant b
//	hook: search_path a
//	SELECT → rows of a, fill
//	                                     takes the connection, the hook is put off
//	                                     lookup in the session of a: rows of a
//
// What a hook that dials does is in the session that is read after it, and where
// there may be one no connection is taken for what another was.

// runHook runs what the caller has pgx run when the connection is taken again. Its
// error is database/sql's to judge, as with pgx.
func (c *Conn) runHook(ctx context.Context) error {
	sent, err := c.inner.Reset(ctx)
	switch {
	case c.inner.Closed():
		c.forget()
		c.commits = backend.CommitUnknown
		return backend.ErrBadConn
	case err == backend.ErrBadConn: // database/sql closes the connection
		return err
	case !sent:
		return err
	}
	c.forget()
	c.commits = backend.CommitUnknown
	c.adoptTx()
	if ctx.Err() == nil {
		// Now and not by the next statement, which may be one that PostgreSQL accepts
		// only as the first of a transaction. Without an answer it is asked again.
		_ = c.learn(ctx)
	}
	return err
}

// adoptTx takes note of a transaction that a hook has left open. What it has done
// in it was not seen, so it may have to be asked for before a caller's first query.
func (c *Conn) adoptTx() {
	if c.settle(); c.tx != nil {
		c.tx.asks, c.tx.session, c.tx.durability, c.tx.queried = true, true, true, true
	}
}
