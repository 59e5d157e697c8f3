package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/store"
)

// Follow hands every change of the database to sink, see cachedpg.Follow.
func (d *DB) Follow(ctx context.Context, sink invalidation.Sink) error {
	s, err := d.askPrimary(ctx)
	if err != nil {
		return err
	}
	g := &guard.Guard{ID: s.ID}
	g.Add(d)
	defer func() { g.Close() }()
	wait := space.FeedMinWait
	for {
		began := time.Now()
		source := g.ID.String()
		err := (&space.Follower{
			Guard: g,
			Cold: func(ctx context.Context) error {
				return sink.Send(ctx, []invalidation.Event{{Source: source, ID: "start/" + began.UTC().Format(time.RFC3339Nano), Time: time.Now(), Tags: space.Everything}})
			},
			Intend: func(context.Context, store.WriterID, []store.Tag) error { return nil },
			Apply: func(ctx context.Context, txs []*space.Followed, _ int64) error {
				events := make([]invalidation.Event, len(txs))
				for i, t := range txs {
					events[i] = invalidation.Event{Source: source, Time: t.Committed, Tags: t.Tags,
						ID: fmt.Sprintf("%X/%X/%d", t.LSN>>32, uint32(t.LSN), t.FullXID)}
				}
				return sink.Send(ctx, events)
			},
			Started: func() {},
		}).Run(ctx)
		var wrong *walfeed.ConfigError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &wrong), errors.Is(err, ErrStop):
			return err
		}
		if time.Since(began) > space.FeedMaxWait {
			wait = space.FeedMinWait
		}
		_ = pause.For(ctx, wait)
		wait = min(2*wait, space.FeedMaxWait)
		if s, err := d.askPrimary(ctx); err == nil && s.ID != g.ID { // it was restarted, or promoted
			g.Close()
			g = &guard.Guard{ID: s.ID}
			g.Add(d)
		}
	}
}

func (d *DB) askPrimary(ctx context.Context) (*backend.Session, error) {
	s, err := d.ask(ctx)
	if err == nil && s.Standby {
		err = errors.New("cachedpg: Follow: PostgreSQL is a replica; connect to the primary")
	}
	return s, err
}

// ErrStop, wrapped in the error of a Sink's Send, ends Follow.
var ErrStop = errors.New("cachedpg: the sink takes no more events")

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
