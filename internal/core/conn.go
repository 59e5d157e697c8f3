package core

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
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
	counted  bool // it is counted, see occupancy

	placement placement // see places.go

	idle atomic.Int32 // see idlers

	applies bool // it runs what was queued, see applier

	owed *debt // of strategy write-through, see refill.go

	// Scratch space of one call.
	keyBuf []byte
	tags   [8]store.Tag
	stamps [8]store.Stamp
	types  *pgtype.Map // for replaying rows without inner
}

// newConn returns a connection that has not dialled.
func (d *DB) newConn() *Conn {
	c := &Conn{d: d}
	c.link = &c.undialled
	return c
}

// call is one Query or Exec on its way.
type call struct {
	// What is asked for, and by whom.
	sql     string
	args    []backend.Arg     // with pgx's leading options
	values  []backend.Arg     // args without the options
	mode    pgx.QueryExecMode // 0 until plan, if the caller does not give it
	formats bool              // a QueryResultFormats option: the caller wants other bytes
	prepare *Stmt             // to be prepared before PostgreSQL is asked; nil for a plain text
	ours    bool              // the driver sends it, and not a caller with the pgx connection
	refills bool              // a writer runs it, see refill.go

	meaning
	progress
}

// meaning is what a text means to the session that will run it. Conn.plan finds it, and again where the
// session or the catalog turns out to be another one.
type meaning struct {
	space   *space.Space
	session *planning.Session
	view    *space.View
	text    *planning.Text
	loose   bool // of names it is not sure whether temporary objects have them
	single  bool // PostgreSQL has prepared it, so that it is one statement, see Conn.check
}

// progress is what has happened to a call so far, mostly to a read.
type progress struct {
	replanned bool          // the catalog was found out of date once
	refreshed bool          // the catalog was loaded again for a name
	byAge     bool          // only its age bounds a part of the result, see ttl.go
	rowsOnly  bool          // without rows the result must not be kept
	snapshot  time.Time     // when the transaction of a refill began; now() stands still in it
	asked     time.Duration // how long the lookup took, if that was measured
	stored    bool          // the result was
}

// sent is what PostgreSQL gets.
func (q *call) sent() backend.Query {
	return backend.Query{SQL: q.sql, Args: q.args, Values: q.values, Mode: q.mode}
}

func (q *call) keyingValues() keying.Values {
	return keying.Values{Args: q.values, Literals: q.text.Literals, Encoded: q.session.Encoded}
}

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
	if c.counted {
		defer c.d.vacate()
	}
	c.d.idlers.remove(c)
	c.leavesInPool()
	return c.link.close()
}

// Inner is the wrapped connection, nil until it is dialled.
func (c *Conn) Inner() backend.Conn { return c.inner }

// DB is what the connection shares with others.
func (c *Conn) DB() *DB { return c.d }

// lending is the pgx connection in the hands of a caller, until the next call here.
type lending struct {
	seen   bool    // a tracer sees what he sends; false while the driver sends something of its own
	unseen *effect // of a use that no tracer sees; nil if there is none
}

// end ends what is going on past the driver.
func (l *lending) end() {
	l.seen = false
	if e := l.unseen; e != nil {
		l.unseen = nil
		e.done(nil)
	}
}

