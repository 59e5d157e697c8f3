package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/internal/space"
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

// ErrStop is cachedpg.ErrStop.
var ErrStop = feed.ErrStop

// Follow hands every change of the database to sink, see cachedpg.Follow.
func (d *DB) Follow(ctx context.Context, sink invalidation.Sink) error {
	return feed.Follow(ctx, feed.Source{Ask: d.ask, Dialler: d, Everything: space.Everything}, sink)
}

// ask returns what a connection of the connector's own says of its database.
func (d *DB) ask(ctx context.Context) (*backend.Session, error) {
	in, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s, _, err := in.Learn(ctx)
	return s, err
}

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

var (
	errNoStore = errors.New("cachedpg: there is no store to apply events to: cache_store is off, or PostgreSQL is a standby, where nothing is cached; name the region's store, and the primary")
	errMoved   = errors.New("cachedpg: connections reach different databases; a failover is under way")
	errStandby = errors.New("cachedpg: PostgreSQL is a standby, where nothing is cached; connect to the primary, with target_session_attrs=read-write in the DSN")
)

// Origin is cachedpg.Origin.
type Origin struct {
	Source string
	Shared bool
}

// Origin asks PostgreSQL which database the connection leads to, see cachedpg.OriginOf.
func (c *Conn) Origin(ctx context.Context) (o Origin, err error) {
	if err := c.enter(); err != nil {
		return o, err
	}
	if err := c.ready(ctx); err != nil {
		return o, err
	}
	if err := c.learn(ctx); err != nil {
		return o, err
	}
	switch sp := c.known.space; {
	case c.known.session == nil:
		return o, errors.New("cachedpg: PostgreSQL does not say which database it is")
	case c.known.session.Standby:
		return o, errStandby
	case sp == nil:
		return o, errNoStore
	case c.d.StrangerThan(sp) != nil:
		return o, space.ErrOtherStore
	case c.d.space() != sp:
		return o, errMoved // by a connection that reaches another server; the next question tells which one stays
	default:
		return Origin{Source: sp.Key.Identity.String(), Shared: sp.Keeper != nil}, nil
	}
}
