package connections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Wrappers of the shapes that drivers for tracing, logging and metrics have. They hide
// that a connector is an io.Closer.

// whole is a connection with all optional interfaces, which does not tell what it wraps.
type whole struct {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.NamedValueChecker
}

func wholly(conn driver.Conn) driver.Conn {
	c := conn.(interface {
		driver.ConnBeginTx
		driver.ConnPrepareContext
		driver.ExecerContext
		driver.QueryerContext
		driver.Pinger
		driver.SessionResetter
		driver.NamedValueChecker
	})
	return whole{conn, c, c, c, c, c, c, c}
}

// deaf has no Ping.
type deaf struct {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

func deafly(conn driver.Conn) driver.Conn {
	c := conn.(*cachedpg.Conn)
	return deaf{c, c, c, c}
}

// bare has no optional interface, and tells what it wraps.
type bare struct{ driver.Conn }

func (c bare) Raw() driver.Conn { return c.Conn }

type unwrapping struct{ driver.Conn }

func (c unwrapping) Unwrap() driver.Conn { return c.Conn }

var shapes = map[string]func(driver.Conn) driver.Conn{
	"whole":     wholly,
	"deaf":      deafly,
	"raw":       func(c driver.Conn) driver.Conn { return bare{c} },
	"unwrap":    func(c driver.Conn) driver.Conn { return unwrapping{c} },
	"in layers": func(c driver.Conn) driver.Conn { return wholly(wholly(c)) },
}

// opens is a driver without OpenConnector.
type opens struct {
	driver.Driver
	wrap func(driver.Conn) driver.Conn
}

func (w opens) Open(name string) (driver.Conn, error) {
	conn, err := w.Driver.Open(name)
	if err != nil {
		return nil, err
	}
	return w.wrap(conn), nil
}

// wrappings are ways to open a database through a wrapper.
var wrappings = map[string]func(t *testing.T, dsn string, wrap func(driver.Conn) driver.Conn) driver.Connector{
	"with our driver": func(t *testing.T, dsn string, wrap func(driver.Conn) driver.Conn) driver.Connector {
		c := connectorFor(t, dsn)
		return harness.Around{Connector: c, Wrap: wrap, Own: c.Driver()}
	},
	"with the registered driver": func(t *testing.T, dsn string, wrap func(driver.Conn) driver.Conn) driver.Connector {
		return harness.Around{Connector: connectorFor(t, dsn), Wrap: wrap, Own: &cachedpg.Driver{}}
	},
	"with a driver of its own": func(t *testing.T, dsn string, wrap func(driver.Conn) driver.Conn) driver.Connector {
		return harness.Around{Connector: connectorFor(t, dsn), Wrap: wrap, Own: opens{}}
	},
	"without connectors": func(t *testing.T, dsn string, wrap func(driver.Conn) driver.Conn) driver.Connector {
		return &dsnConnector{opens{&cachedpg.Driver{}, wrap}, dsn}
	},
}

// dsnConnector is database/sql's connector of a driver that has none.
type dsnConnector struct {
	opens
	dsn string
}

func (n *dsnConnector) Connect(context.Context) (driver.Conn, error) { return n.Open(n.dsn) }
func (n *dsnConnector) Driver() driver.Driver                        { return n.opens }

func connectorFor(t *testing.T, dsn string) driver.Connector {
	t.Helper()
	c, err := (&cachedpg.Driver{}).OpenConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// everyWrapping runs a test with each shape in each way to open it.
func everyWrapping(t *testing.T, test func(f *harness.Fixture, c driver.Connector)) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		for way, open := range wrappings {
			for shape, wrap := range shapes {
				t.Run(way+"/"+shape, func(t *testing.T) {
					database := pgtest.Database(t)
					f := &harness.Fixture{T: t, DSN: database, Keys: keys}
					var cancel context.CancelFunc
					f.Ctx, cancel = context.WithTimeout(context.Background(), harness.Timeout)
					t.Cleanup(cancel)
					pgtest.Exec(t, database, harness.People)
					test(f, open(t, harness.WithKeys(database, keys), wrap))
				})
			}
		}
	})
}

