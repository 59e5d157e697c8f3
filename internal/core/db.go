package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
)

// DialTimeout bounds a connection attempt that has no context, as in pgx.
const DialTimeout = 60 * time.Second

// dialledWith is how a connection was dialled. It is kept with that: a copy is not for each time that a pool gives it.
type dialledWith struct {
	config *pgx.ConnConfig
	own    *pgx.ConnConfig // for connections of the driver's own
}

const dialledKey = "cachedpg.config"

// configOf returns how conn was dialled. Only who has conn in hand may call it; what it returns is shared.
func configOf(conn *pgx.Conn) dialledWith {
	data := conn.PgConn().CustomData()
	with, ok := data[dialledKey].(dialledWith)
	if !ok {
		with = dialledWith{conn.Config(), conn.Config()} // copies
		with.own.Tracer = nil
		data[dialledKey] = with
	}
	return with
}

// ownConfig is how conn was dialled, for connections of the driver's own.
func ownConfig(conn *pgx.Conn) *pgx.ConnConfig { return configOf(conn).own }

// dial returns a connection for the driver's own questions.
func (d *DB) dial(ctx context.Context) (backend.Conn, error) {
	if own := d.own.Load(); own != nil {
		return dialOwn(ctx, *own)
	}
	return d.connect(ctx, &link{})
}

// ways are those in which the driver may come to the database of id by itself.
func (d *DB) ways(id backend.Identity) (dial []func(context.Context) (backend.Conn, error)) {
	if home, ok := d.homes.Load(id); ok && home != d.own.Load() {
		dial = append(dial, func(ctx context.Context) (backend.Conn, error) {
			return dialOwn(ctx, *home.(*pgx.ConnConfig))
		})
	}
	return append(dial, d.dial)
}

// WaysFor are those for a guard: callers come first, and where PostgreSQL has no place more a connection that is
// idle in their pool does for what is to last.
func (d *DB) WaysFor(id backend.Identity, lasts bool) (dial []func(context.Context) (backend.Conn, error), err error) {
	if d.waiting.Load() > 0 {
		return nil, errCallersFirst
	}
	for _, way := range d.ways(id) {
		dial = append(dial, func(ctx context.Context) (backend.Conn, error) {
			in, err := way(backend.ToPrimary(ctx))
			if pgerr.Is(err, pgerr.TooManyConnections) && lasts {
				if idle := d.idlers.takeOwn(); idle != nil {
					return idle, nil
				}
			}
			return in, noPlace(err)
		})
	}
	return dial, nil
}

func (d *DB) Replicates() *pgconn.Config {
	if own := d.own.Load(); own != nil {
		return &own.Config
	}
	if d.base != nil {
		return &d.base.Config
	}
	return nil
}

// isHome records that the wrapped connector has come to the database of id with in.
func (d *DB) isHome(id backend.Identity, in backend.Conn) {
	ours, ok := in.(backend.Wire)
	if _, known := d.homes.Load(id); d.wrapped == nil || known || !ok {
		return
	}
	d.homes.Store(id, ownConfig(ours.PgxConn()))
}

// dialOwn dials as a wrapped connector has. config is a shallow copy.
func dialOwn(ctx context.Context, config pgx.ConnConfig) (backend.Conn, error) {
	backend.AsPrimary(ctx, &config)
	return dialPgx(ctx, stdlib.GetConnector(config))
}

func dialPgx(ctx context.Context, c backend.Connector) (backend.Conn, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pgxConn, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w (it gives %T)", backend.ErrNotPgx, conn), conn.Close())
	}
	return backend.NewPgx(pgxConn, configOf(pgxConn.Conn()).config), nil
}

