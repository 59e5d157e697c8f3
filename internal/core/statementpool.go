package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// A pooler in statement mode closes a connection on which a transaction stays open
// between two messages. So the driver opens none there:
//
//	reads     pass through while no other process has a lease in a shared store: this
//	          one can hold no lock by which the writers of others would see that it caches
//	writes    are marked before they run, and run as with pgx
//
// What shows that it writes is a lock of whichever session it gets, which stays until
// the pooler closes that: others cache nothing for longer than they need not.
// With a Redis that loses its memory while such a statement runs, nobody waits for it.
//
// PostgreSQL does not tell how it is pooled. It is found out when a transaction of the
// driver's own has cost it the connection, which was before its COMMIT.

// statementPoolTimeout bounds the question for a statement that waits for the answer.
const statementPoolTimeout = 5 * time.Second

// losesTransactions reports that the connection is gone because of a transaction that
// the driver has opened on it, and has not been sent its COMMIT.
func (c *Conn) losesTransactions() bool {
	if !c.inner.Closed() || c.pid != 0 || c.tx != nil || c.d.statementPool.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementPoolTimeout)
	defer cancel()
	in, err := c.d.dial(ctx)
	if err != nil {
		return false
	}
	defer in.Close()
	if _, err = in.ExecContext(ctx, "BEGIN", nil); backend.OfStatementPool(err) != backend.ErrStatementPool {
		return false
	}
	c.d.statementPool.Store(true)
	return true
}

// execAgain is exec of what has run in a transaction that was lost.
func (c *Conn) execAgain(ctx context.Context, q *call) (backend.Result, error) {
	if err := c.redial(ctx); err != nil {
		return nil, err
	}
	return c.exec(ctx, q)
}

// queryAgain is query of what has run in a transaction that was lost.
func (c *Conn) queryAgain(ctx context.Context, q *call) (backend.ResultSet, error) {
	if err := c.redial(ctx); err != nil {
		return nil, err
	}
	return c.query(ctx, q)
}
