package core

import "github.com/cachedpg/cachedpg/internal/guard"

// Idle is called when nobody has a use for the connection for now.
func (c *Conn) Idle() {
	if c.placement.has() {
		c.putBack(true)
	} else {
		c.rests()
	}
}

// putBack gives the place back. keeps says that the connection may be used again, with what is its own.
func (c *Conn) putBack(keeps bool) {
	p := c.d.places
	_ = c.enter() // what was going on past the driver is over
	switch {
	case c.inner == nil:
		c.vacate()
	case c.inner.Closed():
		p.suspect()
		p.end(c.detach())
	case c.inner.TxStatus() != 'I':
		p.end(c.detach())
	case c.attached && keeps && p.park(c):
		c.placement.parked = true
	case c.attached, c.outdated():
		p.end(c.detach())
	default:
		c.d.lend(c.link)
		p.give(c.detach())
	}
}

// outdated reports that a connection dialled now would begin otherwise, after ALTER ROLE … SET say. Misses of those who go by
// that would find this one's session, and could not be stored.
func (c *Conn) outdated() bool {
	known, own := c.d.known.Load(), c.known.session
	return own != nil && !c.d.eager && known.current() && known.session.ID == own.ID && !known.session.Same(&own.Session)
}

// attach notes that the session has something from now on that is the connection's own.
func (c *Conn) attach() {
	if !c.attached {
		c.attached = true
		c.d.recant(c.link)
	}
}

// mayWait reports that the connection may wait for others who miss the same. Whoever has a place must not;
// one that was only asked for the session is given back before.
func (c *Conn) mayWait() bool {
	if c.placement.state == placementTaken && c.tx == nil && !c.attached && c.inner != nil && !c.inner.Closed() {
		c.putBack(false)
	}
	return !c.placement.has()
}

// rests notes that database/sql has c idle.
func (c *Conn) rests() {
	if c.inner == nil || c.d.eager || c.d.places != nil || !c.pristine || c.attached || c.handedOut || c.prepared ||
		c.misread || c.whose == usedByApplier || c.enter() != nil || c.tx != nil || c.aloneLocks > 0 || c.shown != (guard.Lock{}) || c.inner.Closed() || c.inner.TxStatus() != 'I' {
		return
	}
	c.idle.Store(isIdle)
}
