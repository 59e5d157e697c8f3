package core

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/store"
)

// writer returns the id to mark with, or none if the transaction that is about
// to commit has written nothing.
func (e *effect) writer(ctx context.Context) (id store.WriterID, err error) {
	c := e.c
	switch {
	case e.kind == writeAlone:
		return e.backend(ctx)
	case c.inner.TxStatus() == 'E':
		return id, nil // PostgreSQL will answer ROLLBACK
	}
	if err := e.transaction(ctx); err != nil {
		return id, err
	}
	switch {
	case e.nameless:
		return e.backend(ctx)
	case e.xid == "":
		return id, nil
	}
	xid, err := strconv.ParseUint(e.xid, 10, 64)
	if err != nil {
		return id, fmt.Errorf("cachedpg: PostgreSQL gives %q as a transaction id", e.xid)
	}
	if e.commits != backend.CommitSync {
		return store.NewAsyncWriter(xid), nil
	}
	return store.NewTransactionWriter(xid), nil
}

// backend returns an id to mark with where there is none of a transaction.
func (e *effect) backend(ctx context.Context) (id store.WriterID, err error) {
	if err := e.announce(ctx); err != nil {
		return id, err
	}
	if e.also.prepared { // which the backend does not outlast
		return store.NewWriter(), nil
	}
	return e.c.backendWriter(ctx), nil
}

// transaction asks for the id of the transaction that is about to commit.
func (e *effect) transaction(ctx context.Context) (err error) {
	if e.kind == writeWrapped || e.hasWritten() {
		return nil // it was asked for together with the statement
	}
	if e.wasFound() {
		return nil
	}
	if e.isRefused() {
		e.withoutAnswer()
		return nil
	}
	question := transactionFacts
	if e.c.tx != nil && e.c.tx.cursor {
		question = newTransactionFacts
	}
	posts := e.posts()
	if posts {
		question = outbox.WithReadOnly(question)
	}
	if e.where.drifts() {
		question = backend.WithIdentity(question)
	}
	answer, err := backend.KeepIn(ctx, e.c.inner, question)
	if backend.Unanswered(e.c.inner, err) {
		e.refuses(err)
		return nil
	}
	if err != nil {
		return err
	}
	answer = e.whereFrom(answer)
	if posts {
		answer, e.event.readOnly = outbox.CutReadOnly(answer)
	}
	e.takeFacts(answer)
	return nil
}

// backendWriter returns an id by the connection's backend. Behind a pooler it
// is not known which backend will run a statement: then only this process can
// release what it marks.
func (c *Conn) backendWriter(ctx context.Context) store.WriterID {
	if c.pid == 0 || c.started == 0 && c.mustNotAsk() {
		return store.NewWriter()
	}
	if c.started == 0 {
		start, err := backend.AskIn(ctx, c.inner, "SELECT (extract(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text"+
			" FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()")
		if err == nil {
			c.started, err = strconv.ParseInt(start, 10, 64)
		}
		if err != nil {
			return store.NewWriter()
		}
	}
	return store.NewBackendWriter(c.pid, time.UnixMicro(c.started))
}
