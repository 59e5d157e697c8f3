package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/cachedpg/cachedpg/internal/core"
)

// Tracing and metrics come as a driver around a driver, and an sql.DB of such a one shows
// neither our Driver nor our Conn. Some tell what they wrap, by methods named Raw or
// Unwrap. Of the others a connection is asked who it is, in a context that wrappers pass on.

// Database is what a database was opened as: an *sql.DB, or a driver.Connector, also where
// another driver is wrapped around this one.
type Database interface{ Driver() driver.Driver }

// whoAreYou is for wrappers that do not pass Ping on. Another driver takes it for a comment.
const whoAreYou = "-- cachedpg: who are you?"

type whoKey struct{}

// who is answered by the connection that a context with it reaches.
type who struct{ conn *Conn }

func (c *Conn) isAskedWho(ctx context.Context) bool {
	w, ok := ctx.Value(whoKey{}).(*who)
	if ok {
		w.conn = c
	}
	return ok
}

// connUnder is the Conn under conn, or errNotOurs. It is conn's to lend: to be used inside
// of Raw.
func connUnder(ctx context.Context, conn *sql.Conn) (c *Conn, err error) {
	err = conn.Raw(func(driverConn any) error {
		c = unwrap(driverConn)
		return nil
	})
	if c != nil || err != nil {
		return c, err
	}
	var w who
	asking := context.WithValue(ctx, whoKey{}, &w)
	if _ = conn.PingContext(asking); w.conn == nil && ctx.Err() == nil {
		_, _ = conn.ExecContext(asking, whoAreYou)
	}
	switch {
	case w.conn != nil:
		return w.conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, errNotOurs
}

// unwrap is nil where a wrapper does not tell what it wraps.
func unwrap(driverConn any) *Conn {
	for {
		switch wrapper := driverConn.(type) {
		case *Conn:
			return wrapper
		case interface{ Raw() driver.Conn }:
			driverConn = wrapper.Raw()
		case interface{ Unwrap() driver.Conn }:
			driverConn = wrapper.Unwrap()
		default:
			return nil
		}
	}
}

// withConn lends f a connection of db.
func withConn(ctx context.Context, db Database, f func(*core.Conn) error) error {
	pool, ok := db.(*sql.DB)
	if !ok {
		own, ok := db.(*connector)
		if ok {
			c, err := own.db.Connect(ctx, false)
			if err != nil {
				return err
			}
			defer c.Close()
			return f(c)
		}
		wrapper, ok := db.(driver.Connector)
		if !ok {
			return errNotOurs
		}
		pool = sql.OpenDB(struct{ driver.Connector }{wrapper}) // which leaves it open
		defer pool.Close()
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := connUnder(ctx, conn)
	if err != nil {
		return err
	}
	return conn.Raw(func(any) error { return f(c.conn) })
}

// wrapped is which *core.DB an *sql.DB behind a wrapper has, by weak.Pointer[sql.DB].
var wrapped sync.Map

// dbOf is what db has of the driver as far as that is known without asking; else nil.
func dbOf(db Database) *core.DB {
	switch db := db.(type) {
	case *connector:
		return db.db
	case *sql.DB:
		if d, ok := wrapped.Load(weak.Make(db)); ok {
			return d.(*core.DB)
		}
	}
	if d, ok := db.Driver().(*Driver); ok && d.connector != nil {
		return d.connector.db
	}
	return nil
}

// findDB is dbOf, and takes a connection of db if need be.
func findDB(ctx context.Context, db Database) (d *core.DB, err error) {
	if d = dbOf(db); d != nil {
		return d, nil
	}
	err = withConn(ctx, db, func(c *core.Conn) error {
		d = c.DB()
		return nil
	})
	if pool, ok := db.(*sql.DB); ok && err == nil {
		key := weak.Make(pool)
		if _, known := wrapped.Swap(key, d); !known {
			runtime.AddCleanup(pool, func(key weak.Pointer[sql.DB]) { wrapped.Delete(key) }, key)
		}
	}
	return d, err
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
		d.db.OpenedBy(func() { o.gone(d) })
		if o.byName == nil {
			o.byName, o.users = make(map[string]*connector), make(map[*connector]int)
		}
		o.byName[name] = d
	}
	o.users[d]++
	o.mu.Unlock()
	c, err := d.db.Connect(ctx, false)
	if err != nil {
		return nil, err // Connect has counted it out
	}
	return &Conn{c}, nil
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
