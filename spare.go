package cachedpg

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// The driver has connections of its own, for what must not wait for a place in the pool. Where PostgreSQL
// has no place for them beside the pool, because a role's CONNECTION LIMIT is as large as that, say, two things follow:
//
//   - A caller comes first. If PostgreSQL refuses his connection, the driver closes its own, and he tries again.
//   - Since hits need an answer of PostgreSQL every two seconds, and what answers them needs no connection, the driver asks for
//     a place: the connection of the pool that is taken next, and on which a caller has left nothing, is closed, and another one
//     taken. That is asked for every few seconds, however often callers need all places again.

// tooManyConnections is PostgreSQL's code for it.
const tooManyConnections = "53300"

var errCallersFirst = errors.New("cachedpg: PostgreSQL has no place for a connection of the driver's own: callers need all of them")

const (
	spareMin = time.Second
	spareMax = 4 * time.Second

	// placePatience bounds how long a caller's connection is tried for once the driver has closed its own:
	// their backends take a moment to end.
	placePatience = time.Second
)

// spare is a wish for a place in the number of connections.
type spare struct {
	wanted  atomic.Bool
	callers atomic.Int64 // that are refused a connection; until they have one the driver dials none
	retry   *backoff
}

func newSpare() *spare { return &spare{retry: &backoff{min: spareMin, max: spareMax}} }

// wish has a connection of the pool closed soon.
func (s *spare) wish() {
	if s.retry.due(time.Now()) {
		s.wanted.Store(true)
	}
}

// gives reports that the connection is to be closed because the driver has no place for one of its own. Only
// one on which a caller has left nothing may go. database/sql takes the next one instead.
func (c *Conn) gives() bool {
	return c.pristine && !c.used && c.tx == nil && c.d.wrapped == nil && !c.applies && c.announced == 0 && c.shown == (post{}) &&
		c.d.spare.wanted.Load() && c.d.spare.wanted.Swap(false)
}

// connectFirst is connect for a caller.
func (d *connector) connectFirst(ctx context.Context, c *Conn) (in inner, err error) {
	if in, err = d.connect(ctx, c); !refusedAs(err, tooManyConnections) || d.space() == nil && d.config.Store == storeOff {
		return in, err
	}
	d.spare.callers.Add(1)
	defer d.spare.callers.Add(-1)
	some := false
	for began, wait := time.Now(), 2*time.Millisecond; time.Since(began) < placePatience; wait *= 2 {
		// What was dialled meanwhile goes too. Without any, one of the driver's own may have just ended.
		if some = d.makesRoom() || some; !some && wait > 16*time.Millisecond {
			break
		}
		if sleep(ctx, wait) != nil {
			return nil, err
		}
		if in, err = d.connect(ctx, c); !refusedAs(err, tooManyConnections) {
			break
		}
	}
	return in, err
}

// makesRoom closes the connections of the driver's own that can be closed at once. It reports whether there were any.
func (d *connector) makesRoom() (some bool) {
	d.mu.Lock()
	var guards []*guard
	for _, sp := range d.spaces {
		some = some || sp.loads.underWay() // over a connection that is closed then
		guards = append(guards, sp.guard)
		if sp.lease != nil {
			guards = append(guards, &sp.lease.own)
		}
	}
	d.mu.Unlock()
	for _, g := range guards {
		some = g.makesRoom() || some
	}
	return some
}

// makesRoom closes the guard's connection unless a question is under way.
func (g *guard) makesRoom() bool {
	if !g.mu.tryLock() {
		return true // it ends soon, and with it perhaps the need
	}
	defer g.mu.Unlock()
	if g.in == nil {
		return false
	}
	g.dropLocked()
	return true
}
