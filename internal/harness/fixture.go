package harness

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Fixture is one story in one mode. Its own Hit, Miss, Bypass, … ask f.DB;
// those of On(x) ask x.
type Fixture struct {
	*testing.T
	Via
	DB    *sql.DB  // cachedpg
	Plain *sql.DB  // pgx, with the same settings
	DSN   string   // for pgx
	Keys  []string // of the driver, such as "cache_ttl=1s"
	Ctx   context.Context
}

// Step runs a part of the story as a subtest.
func (f *Fixture) Step(name string, part func(f *Fixture)) {
	f.T.Run(name, func(t *testing.T) {
		sub := *f
		sub.T, sub.Via.F = t, &sub
		part(&sub)
	})
}

// People is the setup of most stories.
const People = `
	CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, city text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo'), (2, 'bob', 'Rome'), (3, 'cid', NULL);`

// New returns the fixture of a story in a schema that is named after the mode.
func New(t *testing.T, database, mode, setup string, keys ...string) *Fixture {
	t.Helper()
	pgtest.Exec(t, database, "DROP SCHEMA IF EXISTS "+mode+" CASCADE; CREATE SCHEMA "+mode)
	dsn := WithKey(WithKey(database, "search_path", mode), "default_query_exec_mode", mode)
	if setup != "" {
		pgtest.Exec(t, WithKey(database, "search_path", mode), setup)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	t.Cleanup(cancel)
	f := &Fixture{T: t, DSN: dsn, Keys: keys, Ctx: ctx}
	f.DB = f.Open("cachedpg", WithKeys(dsn, keys))
	f.Plain = f.Open("pgx", dsn)
	f.Via = Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	if len(keys) > 0 {
		f.Live(f.DB)
	}
	return f
}

// Live returns when a lease stands in db's shared store. Its begin may have
// to wait for transactions of other tests.
func (f *Fixture) Live(db *sql.DB) {
	f.Helper()
	f.Until("a lease", func() bool {
		if err := db.PingContext(f.Ctx); err != nil {
			f.Fatal(err)
		}
		return inside.Live(db)
	})
}

// InMemory reports that the story plays in the store in memory.
func (f *Fixture) InMemory() bool { return len(f.Keys) == 0 }

// Open opens a DB that is closed when the test ends.
func (f *Fixture) Open(driverName, dsn string) *sql.DB {
	f.Helper()
	// With it stories are told once more with few connections to PostgreSQL, see make test-bound.
	if n := os.Getenv("CACHEDPG_TEST_MAX_CONNS"); n != "" && driverName == "cachedpg" && !strings.Contains(dsn, "cache_max_conns") && !strings.HasPrefix(dsn, "registeredConnConfig") {
		dsn = WithKey(dsn, "cache_max_conns", n)
	}
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	return db
}

// OpenDB is Open for a connector.
func OpenDB(f *Fixture, c driver.Connector) *sql.DB {
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return db
}

// Around is a connector that wraps connections, and says which driver is its own.
type Around struct {
	driver.Connector
	Wrap func(driver.Conn) driver.Conn
	Own  driver.Driver
}

func (w Around) Driver() driver.Driver { return w.Own }

func (w Around) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return w.Wrap(conn), nil
}

// Process returns the via of another process, once a lease stands for it.
func (f *Fixture) Process(name string, keys ...string) Via {
	f.Helper()
	db := OpenDB(f, f.connector(WithKeys(WithKeys(f.DSN, f.Keys), keys), name))
	f.Live(db)
	return f.Asking(db)
}

// Beside returns the via of another process, whatever store it has.
func (f *Fixture) Beside(name string, keys ...string) Via {
	f.Helper()
	return f.Asking(OpenDB(f, f.connector(WithKeys(f.DSN, keys), name)))
}

// connector returns a connector of another process.
func (f *Fixture) connector(dsn, name string) driver.Connector {
	f.Helper()
	c, err := f.DB.Driver().(driver.DriverContext).OpenConnector(dsn)
	if err != nil {
		f.Fatal(err)
	}
	inside.Process(c, name)
	return c
}

