package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/internal/redact"
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
	connector *connector // nil in the registered one
	opened    opened
}

// Open is for drivers around this one that have no OpenConnector; database/sql uses that
// instead. Connections of one DSN share what a connector has, and the last to be closed ends it.
func (d *Driver) Open(name string) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), core.DialTimeout)
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
	db, err := core.Open(pgConfig, config.core())
	if err != nil {
		return nil, err
	}
	return newConnector(db, config), nil
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
	within := make([]*core.Tracer, len(tracers))
	for i, t := range tracers {
		within[i] = t.tracer
	}
	db, err := core.Wrap(c, config.core(), within...)
	if err != nil {
		return nil, err
	}
	return newConnector(db, config), nil
}

// OpenDB is sql.OpenDB(NewConnector(pgConfig, config)).
func OpenDB(pgConfig pgx.ConnConfig, config Config) (*sql.DB, error) {
	c, err := NewConnector(pgConfig, config)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// connector is what an sql.DB has of the driver. It is safe for concurrent use.
type connector struct {
	db     *core.DB
	driver *Driver
}

func newConnector(db *core.DB, config Config) *connector {
	db.ClosedBy(closesDB)
	if hook := config.OnDeadLetter; hook != nil {
		db.OnDeadLetter(func(l behind.Letter) { hook(DeadLetter(l)) })
	}
	c := &connector{db: db}
	c.driver = &Driver{connector: c}
	return c
}

func (c *connector) Driver() driver.Driver { return c.driver }

// Connect returns a connection that has not dialled, unless a hook of the caller's makes that necessary.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.db.Connect(ctx, c.db.Direct() || calledBySQL())
	if err != nil {
		return nil, err
	}
	return &Conn{conn}, nil
}

// Close gives up the connector's share of the cache; sql.DB.Close calls it.
func (c *connector) Close() error { return c.db.Close() }

// String returns what the connector caches with, without secrets.
func (c *connector) String() string { return c.db.String() }

// GoString returns what %#v prints, without secrets.
func (c *connector) GoString() string { return c.db.String() }