// pause has the tracer take what is sent for the driver's own, until resume is called.
func (l *lending) pause() (resume func()) {
	seen := l.seen
	l.seen = false
	return func() { l.seen = seen }
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
	c.lent.unseen = e
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

// enter starts every call: what happened past the driver since the last one is over.
func (c *Conn) enter() error {
	if c.isClosed {
		return errClosed
	}
	if c.placement.parked {
		c.d.places.unpark(c)
	}
	if c.idle.Load() != inUse {
		c.d.idlers.awake(c)
	}
	c.lent.end()
	c.disown()
	c.retract()
	return nil
}

// ready makes the inner connection usable. If it has ended since the caller was given
// this one, and before anything of the caller's was sent, it is replaced: database/sql
// would try another connection, but not for Ping, nor for an sql.Conn.
func (c *Conn) ready(ctx context.Context) error {
	err := c.usable(ctx)
	if err == nil {
		c.placement.uses()
	}
	return err
}

// usable is ready for a question of the driver's own.
func (c *Conn) usable(ctx context.Context) error {
	if c.inner == nil {
		if err := c.connect(ctx); err != nil || !c.needsReset {
			return err
		}
	}
	if err := c.reset(ctx); err != nil || !c.placement.unswept {
		return err
	}
	c.placement.unswept = false
	c.sweep()
	return nil
}

// reset sees to it that a connection which was not in use is still there.
func (c *Conn) reset(ctx context.Context) error {
	if c.suspect {
		c.suspect = false
		_ = c.inner.Ping(ctx)
	}
	ended := c.inner.Closed()
	switch {
	case !c.needsReset && ended:
		return backend.ErrBadConn
	case !c.needsReset || ctx.Err() != nil: // with a context that has ended nothing is sent, so nothing needs it
		return nil
	}
	c.needsReset = false
	if !ended {
		if err := c.inner.ResetSession(ctx); err != backend.ErrBadConn {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.placement.has() {
		c.d.places.suspect()
	}
	return c.redial(ctx)
}

// readyFor makes the inner connection ready to run q.
func (c *Conn) readyFor(ctx context.Context, q *call) error {
	if q.prepare == nil {
		return c.ready(ctx)
	}
	if err := q.prepare.prepare(ctx); err != nil {
		return err
	}
	if q.text != nil { // it may have been prepared before there was a catalog to plan with
		q.text.Inputs.Store(int32(q.prepare.inputs))
	}
	return nil
}

// forget makes the session's state unknown: a statement may have changed it.
func (c *Conn) forget() {
	c.known.session, c.pristine, c.unsettled = nil, false, nil
	if c.tx == nil {
		c.refused = time.Time{}
	}
}

// newCall takes pgx's leading options off the arguments and runs a query
// rewriter, so that what is analysed is what PostgreSQL gets: "WHERE id = @id"
// parses before NamedArgs has rewritten it, as a call of an operator @.
func (c *Conn) newCall(ctx context.Context, sql string, args []backend.Arg) (call, error) {
	q := call{sql: sql, args: args, values: args, mode: pgx.QueryExecMode(0)}
	if len(args) == 0 {
		return q, nil
	}
	var rewriter pgx.QueryRewriter
options:
	for len(q.values) > 0 {
		switch v := q.values[0].Value.(type) {
		case int64, string, nil, int, []byte, bool, time.Time: // the usual first arguments, before the costlier test
			break options
		case pgx.QueryExecMode:
			q.mode = v
		case pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			q.formats = true
		case pgx.QueryRewriter:
			rewriter = v
		default:
			break options
		}
		q.values = q.values[1:]
	}
	if rewriter == nil {
		return q, nil
	}
	return c.rewrite(ctx, q, rewriter)
}

func (c *Conn) rewrite(ctx context.Context, q call, rewriter pgx.QueryRewriter) (call, error) {
	var conn *pgx.Conn
	switch rewriter.(type) {
	case pgx.NamedArgs, pgx.StrictNamedArgs: // ignore the connection
	default:
		if err := c.ready(ctx); err != nil {
			return q, err
		}
		if in, ok := c.inner.(backend.Wire); ok {
			conn = in.PgxConn()
		}
	}
	values := make([]any, len(q.values))
	for i, v := range q.values {
		values[i] = v.Value
	}
	sql, values, err := rewriter.RewriteQuery(ctx, conn, q.sql, values)
	if err != nil {
		return q, fmt.Errorf("rewrite query failed: %w", err) // as pgx says it
	}
	rewritten := call{sql: sql, mode: q.mode, formats: q.formats}
	for _, option := range q.args[:len(q.args)-len(q.values)] {
		if _, ok := option.Value.(pgx.QueryRewriter); !ok {
			rewritten.args = append(rewritten.args, option)
		}
	}
	options := len(rewritten.args)
	for i, v := range values {
		rewritten.args = append(rewritten.args, backend.Arg{Ordinal: options + i + 1, Value: v})
	}
	rewritten.values = rewritten.args[options:]
	return rewritten, nil
}