// NewRole makes a role that may use everything in the fixture's schema.
func (f *Fixture) NewRole(database string) string {
	f.Helper()
	role := "hardened_" + strings.ToLower(rand.Text())
	pgtest.Exec(f, database, "CREATE ROLE "+role+" LOGIN")
	f.Cleanup(func() { pgtest.Exec(f, database, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	f.Past("GRANT USAGE ON SCHEMA cache_statement TO " + role)
	f.Past("GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
	f.Past("GRANT ALL ON ALL SEQUENCES IN SCHEMA cache_statement TO " + role)
	return role
}

// Mode is the exec mode of the story.
func (f *Fixture) Mode() pgx.QueryExecMode {
	f.Helper()
	config, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	return config.DefaultQueryExecMode
}

// PoolConfig returns the configuration of a pool of pgx for the story's database.
func (f *Fixture) PoolConfig() *pgxpool.Config {
	f.Helper()
	config, err := pgxpool.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	return config
}

// With opens another cachedpg DB with keys such as "cache_ttl=1s" and returns
// the via that asks it.
func (f *Fixture) With(keys ...string) Via {
	f.Helper()
	return f.Asking(f.Open("cachedpg", WithKeys(f.DSN, append(slices.Clone(f.Keys), keys...))))
}

// Asking returns the via that asks another cachedpg DB.
func (f *Fixture) Asking(db *sql.DB) Via { return Via{F: f, DB: db, Ask: db, Truth: f.Plain} }

// Past executes past the driver, which therefore does not know of it.
func (f *Fixture) Past(query string, args ...any) {
	f.Helper()
	if _, err := f.Plain.ExecContext(f.Ctx, query, args...); err != nil {
		f.Fatalf("past the driver: %v\nin: %s", err, query)
	}
}

// Count is the one number that a query past the driver gives.
func (f *Fixture) Count(query string, args ...any) (n int) {
	f.Helper()
	if err := f.Plain.QueryRowContext(f.Ctx, query, args...).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

// Session takes a connection out of db, and out of plain to compare with.
func (f *Fixture) Session() (Via, *sql.Conn) {
	f.Helper()
	v := f.Via
	ours, theirs := f.Conn(f.DB), f.Conn(f.Plain)
	v.Ask, v.Truth = ours, theirs
	return v, ours
}

// Conn takes a connection out of a DB.
func (f *Fixture) Conn(db *sql.DB) *sql.Conn {
	f.Helper()
	conn, err := db.Conn(f.Ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return conn
}

// Begin starts a transaction on f.db.
func (f *Fixture) Begin(opts *sql.TxOptions) (Via, *sql.Tx) {
	f.Helper()
	tx, err := f.DB.BeginTx(f.Ctx, opts)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	return f.On(tx), tx
}

// Commit must succeed.
func (f *Fixture) Commit(tx interface{ Commit() error }) {
	f.Helper()
	if err := tx.Commit(); err != nil {
		f.Fatalf("commit: %v", err)
	}
}

// Rollback must succeed.
func (f *Fixture) Rollback(tx interface{ Rollback() error }) {
	f.Helper()
	if err := tx.Rollback(); err != nil {
		f.Fatalf("rollback: %v", err)
	}
}

// LockedCatalog has another session hold a lock without which no catalog can be loaded, on a
// table of PostgreSQL's that others do without.
func (f *Fixture) LockedCatalog(table string) (unlock func()) {
	f.Helper()
	tx, err := f.Plain.BeginTx(f.Ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	if _, err := tx.ExecContext(f.Ctx, "LOCK pg_catalog."+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		f.Fatal(err)
	}
	return func() { f.Rollback(tx) }
}

// ParsedDSN is what pgx makes of a DSN.
func ParsedDSN(tb testing.TB, dsn string) pgx.ConnConfig {
	tb.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	return *config
}

// Anew asks on new connections, through the driver and past it.
func Anew(f *Fixture) Via {
	f.Helper()
	v := f.With()
	v.Truth = f.Open("pgx", f.DSN)
	return v
}

// Clocks is the setup of stories whose query shows which TimeZone holds.
const Clocks = People + `CREATE TABLE clocks (id int PRIMARY KEY, at timestamptz); INSERT INTO clocks VALUES (1, '2024-05-01 12:00Z');
	CREATE TABLE log (line text);`

// UTC makes a DSN whose sessions begin with a known TimeZone.
func UTC(f *Fixture) {
	f.Helper()
	f.DSN = WithKey(f.DSN, "timezone", "UTC")
	f.DB, f.Plain = f.Open("cachedpg", WithKeys(f.DSN, f.Keys)), f.Open("pgx", f.DSN)
	f.Via = Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
}
