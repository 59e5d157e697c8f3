package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// ready makes the inner connection usable. If it has ended since the caller was given
// this one, and before anything of the caller's was sent, it is replaced: database/sql
// would try another connection, but not for Ping, nor for an sql.Conn.
func (c *Conn) ready(ctx context.Context) error {
	err := c.usable(ctx)
	if err == nil {
		c.placement.uses()
	}
	return err
}

// usable is ready for a question of the driver's own.
func (c *Conn) usable(ctx context.Context) error {
	if c.inner == nil {
		if err := c.connect(ctx); err != nil || !c.needsReset {
			return err
		}
	}
	if err := c.reset(ctx); err != nil || !c.placement.unswept {
		return err
	}
	c.placement.unswept = false
	c.sweep()
	return nil
}

// reset sees to it that a connection which was not in use is still there.
func (c *Conn) reset(ctx context.Context) error {
	if c.suspect {
		c.suspect = false
		_ = c.inner.Ping(ctx)
	}
	ended := c.inner.Closed()
	switch {
	case !c.needsReset && ended:
		return backend.ErrBadConn
	case !c.needsReset || ctx.Err() != nil: // with a context that has ended nothing is sent, so nothing needs it
		return nil
	}
	c.needsReset = false
	if !ended {
		if err := c.inner.ResetSession(ctx); err != backend.ErrBadConn {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.placement.has() {
		c.d.places.suspect()
	}
	return c.redial(ctx)
}

// sweep closes what was discarded while the backend was not in use.
func (c *Conn) sweep() {
	p := c.d.places
	p.mu.Lock()
	discarded := c.discarded
	c.discarded = nil
	p.mu.Unlock()
	for _, s := range discarded {
		_ = s.Close() // if it fails the connection is closed, or the statement is gone
	}
}
