package core

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
)

// learn asks for the session's state. Without an answer it is unknown: reads
// bypass, and writes invalidate everything in the space that was known before.
func (c *Conn) learn(ctx context.Context) error {
	expected := c.known.space
	again := expected != nil && expected.Superseded.Load()
	if expected == nil {
		expected = c.d.space()
	}
	var before *space.View
	if expected != nil {
		before = expected.View.Load()
	}
	change := c.unsettled
	c.known.session = nil
	if !c.mustNotAsk() { // else it is settled when it may be asked, unless another statement changes the settings before
		c.unsettled = nil
	}
	if c.known.space == nil && expected != nil {
		c.known.space = expected
		expected.Enter()
	}
	switch status := c.inner.TxStatus(); {
	case status == 'E':
		return nil // PostgreSQL answers nothing there
	case time.Since(c.refused) < backend.RefusedFor, c.tx != nil && c.tx.refused:
		return nil // it is not asked at every statement
	case c.mustNotAsk():
		return nil
	}
	if c.tx != nil && c.tx.asks {
		c.tx.session = true // its code may have set what its end undoes
	}
	var configured uint64
	if expected != nil {
		configured = expected.Configured.Load() // before the question
	}
	s, pid, err := c.inner.Learn(ctx)
	c.d.problems.Note(space.WorkSession, err)
	if err != nil {
		c.since.session = unknownSession // for what is prepared from now on
		if errors.As(err, new(*pgconn.PgError)) {
			c.unlearned()
		}
		return err
	}
	c.located, c.refused, c.asked = true, time.Time{}, time.Now()
	if c.pid = 0; pid == c.inner.PID() {
		c.pid = pid
	}
	c.commits, c.configured = s.Commits, configured
	if c.inner.TxStatus() == 'I' { // else it was asked under other limits
		c.limit = s.Limit
	}
	session, sp, err := c.d.adopt(s, sighting{direct: c.pid != 0, again: again && s.ID == expected.Key.Identity})
	if err != nil {
		_ = c.inner.Close()
		return err
	}
	if sp != nil {
		c.d.isHome(s.ID, c.inner)
	}
	c.known.session, c.reports = session, c.reportsAs(session)
	c.misread = c.misread || !session.StandardText
	if sp != nil && sp != expected { // of a space that was not known before the question
		c.configured = 0
	}
	if sp != c.known.space {
		if sp != nil {
			sp.Enter()
		}
		if c.known.space != nil {
			c.known.space.Leave()
		}
		c.known.space = sp
	}
	if sp != nil && s.Commits == backend.CommitAsync {
		sp.Asynchronous.Store(true)
	}
	if c.known.view = before; sp != expected {
		c.known.view = nil
	}
	c.known.schemas = s.Schemas
	c.known.temporaries, c.foundIn = s.Temporaries, c.tx
	if c.tx != nil {
		c.tx.isolation = s.Level
	}
	c.settled(change)
	c.publish()
	return nil
}

// unlearned records that PostgreSQL does not tell: the role of the session for a while, one that was set in the
// transaction for as long as that lasts.
func (c *Conn) unlearned() {
	if c.tx != nil && c.tx.session {
		c.tx.refused = true
		return
	}
	c.refused = time.Now()
}

// publish has new connections begin with what is known of this one, if it tells how
// they do.
func (c *Conn) publish() {
	sp := c.known.space
	switch {
	case c.tx != nil || !c.pristine || c.misread || sp == nil:
	case c.isNew(sp) && (!c.d.eager || c.d.places == nil):
		known := c.known
		c.d.known.Store(&known)
		c.d.limit.Store(int64(c.limit))
	case c.placement.has():
		c.d.lend(c.link)
	}
}

// isNew reports that a connection dialled now would begin as this one did:
// ALTER ROLE and ALTER DATABASE change the settings of new sessions alone, and
// they change the catalog.
func (c *Conn) isNew(sp *space.Space) bool {
	v := sp.View.Load()
	switch {
	case c.dialled.space != sp: // nobody knew which it would be
		c.dialled.space, c.dialled.view, c.dialled.generation = sp, v, sp.Gens.Current()
	case c.dialled.view == nil:
		c.dialled.view = v
	}
	return c.dialled.view == v && c.dialled.generation == sp.Gens.Current()
}

// reported stands in for a session whose settings are not known: how its texts are to be
// read PostgreSQL tells by itself.
func (c *Conn) reported() *planning.Session {
	if c.parameter("standard_conforming_strings") != "on" {
		return unknownSession
	}
	return &planning.Session{Session: backend.Session{Reading: backend.NewReading(true, c.parameter("client_encoding"), c.parameter("server_encoding"))}}
}
