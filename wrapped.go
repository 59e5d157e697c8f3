package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"runtime"
	"sync"
	"time"
	"weak"
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
func withConn(ctx context.Context, db Database, f func(*Conn) error) error {
	pool, ok := db.(*sql.DB)
	if !ok {
		own, ok := db.(*connector)
		if ok {
			c, err := own.open(ctx)
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
	return conn.Raw(func(any) error { return f(c) })
}

// wrapped is which connector an *sql.DB behind a wrapper has, by weak.Pointer[sql.DB].
var wrapped sync.Map

// connectorOf is the connector of db as far as that is known without asking; else nil.
func connectorOf(db Database) *connector {
	switch db := db.(type) {
	case *connector:
		return db
	case *sql.DB:
		if d, ok := wrapped.Load(weak.Make(db)); ok {
			return d.(*connector)
		}
	}
	if d, ok := db.Driver().(*Driver); ok {
		return d.connector
	}
	return nil
}

// findConnector is connectorOf, and takes a connection of db if need be.
func findConnector(ctx context.Context, db Database) (d *connector, err error) {
	if d = connectorOf(db); d != nil {
		return d, nil
	}
	err = withConn(ctx, db, func(c *Conn) error {
		d = c.d
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

// statsTimeout bounds the wait of StatsOf for a connection of a wrapper, which it takes once.
const statsTimeout = time.Second

func findConnectorSoon(db Database) (*connector, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	return findConnector(ctx, db)
}
