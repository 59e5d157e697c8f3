package feed

import (
	"context"
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

// ErrStop, wrapped in the error of a Sink's Send, ends Follow.
var ErrStop = errors.New("cachedpg: the sink takes no more events")

// Source is what Follow needs of the driver.
type Source struct {
	Ask        func(context.Context) (*backend.Session, error) // what a connection says of its database
	Dialler    guard.Dialler
	Everything []store.Tag // what nothing survives
}

// Follow hands every change of the database to sink, see cachedpg.Follow.
func Follow(ctx context.Context, from Source, sink invalidation.Sink) error {
	s, err := from.askPrimary(ctx)
	if err != nil {
		return err
	}
	g := &guard.Guard{ID: s.ID}
	g.Add(from.Dialler)
	defer func() { g.Close() }()
	wait := minWait
	for {
		began := time.Now()
		source := g.ID.String()
		err := (&follower{
			guard: g, everything: from.Everything,
			cold: func(ctx context.Context) error {
				return sink.Send(ctx, []invalidation.Event{{Source: source, ID: "start/" + began.UTC().Format(time.RFC3339Nano), Time: time.Now(), Tags: from.Everything}})
			},
			intend: func(context.Context, store.WriterID, []store.Tag) error { return nil },
			apply: func(ctx context.Context, txs []*followed, _ int64) error {
				events := make([]invalidation.Event, len(txs))
				for i, t := range txs {
					events[i] = invalidation.Event{Source: source, Time: t.Committed, Tags: t.tags,
						ID: fmt.Sprintf("%X/%X/%d", t.LSN>>32, uint32(t.LSN), t.fullXID)}
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
		if time.Since(began) > maxWait {
			wait = minWait
		}
		_ = pause.For(ctx, wait)
		wait = min(2*wait, maxWait)
		if s, err := from.askPrimary(ctx); err == nil && s.ID != g.ID { // it was restarted, or promoted
			g.Close()
			g = &guard.Guard{ID: s.ID}
			g.Add(from.Dialler)
		}
	}
}

func (from *Source) askPrimary(ctx context.Context) (*backend.Session, error) {
	s, err := from.Ask(ctx)
	if err == nil && s.Standby {
		err = errors.New("cachedpg: Follow: PostgreSQL is a replica; connect to the primary")
	}
	return s, err
}
