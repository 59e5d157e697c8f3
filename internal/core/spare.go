package core

import (
	"context"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// The driver has connections of its own, for what must not wait for a place in the pool. Where PostgreSQL
// has no place for them beside the pool, because a role's CONNECTION LIMIT is as large as that, say, a caller
// comes first: if PostgreSQL refuses his connection, the driver closes its own, and he tries again. Without
// any of its own it serves nothing from memory, and Stats.Problems and Ping say so.

var errCallersFirst = fmt.Errorf("%w: callers need all of them", errNoPlace)

// placePatience bounds how long a caller's connection is tried for once the driver has closed its own:
// their backends take a moment to end.
const placePatience = time.Second

// connectFirst is connect for a caller.
func (d *DB) connectFirst(ctx context.Context, b *link) (in backend.Conn, err error) {
	if in, err = d.connect(ctx, b); !pgerr.Is(err, pgerr.TooManyConnections) || d.space() == nil && d.Config.Store == config.StoreOff {
		return in, err
	}
	d.idlers.tight.Store(true)
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	some := false
	for began, wait := time.Now(), 2*time.Millisecond; time.Since(began) < placePatience; wait *= 2 {
		// What was dialled meanwhile goes too. Without any, one of the driver's own may have just ended.
		if some = d.makesRoom() || some; !some && wait > 16*time.Millisecond {
			break
		}
		if pause.For(ctx, wait) != nil {
			return nil, err
		}
		if in, err = d.connect(ctx, b); !pgerr.Is(err, pgerr.TooManyConnections) {
			break
		}
	}
	return in, err
}

// makesRoom closes the connections of the driver's own that can be closed at once. It reports whether there were any.
func (d *DB) makesRoom() (some bool) {
	d.mu.Lock()
	var guards []*guard.Guard
	for _, sp := range d.spaces {
		some = some || sp.Loads.UnderWay() // over a connection that is closed then
		guards = append(guards, sp.Guard)
	}
	d.mu.Unlock()
	for _, g := range guards {
		some = g.MakesRoom() || some
	}
	return some
}
