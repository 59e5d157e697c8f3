package cachedpg

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// Apply invalidates what events tell of in the store of db, which is one that
// the events' writers do not use: another region's. It asks PostgreSQL only if
// nothing is known of the database yet, and refuses events of another database,
// see OriginOf. An error means that they have to be applied again.
func Apply(ctx context.Context, db *sql.DB, events ...invalidation.Event) error {
	d, err := findConnector(ctx, db)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return nil
	}
	sp, err := d.reach(ctx, db)
	if err != nil {
		return err
	}
	if sp == nil { // others may cache where this DB does not, so to say nothing would lose the events
		return errNoStore
	}
	if err := d.strangerThan(sp); err != nil {
		return err
	}
	var tags []store.Tag
	for _, e := range events {
		if source := sp.key.Identity.String(); e.Source != source {
			return fmt.Errorf("cachedpg: an event of database %s, and this is %s", e.Source, source)
		}
		tags = append(tags, e.Tags...)
	}
	// What they tell of is visible already, so new stamps are enough.
	return sp.store.Release(ctx, store.NewWriter(), tags)
}

// reach returns the space of db, dialling if nothing is known of the database
// yet; nil if nothing can be cached there.
func (d *connector) reach(ctx context.Context, db *sql.DB) (*space, error) {
	if sp := d.space(); sp != nil {
		return sp, nil
	}
	err := withConn(ctx, db, func(c *Conn) error {
		if err := c.enter(); err != nil {
			return err
		}
		_, err := c.state(ctx)
		return err
	})
	return d.space(), err
}
