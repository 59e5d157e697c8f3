package cachedpg

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/redact"
	"github.com/cachedpg/cachedpg/store/redis"
)

var (
	_ driver.Driver        = (*Driver)(nil)
	_ driver.DriverContext = (*Driver)(nil)
	_ driver.Connector     = (*connector)(nil)
	_ io.Closer            = (*connector)(nil)
)

func init() { sql.Register("cachedpg", &Driver{}) }

// Driver is the driver registered as "cachedpg". DB.Driver returns one that
// belongs to its DB, which is how StatsOf and Invalidate find their way.
type Driver struct {
	connector *connector
	opened    opened
}

// dialTimeout bounds a connection attempt that has no context, as in pgx.
const dialTimeout = 60 * time.Second

// Open is for drivers around this one that have no OpenConnector; database/sql uses that
// instead. Connections of one DSN share what a connector has, and the last to be closed ends it.
func (d *Driver) Open(name string) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return d.opened.connect(ctx, name, func() (driver.Connector, error) { return d.OpenConnector(name) })
}

// OpenConnector takes what pgx takes, a URL, a keyword/value string or a name
// from stdlib.RegisterConnConfig, with cache_* keys beside (see Config). A
// malformed DSN is an error here and not at the first query.
func (d *Driver) OpenConnector(name string) (driver.Connector, error) {
	pgDSN, config, err := ParseConfig(name)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(pgDSN, "registeredConnConfig") && !strings.Contains(pgDSN, "=") {
		registered, err := stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(strings.TrimSpace(pgDSN))
		if err != nil {
			return nil, dsnError(pgDSN, err)
		}
		return WrapConnector(registered, config)
	}
	pgConfig, err := pgx.ParseConfig(pgDSN)
	if err != nil {
		return nil, dsnError(pgDSN, err)
	}
	return NewConnector(*pgConfig, config)
}

// dsnError is pgx's error, which quotes the DSN and has it in a field: as it is where
// nothing in that can be secret, else without it.
func dsnError(dsn string, err error) error {
	if redact.Plain(dsn) {
		return err
	}
	return pgconn.NewParseConfigError("…", redact.DSN(err), nil)
}

// NewConnector returns a connector for sql.OpenDB that dials with pgConfig,
// which must come from pgx.ParseConfig. It returns every problem of config joined.
func NewConnector(pgConfig pgx.ConnConfig, config Config) (driver.Connector, error) {
	d, err := newConnector(config)
	if err != nil {
		return nil, err
	}
	d.traced, d.watches = true, true
	d.base = &pgConfig
	d.mode = pgConfig.DefaultQueryExecMode
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		dialled := pgConfig // a shallow copy, so that Tracer is this connection's own
		backend.AsPrimary(ctx, &dialled)
		dialled.Tracer = tracer{b}
		if pgConfig.Tracer != nil {
			dialled.Tracer = multitracer.New(tracer{b}, pgConfig.Tracer)
		}
		seat := backend.WithRider(&dialled)
		in, err := dialPgx(ctx, stdlib.GetConnector(dialled))
		if err == nil {
			seat(in.(*backend.Pgx))
		}
		return in, err
	}
	// A hook of the caller may make sessions differ; then the state of a
	// connection is not known before it is dialled.
	d.eager = pgConfig.AfterConnect != nil ||
		pgConfig.ValidateConnect != nil && !backend.DefinedIn(reflect.ValueOf(pgConfig.ValidateConnect), reflect.TypeFor[pgconn.Config]().PkgPath())
	return d, nil
}

