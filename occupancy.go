package cachedpg

import (
	"context"
	"database/sql/driver"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// database/sql closes a connector with its DB if it is an io.Closer, and many wrappers
// hide that ours is one. Then its connections are all that tells: a connector of which the last
// one was closed gives up what it holds in PostgreSQL and in the background, and begins
// anew with the next one. It does so
//
//   - at once when it is sql.DB.Close that closes that last one, or when it was opened by
//     Driver.Open, as by wrappers without driver.DriverContext;
//   - after a while otherwise: a pool may be about to open another one.
//
// Where database/sql calls Connect itself, it will call Close, and a cache in memory
// outlives a pool that has no connection for a time.

// restAfter is how long a connector behind a wrapper keeps its cache without a connection.
const restAfter = 10 * time.Second

// occupancy counts the connections of a connector.
type occupancy struct {
	mu     sync.Mutex // guards the fields below
	open   int
	direct atomic.Bool // database/sql itself calls Connect, and will call Close
	timer  *time.Timer // nil, or until the connector rests
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

// stop ends what waits for the connector to rest.
func (t *occupancy) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// calledBySQL reports that the caller's caller is database/sql.
func calledBySQL() bool {
	var pc [1]uintptr
	runtime.Callers(3, pc[:])
	frame, _ := runtime.CallersFrames(pc[:]).Next()
	return strings.HasPrefix(frame.Function, "database/sql.")
}

// closesDB reports that sql.DB.Close is on the way to here.
func closesDB() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for more := true; more; {
		var frame runtime.Frame
		if frame, more = frames.Next(); frame.Function == "database/sql.(*DB).Close" {
			return true
		}
	}
	return false
}

// open is Connect, also for the driver itself.
func (d *connector) open(ctx context.Context) (*Conn, error) {
	return d.openFor(ctx, false)
}

func (d *connector) openFor(ctx context.Context, direct bool) (*Conn, error) {
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

// vacate counts a connection out that open has counted in.
func (d *connector) vacate() {
	if d.opener != nil {
		d.opener.gone(d)
		return
	}
	d.occupants.leave(closesDB, d.rest)
}

// rest gives up the connector's share of the cache until it is asked for a connection again.
func (d *connector) rest() {
	d.mu.Lock()
	d.resting = true
	d.mu.Unlock()
	if d.places != nil {
		d.places.closeFree(false)
	}
	_ = d.giveUp() // what is still queued is applied by who comes next
}

// opened are the connectors of Driver.Open, by DSN, as long as they have a connection.
type opened struct {
	mu     sync.Mutex // guards byName and users
	byName map[string]*connector
	users  map[*connector]int
}

// connect returns a connection of the one connector for name.
func (o *opened) connect(ctx context.Context, name string, openConnector func() (driver.Connector, error)) (driver.Conn, error) {
	o.mu.Lock()
	d := o.byName[name]
	if d == nil {
		made, err := openConnector()
		if err != nil {
			o.mu.Unlock()
			return nil, err
		}
		d = made.(*connector)
		d.opener = o
		if o.byName == nil {
			o.byName, o.users = make(map[string]*connector), make(map[*connector]int)
		}
		o.byName[name] = d
	}
	o.users[d]++
	o.mu.Unlock()
	c, err := d.open(ctx)
	if err != nil {
		return nil, err // open has counted it out
	}
	return c, nil
}

// gone closes a connector with its last connection.
func (o *opened) gone(d *connector) {
	o.mu.Lock()
	o.users[d]--
	last := o.users[d] == 0
	if last {
		delete(o.users, d)
		for name, other := range o.byName {
			if other == d {
				delete(o.byName, name)
			}
		}
	}
	o.mu.Unlock()
	if last {
		_ = d.Close()
	}
}
