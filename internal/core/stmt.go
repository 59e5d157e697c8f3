package core

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
)

// Stmt is a prepared statement on one connection.
type Stmt struct {
	c      *Conn
	query  string
	inputs int
	on     []preparedOn // where PostgreSQL was asked
}

// preparedOn is a statement that was prepared on a backend.
type preparedOn struct {
	b     *link
	inner backend.Statement
}

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
			return s, nil
		}
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare asks PostgreSQL to prepare the statement, once on each connection that c has to it.
func (s *Stmt) prepare(ctx context.Context) error {
	if err := s.c.ready(ctx); err != nil || s.isPrepared() {
		return err
	}
	inner, err := s.c.inner.PrepareContext(ctx, s.query)
	if err != nil {
		return err
	}
	s.c.prepared = true
	s.on = slices.DeleteFunc(s.on, func(p preparedOn) bool { return p.b.gone.Load() })
	s.on, s.inputs = append(s.on, preparedOn{s.c.link, inner}), inner.NumInput()
	if known := &s.c.known; known.view != nil && known.current() {
		s.c.d.Plan(known.view, known.session, s.query).Inputs.Store(int32(s.inputs))
	}
	return nil
}

// Close gives the statement up where it was prepared. On a backend that the connection has not in hand it is closed
// when that is used next.
func (s *Stmt) Close() (err error) {
	for _, p := range s.on {
		switch {
		case p.b.gone.Load():
		case !s.c.placement.parked && p.b == s.c.link:
			err = p.inner.Close()
		case s.c.d.places != nil:
			s.c.d.places.discard(p.b, p.inner)
		}
	}
	s.on = nil
	return err
}

func (s *Stmt) isPrepared() bool {
	return slices.ContainsFunc(s.on, func(p preparedOn) bool { return p.b == s.c.link })
}

// NumInput is the number of parameters.
func (s *Stmt) NumInput() int { return s.inputs }

// Exec executes as Conn.Exec does.
func (s *Stmt) Exec(ctx context.Context, args []backend.Arg) (backend.Result, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	return s.c.Exec(ctx, s.query, args)
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
