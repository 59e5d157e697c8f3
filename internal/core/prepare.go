package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// Stmt is a prepared statement on one connection.
type Stmt struct {
	c      *Conn
	query  string
	inputs int
	on     []preparedOn // where PostgreSQL was asked
	runs   int          // executions that could have returned something
}

// preparedOn is a statement that was prepared on a backend.
type preparedOn struct {
	b     *link
	inner backend.Statement
	sql   string // what it is made to return is in it, see returned.go; "" for the caller's own text
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
	s.on, s.inputs = append(s.on, preparedOn{b: s.c.link, inner: inner}), inner.NumInput()
	if known := &s.c.known; known.view != nil && known.current() {
		s.c.d.Plan(known.view, known.session, s.query).Inputs.Store(int32(s.inputs))
	}
	return nil
}

// Close gives the statement up where it was prepared. On a backend that the connection has not in hand it is closed
// when that is used next.
func (s *Stmt) Close() (err error) {
	s.c.stmts.closed(s.query)
	for _, p := range s.on {
		switch {
		case p.b.gone.Load():
		case !s.c.placement.parked && p.b == s.c.link:
			if closing := p.inner.Close(); p.sql == "" {
				err = closing
			}
		case s.c.d.places != nil:
			s.c.d.places.discard(p.b, p.inner)
		}
	}
	s.on = nil
	return err
}

func (s *Stmt) isPrepared() bool { return s.has("") }

func (s *Stmt) has(sql string) bool {
	return slices.ContainsFunc(s.on, func(p preparedOn) bool { return p.b == s.c.link && p.sql == sql })
}

// also has PostgreSQL prepare sql beside the statement itself, once that is executed for the second time: many are not. It
// reports that sql may be sent. Without a statement it may.
func (s *Stmt) also(ctx context.Context, sql string) bool {
	switch {
	case s == nil || s.has(sql):
		return true
	case !s.isPrepared(), s.c.inner.TxStatus() == 'E':
		return false
	}
	if s.runs++; s.runs < 2 {
		return false
	}
	in, guarded := s.c.inner.(*backend.Pgx)
	if guarded = guarded && s.c.tx != nil; guarded {
		in.Guard()
	}
	inner, err := s.c.inner.PrepareContext(ctx, sql)
	if guarded && in.Unguard() {
		_ = in.UndoAside(ctx)
	}
	if err != nil {
		return false
	}
	s.on = append(s.on, preparedOn{s.c.link, inner, sql})
	return true
}

// NumInput is the number of parameters.
func (s *Stmt) NumInput() int { return s.inputs }

// readyFor makes the inner connection ready to run q.
func (c *Conn) readyFor(ctx context.Context, q *call) error {
	if q.prepare == nil {
		return c.ready(ctx)
	}
	if err := q.prepare.prepare(ctx); err != nil {
		return err
	}
	if q.text != nil { // it may have been prepared before there was a catalog to plan with
		q.text.Inputs.Store(int32(q.prepare.inputs))
	}
	return nil
}
