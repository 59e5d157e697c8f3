package core

import (
	"context"
	"database/sql"
	"errors"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/space"
)

// newApplier returns a connection that runs what was queued.
func (d *DB) newApplier() behind.Conn {
	c := d.newConn(usedByApplier)
	return applier{c}
}

// applier is behind.Conn.
type applier struct{ *Conn }

func (a applier) Inner() backend.Conn { return a.inner }

func (a applier) Ready(ctx context.Context) error { return errors.Join(a.enter(), a.ready(ctx)) }

func (a applier) Begin(ctx context.Context) (backend.Tx, error) {
	tx, err := a.Conn.Begin(ctx, backend.TxOptions{Isolation: backend.TxLevel(sql.LevelReadCommitted)})
	if err == nil {
		a.tx.queried = true // there is no caller whose query must come first
	}
	return tx, err
}

func (a applier) Session(ctx context.Context) (*backend.Session, error) {
	known, err := a.state(ctx)
	if err != nil || known.session == nil {
		return nil, err
	}
	return &known.session.Session, nil
}

func (a applier) Forget() {
	a.settle()
	a.forget()
}

func (a applier) Run(ctx context.Context, sql string, args []backend.Arg, allow func(behind.Statement) error) error {
	if err := a.enter(); err != nil {
		return err
	}
	q, err := a.newCall(ctx, sql, args)
	if err != nil {
		return err
	}
	if err := a.plan(ctx, &q); err != nil {
		return err
	}
	s := behind.Statement{Plan: q.text.Plan, Values: q.keyingValues()}
	if q.session != unknownSession {
		s.Session = &q.session.Session
	}
	if q.view != space.NoCatalog {
		s.Snapshot = q.view.Snapshot
	}
	if err := allow(s); err != nil {
		return err
	}
	_, err = a.exec(ctx, &q)
	return err
}
