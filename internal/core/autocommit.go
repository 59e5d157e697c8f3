package core

import (
	"context"
	"errors"
	"io"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// A statement outside of a transaction commits in the moment in which it has
// run. Then it is too late to ask what its triggers wrote. And if it dies with its process, nobody can tell from its marks in a shared
// store whether it is still on its way: PostgreSQL knows transactions by an id
// that it gets only while it runs. So the driver runs it in a transaction of
// its own, and marks with the id before COMMIT:
//
//	BEGIN; statement; questions     one round trip
//	mark                            one, to a store that processes share
//	COMMIT                          one
//
// The caller sees what PostgreSQL says of the statement. What PostgreSQL
// refuses inside a transaction runs alone.

// autocommit executes the statement of e.
func (c *Conn) autocommit(ctx context.Context, q *call, e *effect) (backend.Result, error) {
	if e.isRefused() {
		e.withoutAnswer()
	}
	result, answer, err := c.inner.ExecInTx(ctx, q.execution(), q.taker(), append(e.eventWith(q), e.questions()...))
	refused := c.refuses(q, err)
	if err != nil {
		q.returned = nil // whatever it is, what is sent again is sent as it was written
	}
	if refused {
		_ = e.rollback(err)
		e.again()
		result, answer, err = c.inner.ExecInTx(ctx, q.execution(), nil, append(e.eventWith(q), e.questions()...))
	}
	if last := (backend.UnansweredError{}); errors.As(err, &last) && !c.inner.Closed() {
		// The statement is undone with its transaction, and runs in one in which nothing is asked.
		_ = e.rollback(err)
		e.again()
		e.refuses(last.PgError)
		result, answer, err = c.inner.ExecInTx(ctx, q.execution(), nil, append(e.eventWith(q), e.questions()...))
	}
	if err != nil && e.event.sent && pgerr.Is(err, pgerr.ReadOnlyTransaction) {
		// Of the two that were refused together it may have been the event.
		_ = e.rollback(err)
		e.again()
		result, answer, err = c.inner.ExecInTx(ctx, q.execution(), nil, e.questions())
	}
	if err != nil {
		switch err = e.rollback(err); {
		case mustRunAlone(err):
		case c.losesTransactions():
			return c.execAgain(ctx, q)
		default:
			return nil, e.explainOutbox(ctx, err)
		}
		if err := e.goAlone(ctx); err != nil {
			return nil, err
		}
		result, err := c.inner.ExecContext(ctx, q.sql, q.args)
		e.done(err)
		return result, err
	}
	e.narrow(nil)
	if err := e.take(answer); err != nil {
		return nil, e.rollback(err)
	}
	if err := e.commitMarked(ctx); err != nil {
		return nil, err
	}
	c.learnsOf(ctx, q, result, nil)
	return result, nil
}

// autocommitRows runs the statement of e, whose rows end with its COMMIT.
func (c *Conn) autocommitRows(ctx context.Context, q *call, e *effect) (backend.ResultSet, error) {
	if _, err := c.inner.ExecContext(ctx, "BEGIN", nil); err != nil {
		e.unmark()
		e.done(err)
		if c.losesTransactions() {
			return c.queryAgain(ctx, q)
		}
		return nil, err
	}
	rows, err := c.rowsInTx(ctx, q, e)
	if err == nil || e.over { // COMMIT was sent
		return rows, err
	}
	refused := c.refuses(q, err)
	q.returned = nil
	if refused {
		_ = e.rollback(err)
		e.again()
		return c.autocommitRows(ctx, q, e)
	}
	switch err = e.rollback(err); {
	case mustRunAlone(err):
	case c.losesTransactions():
		return c.queryAgain(ctx, q)
	default:
		return nil, err
	}
	if err := e.goAlone(ctx); err != nil {
		return nil, err
	}
	if rows, err = c.pass(ctx, q); err != nil {
		e.done(err)
		return nil, err
	}
	return withEffect(rows, e), nil
}

// rowsInTx runs the statement of e and commits. It reads the rows first, so that
// the statement's locks are gone when the caller gets them: a caller may change
// the same rows on another connection before it has read the next one. Only a
// result that is too large for that is committed at its end.
func (c *Conn) rowsInTx(ctx context.Context, q *call, e *effect) (backend.ResultSet, error) {
	end := ending{ctx: ctx, effect: e}
	if q.formats { // not the bytes that our rows decode
		rows, err := c.inner.QueryContext(ctx, q.sql, q.args)
		if err != nil {
			return nil, err
		}
		return &commitRows{Rows: rows.(*stdlib.Rows), ending: end}, nil
	}
	wire, err := c.inner.Read(ctx, q.sentReturning())
	if err != nil {
		return nil, pgerr.AsStdlib(err)
	}
	rows, err := c.readRows(q.apart(wire), q.text.Shape)
	switch {
	case err != nil:
		return nil, pgerr.AsStdlib(err)
	case rows.live != nil:
		return &commitLarge{Rows: rows, ending: end}, nil
	case rows.err != nil: // after some rows: the caller gets those, then the error
		rows.err = e.rollback(rows.err)
	default:
		if rows.err = end.commit(); rows.err != nil && rows.entry.Rows == 0 {
			return nil, rows.err
		}
	}
	return rows, nil
}

// commitLarge is commitRows of a result that is too large to be read first.
type commitLarge struct {
	*Rows
	ending
}

func (r *commitLarge) Next(dest []backend.Value) error { return r.next(r.Rows.Next(dest)) }

func (r *commitLarge) Close() error { return r.close(r.Rows.Close()) }

func mustRunAlone(err error) bool { return pgerr.Is(err, pgerr.ActiveTransaction) }

// again begins a write anew that was rolled back. What it was planned with may have changed meanwhile.
func (e *effect) again() {
	e.over, e.event, e.returned = false, outboxEvent{}, nil
	if e.space == nil {
		return
	}
	e.leave = e.space.Gens.Enter()
	if e.view == nil || e.space.View.Load() != e.view {
		e.everything()
	}
}

// goAlone marks everything, to run outside of a transaction what was refused
// inside.
func (e *effect) goAlone(ctx context.Context) error {
	e.again()
	if e.kind = writeAlone; e.where.drifts() {
		e.where = locationBlind
	}
	if e.space == nil {
		return nil
	}
	if e.also.asks {
		e.everything()
	}
	return e.mark(ctx)
}

// commitMarked marks what the transaction says that it has written, and commits.
func (e *effect) commitMarked(ctx context.Context) error {
	if e.hasWritten() { // else it has written nothing
		if err := e.mark(ctx); err != nil {
			return e.rollback(err)
		}
	} else if e.where == locationElsewhere {
		e.c.known.session = nil
	}
	err := e.c.inner.Commit(ctx)
	if !e.c.inner.Closed() && e.c.inner.TxStatus() != 'I' { // not sent: the context had ended
		return e.rollback(err)
	}
	e.done(err)
	return err
}

// rollback ends the transaction of a statement that failed with cause, and
// returns that.
func (e *effect) rollback(cause error) error {
	in := e.c.inner
	if !in.Closed() && in.TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), backend.RollbackTimeout)
		defer cancel()
		if _, err := in.ExecContext(ctx, "ROLLBACK", nil); err != nil || in.TxStatus() != 'I' {
			_ = in.Close()
		}
	}
	// Without a COMMIT nothing becomes visible, whatever became of the connection.
	e.unmark()
	e.done(cause)
	return cause
}

// commitRows commits at the end of its rows, so that an error of COMMIT reaches
// the caller as the result's.
type commitRows struct {
	*stdlib.Rows // with all its optional interfaces
	ending
}

func (r *commitRows) Next(dest []backend.Value) error { return r.next(r.Rows.Next(dest)) }

func (r *commitRows) Close() error { return r.close(r.Rows.Close()) }

// ending ends a statement whose rows have come to their end, or were closed.
type ending struct {
	ctx    context.Context
	effect *effect
	ended  bool
}

func (r *ending) next(err error) error {
	if err == nil || r.ended {
		return err
	}
	r.ended = true
	if err != io.EOF {
		return r.effect.rollback(err)
	}
	if err := r.commit(); err != nil {
		return err
	}
	return io.EOF
}

func (r *ending) close(err error) error {
	if r.ended {
		return err
	}
	r.ended = true
	if err != nil {
		return r.effect.rollback(err)
	}
	return r.commit()
}

func (r *ending) commit() error {
	r.effect.narrow(nil)
	if err := r.effect.ask(r.ctx); err != nil {
		return r.effect.rollback(err)
	}
	err := r.effect.commitMarked(r.ctx)
	r.effect.c.refill(r.ctx)
	return err
}
