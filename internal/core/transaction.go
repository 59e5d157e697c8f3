package core

import (
	"context"
	"database/sql"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// Begin starts a transaction on PostgreSQL.
func (c *Conn) Begin(ctx context.Context, opts backend.TxOptions) (backend.Tx, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	c.settle()
	if sql.IsolationLevel(opts.Isolation) != sql.LevelReadCommitted {
		// Its snapshot may be older than the statement that reads what is queued.
		if err := c.drain(ctx, false); err != nil {
			return nil, err
		}
	}
	if c.tx == nil {
		if err := c.beginWarm(ctx); err != nil { // in the transaction it could not be asked
			return nil, err
		}
	}
	inner, err := c.inner.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	if c.tx != nil {
		return &tx{c: c, ctx: ctx, inner: inner}, nil // it was open before: by a hook, or by a BEGIN
	}
	c.tx = &txState{}
	switch sql.IsolationLevel(opts.Isolation) {
	case sql.LevelReadUncommitted, sql.LevelReadCommitted:
		c.tx.isolation = backend.IsolationReadCommitted
	case sql.LevelDefault:
		c.tx.isolation = c.defaultIsolation()
	default:
		c.tx.isolation = backend.IsolationSnapshot
	}
	return &tx{c: c, ctx: ctx, inner: inner}, nil
}

// tx is a transaction begun by Begin.
type tx struct {
	c     *Conn
	ctx   context.Context
	inner backend.Tx
}

// Commit marks what the transaction wrote, commits, and releases the marks
// when PostgreSQL has answered. If the marks cannot be set it rolls back.
func (t *tx) Commit() error {
	if err := t.c.enter(); err != nil {
		return err
	}
	e, err := t.c.beginCommit(t.ctx)
	if err != nil {
		_ = t.inner.Rollback()
		t.c.settle()
		return err
	}
	err = t.inner.Commit()
	e.done(err)
	t.c.refill(t.ctx)
	return err
}

// Rollback rolls back; nothing was marked, so nothing is invalidated.
func (t *tx) Rollback() error {
	if err := t.c.enter(); err != nil {
		return err
	}
	err := t.inner.Rollback()
	if t.c.tx != nil && err == nil {
		t.c.tx.end = endRolledBack
	}
	t.c.settle()
	return err
}