// DB is what the connections of one sql.DB share, or of one connector of another face. It is safe for concurrent
// use.
type DB struct {
	space.Member
	occupants     occupancy
	opener        func()              // see OpenedBy; else nil
	closing       func() bool         // see ClosedBy
	deadLetter    func(behind.Letter) // see OnDeadLetter
	queueConn     func() behind.Conn  // a connection that applies what is queued
	connect       func(context.Context, *link) (backend.Conn, error)
	mode          pgx.QueryExecMode // of a connection that is not dialled yet
	eager         bool              // dial in Connect
	statementPool atomic.Bool       // a pooler in statement mode is known to be in between
	traced        bool              // the tracer sees what goes past the driver
	wrapped       backend.Connector
	closers       []func() // called by Close
	customKey     string   // of a tap in a connection's CustomData
	// own is how the wrapped connector dialled last. What the driver asks for
	// itself must not wait for a place in a pool, nor take one.
	own atomic.Pointer[pgx.ConnConfig]
	// homes is how it dialled to each database, by identity: it may choose among several.
	homes sync.Map

	places *places // nil without Config.MaxConns

	idlers idlers

	readPatience time.Duration // of a read for the catalog; none, but in tests

	base *pgx.ConnConfig // what NewConnector was given

	// What is known of changes of settings, see setting.go.
	given   *clock.Cache[givenKey, string]  // the values that texts give, see change
	paths   *clock.Cache[pathKey, []string] // effective search_paths
	derived *clock.Cache[derivation, *planning.Session]

	planning.Texts
	stats    counters
	problems space.Problems // of the driver's own work, as far as no space is known for it
	outbox   outbox.Outbox
	denials  backend.Denials
	rights   rights
	waiting  atomic.Int64 // callers that PostgreSQL has no place for: until they have one the driver dials none of its own
	through  bool         // a relation has strategy write-through

	// known is the state of the connection dialled last: what a new connection
	// will be like. A hit needs no other.
	known atomic.Pointer[state]
	types atomic.Pointer[pgtype.Map] // of the connection dialled last, where a hook may have registered some
	limit atomic.Int64               // and what PostgreSQL gives a statement there, a time.Duration

	// behind is nil until the database is known, and without strategy "write-behind".
	behind atomic.Pointer[behind.Queue]

	mu       sync.Mutex // guards the fields below
	sessions map[[32]byte]*planning.Session
	spaces   map[backend.Identity]*space.Space
	together map[space.Pair]bool    // reached at the same time: none of the two has replaced the other
	kept     []*space.Space         // superseded, and still of use to the queue
	left     map[*backend.Tap]*link // what is known of connections in their pool
	closed   bool
	resting  bool // see occupancy
}

// Close gives up its share of the cache.
func (d *DB) Close() error {
	d.occupants.stop()
	d.mu.Lock()
	d.closed, d.left = true, nil
	d.mu.Unlock()
	if d.places != nil {
		d.places.closeFree(true)
	}
	undrained := d.giveUp()
	for _, forget := range d.closers {
		forget()
	}
	if closer, ok := d.wrapped.(io.Closer); ok {
		return errors.Join(undrained, closer.Close())
	}
	return undrained
}

// giveUp leaves everything that the DB has joined. An error is of what could not
// be applied of a queue.
func (d *DB) giveUp() error {
	undrained := d.closeQueue()
	d.mu.Lock()
	spaces, kept := d.spaces, d.kept
	d.spaces, d.kept = make(map[backend.Identity]*space.Space), nil
	clear(d.left)
	if !d.closed {
		d.behind.Store(nil) // StatsOf tells of that of a closed one
	}
	d.mu.Unlock()
	d.known.Store(nil)
	d.Plans.Forget()
	d.GoAway()
	for _, sp := range spaces {
		sp.Forget(d)
		sp.Leave()
	}
	for _, sp := range kept {
		sp.Leave()
	}
	return undrained
}

const maxSessions = 1024 // states kept for sharing plans; more than a pool has

// adopt records what a connection has learned: it returns the shared copy of
// the session and the space of its database, nil when nothing may be cached
// there because PostgreSQL is a standby, or because the DB is closed.
func (d *DB) adopt(learned *backend.Session, p sighting) (*planning.Session, *space.Space, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sharedLocked(learned)
	if d.closed || d.resting || s.Standby {
		return s, nil, nil
	}
	sp := d.spaces[s.ID]
	if sp != nil && !sp.Superseded.Load() {
		return s, sp, nil
	}
	ended, err := d.moveLocked(s.ID, p)
	if err != nil {
		return s, nil, err
	}
	next, err := space.Join(&d.Member, learned, p.again && len(ended) == 0)
	if sp != nil {
		d.forsakeLocked(sp)
	}
	for _, before := range ended {
		before.Supersede()
		d.forsakeLocked(before)
	}
	if next == nil || err != nil {
		return s, nil, err
	}
	d.spaces[s.ID] = next
	d.openQueueLocked(next)
	return s, next, nil
}

// space is that of the connection dialled last, or the only one that the
// DB has; nil before the first.
func (d *DB) space() *space.Space {
	if known := d.known.Load(); known != nil && !known.space.Superseded.Load() {
		return known.space
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var only *space.Space
	for _, sp := range d.spaces {
		switch {
		case sp.Superseded.Load():
		case only != nil:
			return nil
		default:
			only = sp
		}
	}
	return only
}

// String returns what the DB caches with, without secrets.
func (d *DB) String() string { return "cachedpg.connector" + d.Config.String() }

// GoString returns what %#v prints, without secrets.
func (d *DB) GoString() string { return d.String() }

// Heard is called with what a connection of the driver's own has found out about where
// the DB's connections lead now.
func (d *DB) Heard(s *backend.Session) {
	if !s.Standby {
		_, _, _ = d.adopt(s, sighting{})
	}
}
