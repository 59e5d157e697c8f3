package core

import (
	"context"
	"time"
)

// dial connects and learns the state that the session starts in.
func (c *Conn) dial(ctx context.Context) error {
	if c.d.idlers.tight.Load() && c.whose != usedByApplier {
		if b := c.d.idlers.take(); b != nil {
			c.link, b.holder = b, c
			c.d.idlers.add(c)
			return nil
		}
	}
	b := &link{holder: c, pristine: true, until: time.Now().Add(lifetime())}
	if b.dialled.space = c.d.space(); b.dialled.space != nil {
		b.dialled.view, b.dialled.generation = b.dialled.space.View.Load(), b.dialled.space.Gens.Current()
	}
	var err error
	if c.whose == usedByApplier && c.d.wrapped != nil {
		b.inner, err = c.d.dial(ctx) // who waits for it may have the last place in the pool
	} else {
		b.inner, err = c.d.connectFirst(ctx, b)
	}
	if err != nil {
		c.vacate()
		return err
	}
	c.link = b
	c.adoptTx()
	if c.resumes() {
		return nil
	}
	if err := c.learn(ctx); err != nil && b.inner.Closed() {
		c.hangUp()
		c.vacate()
		return err
	}
	c.d.idlers.add(c)
	return nil
}

// connect gives the connection a backend: a free one, or a new one.
func (c *Conn) connect(ctx context.Context) error {
	if p := c.d.places; p != nil && !c.placement.has() && c.whose != usedByApplier { // who waits for what was queued may have the last place
		b, waited, err := p.take(ctx)
		if c.placement.waited = c.placement.waited || waited; err != nil {
			return err
		}
		c.placement.state = placementTaken
		if b != nil {
			c.link, b.holder, b.needsReset, c.placement.unswept = b, c, true, true
			return nil
		}
	}
	return c.dial(ctx)
}

// redial goes on over another connection. In statement mode nothing of a session is lost.
func (c *Conn) redial(ctx context.Context) error {
	c.hangUp()
	return c.dial(ctx)
}

// hangUp closes the connection to PostgreSQL, and leaves the place to another one.
func (c *Conn) hangUp() {
	b := c.link
	c.link = &c.undialled
	_ = b.close()
	c.d.recant(b)
}

// vacate gives a place back in which there is no backend.
func (c *Conn) vacate() {
	if c.placement.has() {
		c.placement.state = placementNone
		c.d.places.leave()
	}
}
