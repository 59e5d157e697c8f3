package core

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// database/sql closes a connector with its DB if it is an io.Closer, and many wrappers
// hide that the face's is one. Then only its connections show it: a DB of which the last
// one was closed gives up what it holds in PostgreSQL and in the background, and begins
// anew with the next one. It does so
//
//   - at once when it is sql.DB.Close that closes that last one, or when it was opened by
//     Driver.Open, as by wrappers without driver.DriverContext;
//   - after a while otherwise: a pool may be about to open another one.
//
// Where database/sql calls Connect itself, it will call Close, and a cache in memory
// outlives a pool that has no connection for a time.

// restAfter is how long a DB behind a wrapper keeps its cache without a connection.
const restAfter = 10 * time.Second

// occupancy counts the connections of a DB.
type occupancy struct {
	mu     sync.Mutex // guards the fields below
	open   int
	direct atomic.Bool // database/sql itself calls Connect, and will call Close
	timer  *time.Timer // nil, or until the DB rests
}

// enter counts a connection in. direct: database/sql asked for it.
func (t *occupancy) enter(direct bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	if direct {
		t.direct.Store(true)
	}
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// leave counts a connection out. The last one calls rest, which is not called again before
// another has entered; at once if now says so.
func (t *occupancy) leave(now func() bool, rest func()) {
	t.mu.Lock()
	t.open--
	last := t.open == 0 && !t.direct.Load()
	if last && !now() {
		t.timer = time.AfterFunc(restAfter, func() {
			t.mu.Lock()
			idle := t.timer != nil && t.open == 0
			t.timer = nil
			t.mu.Unlock()
			if idle {
				rest()
			}
		})
		last = false
	}
	t.mu.Unlock()
	if last {
		rest()
	}
}

// stop ends what waits for the DB to rest.
func (t *occupancy) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// Connect returns a connection that has not dialled, unless a hook of the caller's makes that
// necessary: a query that hits never does. direct says that whoever asks for it will call Close.
func (d *DB) Connect(ctx context.Context, direct bool) (*Conn, error) {
	d.occupants.enter(direct)
	d.mu.Lock()
	d.resting = false
	d.mu.Unlock()
	c := d.newConn()
	c.counted = true
	if d.eager && d.places == nil { // else when it is needed
		if err := c.dial(ctx); err != nil {
			d.vacate()
			return nil, err
		}
	}
	return c, nil
}

// OpenedBy has gone called for each connection that is closed: whoever opens connections by the DB decides when
// that is closed. It is called before the first Connect.
func (d *DB) OpenedBy(gone func()) { d.opener = gone }

// ClosedBy has closes asked, when the last connection is closed, whether that is of an end of the pool which nobody else
// tells of. It is called before the first Connect.
func (d *DB) ClosedBy(closes func() bool) { d.closing = closes }

// Direct reports that somebody has called Connect who will call Close.
func (d *DB) Direct() bool { return d.occupants.direct.Load() }

// vacate counts a connection out that Connect has counted in.
func (d *DB) vacate() {
	if d.opener != nil {
		d.opener()
		return
	}
	d.occupants.leave(d.closing, d.rest)
}

// rest gives up the DB's share of the cache until it is asked for a connection again.
func (d *DB) rest() {
	d.mu.Lock()
	d.resting = true
	d.mu.Unlock()
	if d.places != nil {
		d.places.closeFree(false)
	}
	_ = d.giveUp() // what is still queued is applied by who comes next
}
