package core

import (
	"context"
	"fmt"

	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// Reach has something known of the database, which the connection asks PostgreSQL for.
func (c *Conn) Reach(ctx context.Context) error {
	if err := c.enter(); err != nil {
		return err
	}
	_, err := c.state(ctx)
	return err
}

// Reached reports that something is known of the database.
func (d *DB) Reached() bool { return d.space() != nil }

// Apply invalidates what events tell of, see cachedpg.Apply.
func (d *DB) Apply(ctx context.Context, events ...invalidation.Event) error {
	sp := d.space()
	if sp == nil { // others may cache where this DB does not, so to say nothing would lose the events
		return errNoStore
	}
	if err := d.StrangerThan(sp); err != nil {
		return err
	}
	var tags []store.Tag
	for _, e := range events {
		if source := sp.Key.Identity.String(); e.Source != source {
			return fmt.Errorf("cachedpg: an event of database %s, and this is %s", e.Source, source)
		}
		tags = append(tags, e.Tags...)
	}
	// What they tell of is visible already, so new stamps are enough.
	return sp.Store.Release(ctx, store.NewWriter(), tags)
}
