package cachedpg

import (
	"context"
	"database/sql"
	"time"

	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/invalidation"
)

// Invalidate makes every result that reads one of the relations stale, and
// every result when none is named. It is for writes that went past the driver,
// and to be called after they have committed. A name is as in SQL, resolved by
// the search_path of a new connection. It asks PostgreSQL only if nothing is
// known of the database yet.
//
// Results do not depend on a relation of strategy "ttl", so that to name one makes
// every result stale.
func Invalidate(ctx context.Context, db Database, relations ...string) error {
	return withConn(ctx, db, func(c *core.Conn) error { return c.Invalidate(ctx, relations) })
}

// Apply invalidates what events tell of in the store of db, which is one that
// the events' writers do not use: another region's. It asks PostgreSQL only if
// nothing is known of the database yet, and refuses events of another database,
// see OriginOf. An error means that they have to be applied again.
func Apply(ctx context.Context, db *sql.DB, events ...invalidation.Event) error {
	d, err := findDB(ctx, db)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return nil
	}
	if !d.Reached() {
		if err := withConn(ctx, db, func(c *core.Conn) error { return c.Reach(ctx) }); err != nil {
			return err
		}
	}
	return d.Apply(ctx, events...)
}

// Origin says whose events Apply takes for a DB, and where to.
type Origin struct {
	// Source is that of the database's events: "system/timeline/start/name/oid".
	// It ends with the life of the server: a promotion changes it, a restart, and a
	// change of the database's name.
	Source string

	// Shared says that the store is one that processes share, so that one of
	// them may apply events for all. Otherwise each process has to.
	Shared bool
}

// OriginOf asks PostgreSQL which database db is connected to now, also if that
// was known: after a failover it is another one, and until then Apply would take
// its events for those of a stranger. It is an error if nothing can be cached
// there.
func OriginOf(ctx context.Context, db *sql.DB) (o Origin, err error) {
	err = withConn(ctx, db, func(c *core.Conn) error {
		found, err := c.Origin(ctx)
		o = Origin(found)
		return err
	})
	return o, err
}

// Follow hands every change of db's database that PostgreSQL's write-ahead log
// tells of to sink, until ctx ends, sink fails with an error that it wraps in
// ErrStop, or the database lacks something that only its owner can put right:
// see WALSetupSQL. It blocks. db is one of this driver; whether it caches, and
// Config.External, do not matter.
//
// An event is sent when its transaction is visible, so that who gets it needs
// only Apply. After each start, and each reconnection, the first event carries
// the schema and the catalog tag: what happened before was not heard, and
// everything is cold. Nothing is sent about what sink did not take: after
// its error Follow begins anew, with such an event.
//
// Event.Source is that of OriginOf, Event.ID "LSN/XID" (of a
// start, "start/" and the time), Event.Time the commit by PostgreSQL's clock.
func Follow(ctx context.Context, db *sql.DB, sink invalidation.Sink) error {
	d, err := findDB(ctx, db)
	if err != nil {
		return err
	}
	return d.Follow(ctx, sink)
}

// RelayOptions configures Relay. The zero value means the defaults.
type RelayOptions struct {
	// Sink takes the events of the outbox, such as the Producer of contrib/kafka.
	// Nil: only the shared store of the DB is invalidated, which is done in any case
	// for writers that could not reach it. A row is delivered by one relay: all of a
	// database must have the same sink.
	Sink invalidation.Sink

	// Batch is the number of rows that are taken at once, and the number of
	// events in one call of Sink.Send at most. Default 500.
	Batch int

	// Interval is how often the table is looked at. A request of a writer that
	// waits wakes the relay at once; an event does not, because NOTIFY makes
	// all commits of a database wait for each other. Default 200 ms.
	Interval time.Duration

	// Problem, if not nil, is called with everything that went wrong and is tried
	// again, and with rows that were set aside. It is called by the goroutine that
	// called Relay.
	Problem func(error)
}

// Relay carries the outbox of db's database: it marks for writers that cannot
// reach the shared store, tells that store what its writers could not, and hands
// events to RelayOptions.Sink. It blocks until ctx ends and returns ctx.Err(),
// or until something is wrong that does not pass by itself: no shared store in the
// DSN, no table, no privileges, a pooler that keeps no session.
//
// Any number may run at once, in any processes; they share the rows. A row is
// deleted after it was delivered, so that a relay that dies in between makes
// another deliver it again: at least once, in no order. What cannot be delivered
// stays, and is tried again. Progress is in StatsOf(db).Outbox.
func Relay(ctx context.Context, db *sql.DB, o RelayOptions) error {
	d, err := findDB(ctx, db)
	if err != nil {
		return err
	}
	return d.Relay(ctx, outbox.RelayOptions(o))
}
