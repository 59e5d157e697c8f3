package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/keying"
)

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

// moved reports that what is known of the connection's server has come to its end.
func (c *Conn) moved() bool {
	return c.known.space != nil && c.known.space.Superseded.Load() || c.promoted()
}

// beginWarm has what can be known before a transaction begins, and for who pings: the session, the first
// catalog of the process, for which reads do not wait, and what was under way.
func (c *Conn) beginWarm(ctx context.Context) error {
	known, err := c.state(ctx)
	if err == nil && known.session != nil && known.view == nil && known.space != nil && known.space.Loads.Begins() && known.space.Loads.Await(ctx, nil, patience.Load) != nil {
		_, err = c.state(ctx)
	}
	if err == nil {
		c.warmFirst(ctx)
	}
	return err
}

// warmFirst is called before a transaction begins: in it Space.IsWarm asks nobody, and it may be
// all that there ever is. What was under way counts from when others could see this process.
func (c *Conn) warmFirst(ctx context.Context) {
	sp := c.known.space
	if sp == nil || sp.Keeper != nil || sp.Before.Load().Warm.Load() || sp.Peers.MayHit(ctx) != keying.NoReason {
		return
	}
	sp.IsWarm(ctx, c.inner, c.known.shared(), c.known.view)
}
