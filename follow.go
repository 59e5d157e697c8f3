package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/store"
)

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
	d, err := findConnector(ctx, db)
	if err != nil {
		return err
	}
	s, err := d.askPrimary(ctx)
	if err != nil {
		return err
	}
	g := &guard.Guard{ID: s.ID}
	g.Add(d)
	defer func() { g.Close() }()
	wait := feedMinWait
	for {
		began := time.Now()
		source := g.ID.String()
		err := (&follower{
			guard: g,
			cold: func(ctx context.Context) error {
				return sink.Send(ctx, []invalidation.Event{{Source: source, ID: "start/" + began.UTC().Format(time.RFC3339Nano), Time: time.Now(), Tags: everything}})
			},
			intend: func(context.Context, store.WriterID, []store.Tag) error { return nil },
			apply: func(ctx context.Context, txs []*followed, _ int64) error {
				events := make([]invalidation.Event, len(txs))
				for i, t := range txs {
					events[i] = invalidation.Event{Source: source, Time: t.Committed, Tags: t.tags,
						ID: fmt.Sprintf("%X/%X/%d", t.LSN>>32, uint32(t.LSN), t.xid)}
				}
				return sink.Send(ctx, events)
			},
			started: func() {},
		}).run(ctx)
		var wrong *walfeed.ConfigError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &wrong), errors.Is(err, ErrStop):
			return err
		}
		if time.Since(began) > feedMaxWait {
			wait = feedMinWait
		}
		_ = pause.For(ctx, wait)
		wait = min(2*wait, feedMaxWait)
		if s, err := d.askPrimary(ctx); err == nil && s.ID != g.ID { // it was restarted, or promoted
			g.Close()
			g = &guard.Guard{ID: s.ID}
			g.Add(d)
		}
	}
}

func (d *connector) askPrimary(ctx context.Context) (*backend.Session, error) {
	s, err := d.ask(ctx)
	if err == nil && s.Standby {
		err = errors.New("cachedpg: Follow: PostgreSQL is a replica; connect to the primary")
	}
	return s, err
}

// ErrStop, wrapped in the error of a Sink's Send, ends Follow.
var ErrStop = errors.New("cachedpg: the sink takes no more events")

// ask returns what a connection of the connector's own says of its database.
func (d *connector) ask(ctx context.Context) (*backend.Session, error) {
	in, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s, _, err := in.Learn(ctx)
	return s, err
}
