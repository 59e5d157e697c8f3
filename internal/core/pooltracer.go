package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/parser"
)

// Tracer lets the driver see what is sent on a pool directly, see cachedpg.Tracer. It is safe for concurrent use.
type Tracer struct {
	key string // of *tracedConn in a connection's CustomData

	mu         sync.Mutex // guards the fields below
	connectors []*DB
	known      map[*tracedConn]struct{} // those with a state of their own
}

// NewTracer returns a Tracer for the connections of one pool.
func NewTracer() *Tracer {
	t := &Tracer{known: make(map[*tracedConn]struct{})}
	t.key = fmt.Sprintf("cachedpg.Tracer %p", t)
	return t
}

// tracedConn is a connection of the pool. At any time either the driver has it in hand,
// whose own statements are none of the tracer's business, or somebody else has.
type tracedConn struct {
	t     *Tracer
	conn  *pgx.Conn
	names map[string]string // texts of prepared statements, by name

	complete bool // what pgx tells of connections comes through, so the rest does
	asking   bool // what is sent now is the tracer's
	watched  bool

	mu     sync.Mutex // guards the fields below
	holder *link      // who has it in hand for the driver
	direct *Conn      // what is known of it while nobody has; nil if nothing is
	open   []*effect  // of statements that are under way on direct
}

// directEffect is what the context of a statement holds while it runs.
type directEffect struct {
	p *tracedConn
	e *effect
}

func (t *Tracer) add(d *DB) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connectors = append(t.connectors, d)
}

// remove is called when d is closed: nothing is asked through it any more.
func (t *Tracer) remove(d *DB) {
	t.mu.Lock()
	t.connectors = slices.DeleteFunc(t.connectors, func(other *DB) bool { return other == d })
	known := make([]*tracedConn, 0, len(t.known))
	for p := range t.known {
		known = append(known, p)
	}
	t.mu.Unlock()
	for _, p := range known {
		p.mu.Lock()
		p.shedLocked()
		p.mu.Unlock()
	}
}

func (t *Tracer) connector() *DB {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.connectors) == 0 {
		return nil
	}
	return t.connectors[0]
}

func (t *Tracer) has(d *DB) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.connectors, d)
}

// of returns what is known of conn. Only who has conn in hand may call it.
func (t *Tracer) of(conn *pgx.Conn) *tracedConn {
	data := conn.PgConn().CustomData()
	p, ok := data[t.key].(*tracedConn)
	if !ok || p.conn != conn {
		p = &tracedConn{t: t, conn: conn}
		data[t.key] = p
	}
	return p
}

// lend notes that the driver has conn in hand.
func (t *Tracer) lend(conn *pgx.Conn, holder *link) *tracedConn {
	p := t.of(conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holder = holder
	return p
}

// GiveBack notes that it has not any more. What the driver knows of the session then
// is what the next statement finds.
func (p *tracedConn) GiveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, c := p.holder, p.direct
	if p.holder = nil; c == nil {
		return
	}
	if from.known.space == nil || from.known.space != c.known.space || from.tx != nil || from.inner == nil || from.inner.Closed() {
		p.dropLocked()
		return
	}
	if since := from.since; since.session != nil && (since.session != c.since.session || since.view != c.since.view) {
		c.since.session = unknownSession // statements of two kinds are prepared
	}
	c.known, c.pid, c.located, c.asked, c.started = from.known, from.pid, from.located, from.asked, from.started
	c.since.temporaries, c.since.unknown = nil, c.since.unknown || from.since.unknown
	c.misread = c.misread || from.misread
	c.tx = nil // a pool takes no connection back in a transaction
}

func (p *tracedConn) Follows() bool { return p.complete }

// Connected is called for a new connection of the pool.
func (t *Tracer) Connected(conn *pgx.Conn) { t.of(conn).complete = true }

// PrepareStart is called before a statement is prepared.
func (t *Tracer) PrepareStart(ctx context.Context, data pgx.TracePrepareStartData) context.Context {
	return context.WithValue(ctx, preparedKey{}, data)
}

type preparedKey struct{}

// maxNames bounds what is remembered of the statements that are prepared on a connection.
const maxNames = 1024

// PrepareEnd is called after that.
func (t *Tracer) PrepareEnd(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareEndData) {
	prepared, ok := ctx.Value(preparedKey{}).(pgx.TracePrepareStartData)
	switch {
	case !ok || data.Err != nil || prepared.Name == prepared.SQL || strings.HasPrefix(prepared.Name, "stmtcache_"):
		return // nobody sends the names of pgx's own
	}
	statements, err := parser.Parse(prepared.Name, nil)
	if err == nil && (len(statements) != 1 || statements[0].Kind != parser.Opaque) {
		return // a name such as "commit" is a statement once the prepared one is gone
	}
	p := t.of(conn)
	if p.names == nil || len(p.names) >= maxNames {
		p.names = make(map[string]string)
	}
	p.names[prepared.Name] = prepared.SQL
}