func TestADatabaseBehindAWrapperIsFound(t *testing.T) {
	everyWrapping(t, func(f *harness.Fixture, c driver.Connector) {
		db := sql.OpenDB(c)
		defer db.Close()
		for what, x := range map[string]cachedpg.Database{"the DB": db, "the connector": c} {
			if x, err := cachedpg.Explain(f.Ctx, x, harness.UserByID, 1); err != nil || !x.Cacheable {
				f.Errorf("Explain of %s: %+v, %v", what, x, err)
			}
			if err := cachedpg.Invalidate(f.Ctx, x, "users"); err != nil {
				f.Errorf("Invalidate of %s: %v", what, err)
			}
			if err := cachedpg.Invalidate(f.Ctx, x); err != nil {
				f.Errorf("Invalidate of %s: %v", what, err)
			}
		}
		f.Until("a hit that is counted", func() bool {
			var id int
			var name, city string
			if err := db.QueryRowContext(f.Ctx, harness.UserByID, 1).Scan(&id, &name, &city); err != nil || name != "ann" && name != "ida" {
				f.Fatalf("%q, %v", name, err)
			}
			s := cachedpg.StatsOf(db)
			if s.Lookups+s.Bypassed == 0 {
				f.Fatalf("nothing is counted: %+v", s)
			}
			return s.Hits > 0
		})
		conn := f.Conn(db)
		if err := cachedpg.PgxConn(f.Ctx, conn, func(conn *pgx.Conn) error { return conn.Ping(f.Ctx) }); err != nil {
			f.Errorf("PgxConn: %v", err)
		}
	})
}

// notOurs reports that an error says whose database it is not.
func notOurs(err error) bool {
	return err != nil && err.Error() == "cachedpg: not a database opened with the cachedpg driver"
}

// What is not ours is told so.
func TestADatabaseOfAnotherDriverIsRefusedInWords(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	plain, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	c, err := plain.Driver().(driver.DriverContext).OpenConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for what, x := range map[string]cachedpg.Database{"an sql.DB": plain, "a connector": c, "wrapped": harness.Around{Connector: c, Wrap: wholly, Own: opens{}}} {
		if _, err := cachedpg.Explain(ctx, x, "SELECT 1"); !notOurs(err) {
			t.Errorf("Explain of %s: %v", what, err)
		}
		if err := cachedpg.Invalidate(ctx, x); !notOurs(err) {
			t.Errorf("Invalidate of %s: %v", what, err)
		}
		if s := cachedpg.StatsOf(x); len(s.Problems) != 1 || !notOurs(errors.New(s.Problems[0].Text)) {
			t.Errorf("StatsOf %s: %+v", what, s)
		}
	}
	conn, err := plain.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := cachedpg.PgxConn(ctx, conn, func(*pgx.Conn) error { return nil }); !notOurs(err) {
		t.Errorf("PgxConn: %v", err)
	}
	if err := conn.PingContext(ctx); err != nil {
		t.Errorf("the connection does not go on: %v", err)
	}
}

// When Close returns nobody is connected any more, so that the database can be dropped;
// and the DB's connector may be opened again.
func TestClosingADatabaseBehindAWrapperLeavesNoSession(t *testing.T) {
	everyWrapping(t, func(f *harness.Fixture, c driver.Connector) {
		config, err := pgx.ParseConfig(f.DSN)
		if err != nil {
			f.Fatal(err)
		}
		admin := pgtest.Connect(f.T, pgtest.DSN(f.T))
		for range 2 {
			db := sql.OpenDB(c)
			conns := []*sql.Conn{f.Conn(db), f.Conn(db)}
			for _, conn := range conns {
				if _, err := conn.ExecContext(f.Ctx, renames); err != nil {
					f.Fatal(err)
				}
				conn.Close()
			}
			var name string
			if err := db.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = 1").Scan(&name); err != nil || name != "ida" {
				f.Fatalf("%q, %v", name, err)
			}
			cached, err := inside.Cached(f.Ctx, db)
			if err != nil {
				f.Fatal(err)
			}
			if err := db.Close(); err != nil {
				f.Error(err)
			}
			if cached() {
				f.Error("the cache outlives Close")
			}
			var left int
			f.Until("PostgreSQL to see the connections end", func() bool { // it looks at a socket that was closed when it gets to
				if err := admin.QueryRow(f.Ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type <> 'autovacuum worker'", config.Database).Scan(&left); err != nil {
					f.Fatal(err)
				}
				return left == 0
			})
		}
	})
}
