package core

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
)

// In a transaction that has failed PostgreSQL refuses every statement, and pgx gives its error as one of preparing or of
// running, whichever it was about to do. That depends on whether it has the text prepared, and a text that was sent with
// what it is made to return is not, where the caller's own would be. So what pgx would have is kept account of.

// sentReturning are the texts that were sent over a connection with what they are made to return, each with what pgx would
// have of the caller's own.
type sentReturning map[string]keptText

// keptText says whether pgx has a text prepared by itself.
type keptText struct {
	kept bool

	// It gives up a text that has failed: its description at once, and a statement that it has prepared when the transaction is over.
	failedIn *txState
}

const maxSentReturning = 128

func (k keptText) has(tx *txState, mode pgx.QueryExecMode) bool {
	return k.kept && (k.failedIn == nil || k.failedIn == tx && mode == pgx.QueryExecModeCacheStatement)
}

// sends takes in that q is sent so, unless it is prepared by a name of its own.
func (s *sentReturning) sends(q *call) {
	if q.prepare != nil {
		return
	}
	if _, known := (*s)[q.sql]; known {
		return
	}
	if *s == nil {
		*s = make(sentReturning)
	} else if len(*s) >= maxSentReturning {
		planning.DropOne(*s)
	}
	(*s)[q.sql] = keptText{kept: true} // pgx would prepare it now
}

// ended takes in how q has ended on c.
func (s sentReturning) ended(c *Conn, q *call, err error) {
	k, ok := s[q.sql]
	switch {
	case !ok:
		return
	case errors.As(err, new(*pgconn.PrepareError)):
		k = keptText{}
	case errors.As(err, new(*pgconn.PgError)):
		k = keptText{kept: c.tx != nil, failedIn: c.tx} // to fail it was prepared
	case q.prepare == nil && c.stmts[q.sql] == 0 && (k.failedIn == nil || k.failedIn != c.tx):
		k = keptText{kept: true}
	}
	s[q.sql] = k
}

// refusedAsBefore sends q in a failed transaction, and returns the error that pgx would give for it; nil if that is what
// it gives by itself.
func (c *Conn) refusedAsBefore(ctx context.Context, q *call) error {
	if c.inner.TxStatus() != 'E' || q.prepare != nil || len(q.values) == 0 { // without values pgx prepares nothing
		return nil
	}
	k, ok := c.returning[q.sql]
	in, real := c.inner.(*backend.Pgx)
	if !ok || !real {
		return nil
	}
	has := c.stmts[q.sql] > 0
	switch q.mode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe:
		has = has || k.has(c.tx, q.mode)
	case pgx.QueryExecModeDescribeExec:
	default:
		return nil
	}
	if !has {
		_, err := in.PgxConn().Prepare(ctx, "", q.sql)
		return err
	}
	_, err := c.inner.ExecContext(ctx, q.sql, append([]backend.Arg{{Ordinal: 1, Value: pgx.QueryExecModeSimpleProtocol}}, q.values...))
	if k.kept && k.failedIn == nil {
		c.returning[q.sql] = keptText{kept: true, failedIn: c.tx}
	}
	return err
}

// stmts are the statements that a caller has prepared and not closed, by their texts.
type stmts map[string]int

func (s *stmts) opened(query string) {
	if *s == nil {
		*s = make(stmts)
	}
	(*s)[query]++
}

func (s stmts) closed(query string) {
	if s[query]--; s[query] <= 0 {
		delete(s, query)
	}
}
