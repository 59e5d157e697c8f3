package core

import (
	"context"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/store"
)

// Conn is a connection as database/sql pools it. It dials PostgreSQL when a
// statement needs it for the first time: until then it costs nothing, and hits
// work while PostgreSQL is down. Like every backend.Raw it is used by one
// goroutine at a time.
type Conn struct {
	d         *DB
	*link          // never nil
	undialled link // until it is dialled

	lent     lending
	isClosed bool

	placement placement // see places.go
	stmts     stmts     // that callers have prepared

	idle atomic.Int32 // see idlers

	whose user

	owed *debt // of strategy write-through, see refill.go

	// Scratch space of one call.
	keyBuf []byte
	tags   [8]store.Tag
	stamps [8]store.Stamp
	types  *pgtype.Map // for replaying rows without inner
}

// user says for whom a connection is.
type user uint8

const (
	usedByTracer  user = iota // it follows what a caller does on a pool past the driver
	usedByCaller              // it is one of a pool's, and counted, see occupancy
	usedByApplier             // it runs what was queued, see applier: it queues nothing, and waits for no queue and no place
)

// Query answers from the cache what is provably the same there, and
// passes the rest to PostgreSQL. See read.go and, for statements that write, write.go.
func (c *Conn) Query(ctx context.Context, query string, args []backend.Arg) (backend.ResultSet, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	q, err := c.newCall(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return c.query(ctx, &q)
}

// Exec executes a statement and invalidates what it changes. It never
// answers from the cache.
func (c *Conn) Exec(ctx context.Context, query string, args []backend.Arg) (backend.Result, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	q, err := c.newCall(ctx, query, args)
	if err != nil {
		return nil, err
	}
	defer c.refill(ctx)
	return c.exec(ctx, &q)
}

// Ping dials if need be and asks PostgreSQL. It waits until the cache can answer, a second or two at most: who pings at
// its start begins warm. It also says what is wrong with a
// shared store that has never been reached, later that is no reason to fail, with
// what the write-ahead log is followed by, and which of the driver's own questions
// PostgreSQL refuses.
func (c *Conn) Ping(ctx context.Context) error {
	if err := c.enter(); err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	if err := c.inner.Ping(ctx); err != nil {
		return err
	}
	if c.inner.TxStatus() == 'I' {
		if err := c.beginWarm(ctx); err != nil {
			return err
		}
	}
	if err := c.refusal(ctx); err != nil {
		return err
	}
	sp := c.known.space
	if sp == nil {
		return nil
	}
	if err := c.d.StrangerThan(sp); err != nil {
		return err
	}
	if sp.Keeper != nil {
		if err := sp.Keeper.Check(ctx); err != nil {
			return err
		}
	}
	if err := c.d.checkQueue(ctx); err != nil {
		return err
	}
	if err := c.withheld(); err != nil {
		return err
	}
	return sp.Feed.Load().CheckAll(ctx)
}

// Reset is called before a pooled connection is used again, and pgx asks then
// whether one is still there that was idle for long. Where there is no hook of the
// caller and the session is as a new one's, that waits until the inner connection is
// needed: hits do without, and one that has ended is replaced, see ready.
func (c *Conn) Reset(ctx context.Context) error {
	wasParked := c.placement.parked
	if err := c.enter(); err != nil {
		return backend.ErrBadConn
	}
	if c.placement.has() && !wasParked { // a wrapper has not passed IsValid on
		c.d.problems.Note(space.WorkPool, errUnheard)
		c.putBack(false)
	}
	if c.inner == nil {
		return nil
	}
	if c.inner.Closed() || c.inner.TxStatus() != 'I' {
		return backend.ErrBadConn
	}
	if c.inner.Hooked() {
		return c.runHook(ctx)
	}
	if c.d.eager || !c.pristine {
		return c.inner.ResetSession(ctx)
	}
	c.needsReset = true
	return nil
}

// Close closes the inner connection if there is one, or gives it back to those of Config.MaxConns.
func (c *Conn) Close() error {
	if c.isClosed {
		return nil
	}
	_ = c.enter()
	if c.placement.has() {
		c.putBack(false)
	}
	c.isClosed = true
	if c.whose == usedByCaller {
		defer c.d.vacate()
	}
	c.d.idlers.remove(c)
	c.leavesInPool()
	return c.link.close()
}

// HandOut dials if need be and returns the pgx connection. Statements, batches and COPY on it invalidate like those of
// the driver until the next call here, or HandBack; what goes through its PgConn is not seen.
func (c *Conn) HandOut(ctx context.Context) (*pgx.Conn, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	in, ok := c.inner.(*backend.Pgx)
	if !ok {
		return nil, backend.ErrNotPgx
	}
	c.attach() // what is registered or prepared there is not seen
	c.handedOut = true
	if c.tx != nil {
		c.tx.found = found{}
	}
	if c.d.traced || in.Followed() {
		c.lent.seen = true
		return in.Conn.Conn(), nil
	}
	if err := c.drain(ctx, c.tx != nil); err != nil {
		return nil, err
	}
	e, err := c.beginUnseen(ctx)
	if err != nil {
		return nil, err
	}
	c.lent.over = e.done
	return in.Conn.Conn(), nil
}

// HandBack ends a hand-out, not only when the connection is used next.
func (c *Conn) HandBack(ctx context.Context) {
	owed := c.owed
	c.owed = nil
	_ = c.enter()
	c.owed = owed
	if !c.isClosed {
		c.refill(ctx)
	}
}
