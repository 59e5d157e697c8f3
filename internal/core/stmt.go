package core

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
)

// Prepare prepares the statement on PostgreSQL, which says what is
// wrong with it. A cacheable text that PostgreSQL has accepted before on
// another connection is prepared when it is first needed: database/sql
// prepares on every connection, and a hit needs none.
func (c *Conn) Prepare(ctx context.Context, query string) (*Stmt, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	s := &Stmt{c: c, query: query}
	if c.inner == nil && ctx.Err() == nil && c.d.known.Load().current() {
		q := call{sql: query, mode: pgx.QueryExecModeCacheStatement}
		if err := c.plan(ctx, &q); err != nil {
			return nil, err
		}
		if n := q.text.Inputs.Load(); n >= 0 && q.text.Plan.Reason == keying.NoReason {
			s.inputs = int(n)
			c.stmts.opened(query)
			return s, nil
		}
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	c.stmts.opened(query)
	return s, nil
}

// Exec executes as Conn.Exec does.
func (s *Stmt) Exec(ctx context.Context, args []backend.Arg) (backend.Result, error) {
	c := s.c
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	q, err := c.newCall(ctx, s.query, args)
	if err != nil {
		return nil, err
	}
	q.prepare = s
	defer c.refill(ctx)
	return c.exec(ctx, &q)
}

// Query queries as Conn.Query does. PostgreSQL has typed the
// parameters at Prepare, whatever the connection's default mode.
func (s *Stmt) Query(ctx context.Context, args []backend.Arg) (backend.ResultSet, error) {
	c := s.c
	if err := c.enter(); err != nil {
		return nil, err
	}
	q, err := c.newCall(ctx, s.query, args)
	if err != nil {
		return nil, err
	}
	q.mode, q.prepare = pgx.QueryExecModeCacheStatement, s
	return c.query(ctx, &q)
}