// WrapConnector returns a connector around one of pgx's stdlib package: from
// stdlib.GetConnector with options, or stdlib.GetPoolConnector for a pool (set
// SetMaxIdleConns(0) then, as stdlib says).
//
// Its connections are dialled, and the state of their session is read, when
// database/sql asks for one and not lazily: hooks may make that state depend on
// the context. A hook of stdlib.OptionResetSession or OptionShouldPing runs whenever
// database/sql takes a connection again, with the context of that, and costs a
// question more if it has sent anything; so does whoever has used the connection of
// a pool in between. What a hook writes itself is not seen.
//
// With a Tracer, which the pool must have too, what goes through PgxConn and what is
// written on the pool directly, by pool.Exec and its like, invalidates like the
// driver's own statements. Without one everything is invalidated while PgxConn has a
// connection handed out, and a write on the pool is not seen: it is past the driver, for
// which there are Invalidate and Config.External.
func WrapConnector(c driver.Connector, config Config, tracers ...*Tracer) (driver.Connector, error) {
	if config.MaxConns != 0 {
		return nil, errWrappedPlaces
	}
	d, err := newConnector(config)
	if err != nil {
		return nil, err
	}
	d.eager, d.watches = true, true
	d.wrapped = c
	d.left, d.customKey = make(map[*backend.Tap]*link), fmt.Sprintf("cachedpg.left %p", d)
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		in, err := dialPgx(ctx, c)
		if err != nil {
			return nil, err
		}
		ours := in.(*backend.Pgx)
		d.own.Store(ownConfig(ours.PgxConn()))
		for _, t := range tracers {
			ours.Lend(t.lend(ours.PgxConn(), b))
		}
		return in, nil
	}
	d.tracers = tracers
	for _, t := range tracers {
		t.add(d)
	}
	return d, nil
}

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