// Start marks what the statements, which run as one unit, will change. End is called with the context that it returns.
func (t *Tracer) Start(ctx context.Context, conn *pgx.Conn, queries ...*pgx.QueuedQuery) context.Context {
	if outer, ok := ctx.Value(tracedKey{}).(directEffect); ok && outer.e != nil {
		// A query rewriter of the caller's has come here: the end of what it sends is not the outer one's.
		ctx = context.WithValue(ctx, tracedKey{}, directEffect{})
	}
	if conn.IsClosed() || conn.PgConn().IsBusy() {
		return ctx // pgx refuses the statement
	}
	p := t.of(conn)
	if p.asking {
		return ctx
	}
	queries = p.named(queries)
	p.mu.Lock()
	if holder := p.holder; holder != nil {
		p.mu.Unlock()
		return tracer{holder}.start(ctx, queries...) // which does nothing unless it is handed out
	}
	defer p.mu.Unlock()
	c := p.joinLocked()
	if c == nil {
		return ctx
	}
	p.asking = true
	defer func() { p.asking = false }()
	c.retract()
	e, err := tracer{c.link}.begin(ctx, queries)
	if err != nil {
		refused, cancel := context.WithCancelCause(ctx)
		cancel(err)
		return refused
	}
	p.open = append(p.open, e)
	return context.WithValue(ctx, tracedKey{}, directEffect{p, e})
}

// named returns the queries with the texts of prepared statements in the place of their names.
func (p *tracedConn) named(queries []*pgx.QueuedQuery) []*pgx.QueuedQuery {
	if len(p.names) == 0 {
		return queries
	}
	texts := make([]*pgx.QueuedQuery, len(queries))
	for i, q := range queries {
		texts[i] = q
		if text, ok := p.names[q.SQL]; ok {
			texts[i] = &pgx.QueuedQuery{SQL: text, Arguments: q.Arguments}
		}
	}
	return texts
}

// End is called when they have ended, with their error.
func (t *Tracer) End(ctx context.Context, err error) {
	d, ok := ctx.Value(tracedKey{}).(directEffect)
	if !ok {
		tracer{}.end(ctx, err) // of a connection that was handed out
	} else if d.p != nil {
		d.p.end(d.e, err)
	}
}

// end also runs when the caller never asked for the rest of the rows: at the latest with the connection.
func (p *tracedConn) end(e *effect, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(e, err)
}

func (p *tracedConn) endLocked(e *effect, err error) {
	p.asking = true
	defer func() { p.asking = false }()
	e.done(err)
	e.c.retract()
	e.c.disown() // what writes on a pool waits for no refill
	p.open = slices.DeleteFunc(p.open, func(other *effect) bool { return other == e })
	p.shedLocked()
}

// joinLocked returns the Conn that follows the connection while the driver has it
// not in hand; nil where there is no cache.
func (p *tracedConn) joinLocked() *Conn {
	p.shedLocked()
	if p.direct != nil {
		return p.direct
	}
	d := p.t.connector()
	if d == nil {
		return nil
	}
	// The driver's own questions must not wait for a place in the pool.
	d.own.CompareAndSwap(nil, ownConfig(p.conn))
	c := d.newConn(usedByTracer)
	c.inner, c.holder = backend.NewDirect(p.conn, configOf(p.conn).config.DefaultQueryExecMode), c
	c.since.session = unknownSession // what was prepared on it before was not seen
	c.adoptTx()
	p.direct = c
	p.t.mu.Lock()
	p.t.known[p] = struct{}{}
	p.t.mu.Unlock()
	if !p.watched {
		p.watched = true
		go p.watch()
	}
	return c
}

// shedLocked gives up what came through a DB that is closed by now.
func (p *tracedConn) shedLocked() {
	if p.direct != nil && len(p.open) == 0 && !p.t.has(p.direct.d) {
		p.dropLocked()
	}
}

// dropLocked forgets what is known of the connection.
func (p *tracedConn) dropLocked() {
	c := p.direct
	if c == nil {
		return
	}
	p.direct = nil
	if c.known.space != nil {
		c.known.space.Leave()
	}
	p.t.mu.Lock()
	delete(p.t.known, p)
	p.t.mu.Unlock()
}

// watch waits for the end of the connection. A statement that was under way may still
// be, for all that pgx says: PostgreSQL is asked.
func (p *tracedConn) watch() {
	<-p.conn.PgConn().CleanupDone()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range slices.Clone(p.open) {
		p.endLocked(e, errClosed)
	}
	p.dropLocked()
}
