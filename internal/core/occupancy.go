package core

import (
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
