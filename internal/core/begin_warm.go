package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/keying"
)

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
