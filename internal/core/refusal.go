package core

import (
	"context"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/space"
)

// allProblems are those of the DB and of the space that it uses.
func (d *DB) allProblems() []space.Problem {
	all := d.problems.List()
	if sp := d.space(); sp != nil {
		all = append(all, sp.Problems.List()...)
	}
	return all
}

// refusal says which of the driver's own work PostgreSQL refuses, which does not pass by
// itself. It has it tried again: perhaps it was granted since.
func (c *Conn) refusal(ctx context.Context) error {
	if c.d.Config.Store == config.StoreOff {
		return nil
	}
	if sp := c.known.space; guard.Refused(c.d.problems.Err(space.WorkSession)) || sp != nil && guard.Refused(sp.Problems.Err(space.WorkCatalog)) {
		c.refused = time.Time{}
		if _, err := c.state(ctx); err != nil {
			return err
		}
	}
	found := &c.d.problems
	if sp := c.known.space; sp != nil && !guard.Refused(found.Err(space.WorkSession)) {
		found = &sp.Problems
		if sp.Lease != nil && guard.Refused(found.Err(space.WorkWatch)) {
			sp.Lease.Holds(ctx)
		}
	}
	for w := range found {
		if err := found.Err(space.Work(w)); guard.Refused(err) && space.Work(w) != space.WorkCommit {
			return fmt.Errorf("%w: PostgreSQL refuses what the driver asks (%s): %w", peers.ErrWithheld, space.WorkNames[w], err)
		}
	}
	return nil
}
