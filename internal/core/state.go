package core

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// state is where a connection stands: a session, the space of its database,
// and the catalog in use when the session was learned, or one with the same schemas. The
// effective search_path depends on which schemas exist, so that one with others wants it learned again.
type state struct {
	session     *planning.Session // nil when not known, because a statement may have changed it
	space       *space.Space      // nil when nothing may be cached there
	view        *space.View
	schemas     catalog.Schemas
	temporaries *keying.Temporaries // known if session is
}

// shared is the session as others see it, nil when it is not known.
func (st *state) shared() *backend.Session {
	if st.session == nil {
		return nil
	}
	return &st.session.Session
}

// fits reports that a session that was learned with these schemas is what it was with the catalog v.
func (st *state) fits(v *space.View) bool {
	schemas := st.schemas
	if st.view != nil {
		schemas = st.view.Snapshot.Schemas() // a SET may have led to it since, which was looked up with that
	}
	return st.session != nil && st.temporaries == nil && schemas != "" && schemas == v.Snapshot.Schemas()
}

// current reports that nothing has happened since the state was learned.
func (st *state) current() bool {
	return st != nil && st.session != nil && (st.space == nil || st.view != nil && st.space.View.Load() == st.view)
}

// state returns what is known of the session that will run a statement; it
// asks PostgreSQL for what is not. An error is one of dialling.
func (c *Conn) state(ctx context.Context) (*state, error) {
	if c.inner == nil {
		if known := c.d.known.Load(); known.current() && known.space.Before.Load().Warm.Load() { // else it is asked, see Space.IsWarm
			return known, nil
		}
	} else if c.joinLate(); c.known.current() && !c.promoted() && c.agrees() && c.since.holds(c.known.view) {
		return &c.known, nil
	}
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if c.inner.TxStatus() != 'I' && c.tx != nil {
		return c.stateInTx(ctx), nil
	}
	if c.known.session == nil || c.moved() || !c.agrees() {
		_ = c.learn(ctx) // unknown stays unknown
	}
	sp := c.known.space
	if sp == nil || c.known.session == nil {
		c.renew(ctx, nil)
		return &c.known, nil
	}
	v := sp.View.Load()
	if v == nil {
		v = sp.Loads.Await(ctx, nil, c.d.readPatience)
	}
	switch {
	case v == nil || c.known.view == v || c.known.space != sp:
	case c.known.fits(v):
		c.known.view = v
		c.settled(nil) // as if it had been asked
		c.publish()
	default:
		_ = c.learn(ctx)
	}
	c.renew(ctx, v)
	return &c.known, nil
}

// stateInTx is state in the caller's transaction. Nothing is asked in it before the caller has
// run a statement there that fixes its snapshot, and its isolation level with it: a question would do that.
//
//	caller                                  driver
//	BEGIN
//	SET TRANSACTION ISOLATION LEVEL …
//	                                        (SELECT …)
//	                                        (25001: must be called before any query)
//
// So what there is to ask is asked before the transaction begins. If the catalog is replaced while it
// lasts, its writes are planned with the one of before, which its commit finds out,
// and its reads ask PostgreSQL.
func (c *Conn) stateInTx(ctx context.Context) *state {
	if c.known.session == nil || !c.agrees() {
		_ = c.learn(ctx)
	}
	if !c.mustNotAsk() && c.known.view != nil {
		c.renew(ctx, c.known.view) // what was prepared before is of the catalog before
	}
	return &c.known
}

// standbyFor is how long it is believed, where PostgreSQL does not tell by
// itself, that a server is still a standby.
const standbyFor = 2 * time.Second

// promoted reports that the connection was to a standby which may not be one any
// more. PostgreSQL tells by itself after the first statement that it answers since.
func (c *Conn) promoted() bool {
	s := c.known.session
	return s != nil && s.Standby && (c.inStandby() == "off" || time.Since(c.asked) > standbyFor)
}

// inStandby is "on" if the server was a standby when it had answered last, "off"
// if not, or "" where nobody tells.
func (c *Conn) inStandby() string {
	if c.pid == 0 {
		return ""
	}
	return c.parameter("in_hot_standby")
}

// drifts reports that a statement on the connection may reach another server, or a standby that
// is none any more, than what is known of it says.
func (c *Conn) drifts() bool {
	return c.located && (c.pid == 0 || c.known.session != nil && c.known.session.Standby)
}

// joinLate lets a DB that caches nothing join the space of those who do, as
// soon as there is one: its writes concern them.
func (c *Conn) joinLate() {
	if c.d.Config.Store != config.StoreOff || c.known.session == nil || c.known.space != nil {
		return
	}
	if _, sp, err := c.d.adopt(&c.known.session.Session, sighting{}); err == nil && sp != nil {
		sp.Enter()
		c.known.space, c.known.view = sp, nil
	}
}

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

// unlearned takes in that PostgreSQL does not tell: the role of the session for a while, one that was set in the
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