// OpenDB is sql.OpenDB(NewConnector(pgConfig, config)).
func OpenDB(pgConfig pgx.ConnConfig, config Config) (*sql.DB, error) {
	c, err := NewConnector(pgConfig, config)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// dial returns a connection for the driver's own questions.
func (d *connector) dial(ctx context.Context) (backend.Conn, error) {
	if own := d.own.Load(); own != nil {
		return dialOwn(ctx, *own)
	}
	return d.connect(ctx, &link{})
}

// ways are those in which the driver may come to the database of id by itself.
func (d *connector) ways(id backend.Identity) (dial []func(context.Context) (backend.Conn, error)) {
	if home, ok := d.homes.Load(id); ok && home != d.own.Load() {
		dial = append(dial, func(ctx context.Context) (backend.Conn, error) {
			return dialOwn(ctx, *home.(*pgx.ConnConfig))
		})
	}
	return append(dial, d.dial)
}

// WaysFor are those for a guard: callers come first, and where PostgreSQL has no place more a connection that is
// idle in their pool does for what is to last.
func (d *connector) WaysFor(id backend.Identity, lasts bool) (dial []func(context.Context) (backend.Conn, error), err error) {
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

func (d *connector) Replicates() *pgconn.Config {
	if own := d.own.Load(); own != nil {
		return &own.Config
	}
	if d.base != nil {
		return &d.base.Config
	}
	return nil
}

// isHome takes in that the wrapped connector has come to the database of id with in.
func (d *connector) isHome(id backend.Identity, in backend.Conn) {
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

func dialPgx(ctx context.Context, c driver.Connector) (backend.Conn, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pgxConn, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w (it gives %T)", errNotPgx, conn), conn.Close())
	}
	return backend.NewPgx(pgxConn, configOf(pgxConn.Conn()).config), nil
}

// connector is one sql.DB's view of the driver. It is safe for concurrent use.
type connector struct {
	config        Config
	target        *redis.Target // of a shared store, else nil
	storeName     string        // "memory", "off", or what a shared store is, however it is reached
	process       string        // see spaceKey
	build         string        // other than "" a build of another format, in tests
	driver        *Driver
	occupants     occupancy
	opener        *opened // whose connector it is, if Driver.Open has made it
	connect       func(context.Context, *link) (backend.Conn, error)
	mode          pgx.QueryExecMode // of a connection that is not dialled yet
	eager         bool              // dial in Connect
	watches       bool              // PostgreSQL is asked for changes of the catalog
	statementPool atomic.Bool       // a pooler in statement mode is known to be in between
	traced        bool              // the tracer sees what goes past the driver
	wrapped       driver.Connector
	tracers       []*Tracer // of the wrapped connector's pool
	customKey     string    // of a tap in a connection's CustomData
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
	derived *clock.Cache[derivation, *session]

	plans    planSets
	parsed   atomic.Uint64 // texts given to the parser
	stats    counters
	problems problems // of the driver's own work, as far as no space is known for it
	outbox   outboxState
	denials  backend.Denials
	waiting  atomic.Int64 // callers that PostgreSQL has no place for: until they have one the driver dials none of its own
	// statements outlive the plans, which go with the catalog.
	statements *clock.Cache[[sha256.Size]byte, *statementStats] // by the digest of the normalised text
	tables     *clock.Cache[uint32, *account]                   // by OID
	through    bool                                             // a relation has strategy write-through

	// known is the state of the connection dialled last: what a new connection
	// will be like. A hit needs no other.
	known atomic.Pointer[state]
	types atomic.Pointer[pgtype.Map] // of the connection dialled last, where a hook may have registered some
	limit atomic.Int64               // and what PostgreSQL gives a statement there, a time.Duration

	// behind is nil until the database is known, and without strategy "write-behind".
	behind atomic.Pointer[behind.Queue]

	mu       sync.Mutex // guards the fields below
	sessions map[[32]byte]*session
	spaces   map[backend.Identity]*space
	together map[pair]bool          // reached at the same time: none of the two has replaced the other
	kept     []*space               // superseded, and still of use to the queue
	left     map[*backend.Tap]*link // what is known of connections in their pool
	closed   bool
	resting  bool // see occupancy

	outside map[spaceKey]*outsider // guarded by spacesMu
	outer   atomic.Pointer[outsider]
}

func newConnector(config Config) (*connector, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	target, err := config.target()
	if err != nil {
		return nil, err
	}
	d := &connector{config: config, target: target, readPatience: patience.Read,
		idlers: idlers{retake: backoff{min: time.Second, max: time.Minute}}, sessions: make(map[[32]byte]*session), spaces: make(map[backend.Identity]*space), together: make(map[pair]bool),
		statements: clock.New[[sha256.Size]byte, *statementStats](maxStatsBytes), tables: newTableAccounts(), through: config.writesThrough(),
		given: clock.New[givenKey, string](maxGiven), paths: clock.New[pathKey, []string](maxGiven), derived: clock.New[derivation, *session](maxDerived)}
	if d.storeName = config.Store; target != nil {
		d.storeName = target.Server()
	}
	if config.MaxConns > 0 {
		d.places = &places{d: d, max: config.MaxConns}
	}
	d.driver = &Driver{connector: d}
	return d, nil
}

func (d *connector) Driver() driver.Driver { return d.driver }

// Connect returns a connection that has not dialled: a query that hits never does.
func (d *connector) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.openFor(ctx, d.occupants.direct.Load() || calledBySQL())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close gives up the connector's share of the cache; sql.DB.Close calls it.
func (d *connector) Close() error {
	d.occupants.stop()
	d.mu.Lock()
	d.closed, d.left = true, nil
	d.mu.Unlock()
	if d.places != nil {
		d.places.closeFree(true)
	}
	undrained := d.giveUp()
	for _, t := range d.tracers {
		t.remove(d)
	}
	if closer, ok := d.wrapped.(io.Closer); ok {
		return errors.Join(undrained, closer.Close())
	}
	return undrained
}

// giveUp leaves everything that the connector has joined. An error is of what could not
// be applied of a queue.
func (d *connector) giveUp() error {
	undrained := d.closeQueue()
	d.mu.Lock()
	spaces, kept := d.spaces, d.kept
	d.spaces, d.kept = make(map[backend.Identity]*space), nil
	clear(d.left)
	if !d.closed {
		d.behind.Store(nil) // StatsOf tells of that of a closed one
	}
	d.mu.Unlock()
	d.known.Store(nil)
	d.plans.forget()
	d.goAway()
	for _, sp := range spaces {
		sp.forget(d)
		sp.leave()
	}
	for _, sp := range kept {
		sp.leave()
	}
	return undrained
}

const maxSessions = 1024 // states kept for sharing plans; more than a pool has

// adopt takes in what a connection has learned: it returns the shared copy of
// the session and the space of its database, nil when nothing may be cached
// there because PostgreSQL is a standby, or because the connector is closed.
func (d *connector) adopt(learned *backend.Session, p sighting) (*session, *space, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sharedLocked(learned)
	if d.closed || d.resting || s.Standby {
		return s, nil, nil
	}
	sp := d.spaces[s.ID]
	if sp != nil && !sp.superseded.Load() {
		return s, sp, nil
	}
	ended, err := d.moveLocked(s.ID, p)
	if err != nil {
		return s, nil, err
	}
	next, err := joinSpace(d, learned, p.again && len(ended) == 0)
	if sp != nil {
		d.forsakeLocked(sp)
	}
	for _, before := range ended {
		before.supersede()
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
// connector has; nil before the first.
func (d *connector) space() *space {
	if known := d.known.Load(); known != nil && !known.space.superseded.Load() {
		return known.space
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var only *space
	for _, sp := range d.spaces {
		switch {
		case sp.superseded.Load():
		case only != nil:
			return nil
		default:
			only = sp
		}
	}
	return only
}
