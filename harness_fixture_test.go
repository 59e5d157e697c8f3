package cachedpg

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

// fixture is one story in one mode. Its own hit, miss, bypass, … ask f.db;
// those of on(x) ask x.
type fixture struct {
	*testing.T
	via
	db    *sql.DB  // cachedpg
	plain *sql.DB  // pgx, with the same settings
	dsn   string   // for pgx
	keys  []string // of the driver, such as "cache_ttl=1s"
	ctx   context.Context
}

// step runs a part of the story as a subtest.
func (f *fixture) step(name string, part func(f *fixture)) {
	f.T.Run(name, func(t *testing.T) {
		sub := *f
		sub.T, sub.via.f = t, &sub
		part(&sub)
	})
}

// people is the setup of most stories.
const people = `
	CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, city text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo'), (2, 'bob', 'Rome'), (3, 'cid', NULL);`

func newFixture(t *testing.T, database, mode, setup string, keys ...string) *fixture {
	t.Helper()
	pgtest.Exec(t, database, "DROP SCHEMA IF EXISTS "+mode+" CASCADE; CREATE SCHEMA "+mode)
	dsn := withKey(withKey(database, "search_path", mode), "default_query_exec_mode", mode)
	if setup != "" {
		pgtest.Exec(t, withKey(database, "search_path", mode), setup)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	f := &fixture{T: t, dsn: dsn, keys: keys, ctx: ctx}
	f.db = f.open("cachedpg", withKeys(dsn, keys))
	f.plain = f.open("pgx", dsn)
	f.via = via{f: f, db: f.db, ask: f.db, truth: f.plain}
	if len(keys) > 0 {
		f.live(f.db)
	}
	return f
}

// live returns when a lease stands in db's shared store. Its begin may have
// to wait for transactions of other tests.
func (f *fixture) live(db *sql.DB) {
	f.Helper()
	f.until("a lease", func() bool {
		if err := db.PingContext(f.ctx); err != nil {
			f.Fatal(err)
		}
		return inside.Live(db)
	})
}

// inMemory reports that the story plays in the store in memory.
func (f *fixture) inMemory() bool { return len(f.keys) == 0 }

func (f *fixture) open(driverName, dsn string) *sql.DB {
	f.Helper()
	// With it stories are told once more with few connections to PostgreSQL, see make test-bound.
	if n := os.Getenv("CACHEDPG_TEST_MAX_CONNS"); n != "" && driverName == "cachedpg" && !strings.Contains(dsn, "cache_max_conns") && !strings.HasPrefix(dsn, "registeredConnConfig") {
		dsn = withKey(dsn, "cache_max_conns", n)
	}
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	return db
}

func openDB(f *fixture, c driver.Connector) *sql.DB {
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return db
}

// process returns the via of another process, once a lease stands for it.
func (f *fixture) process(name string, keys ...string) via {
	f.Helper()
	c, err := inside.Process(withKeys(withKeys(f.dsn, f.keys), keys), name)
	if err != nil {
		f.Fatal(err)
	}
	db := openDB(f, c)
	f.live(db)
	return f.asking(db)
}

// beside returns the via of another process, whatever store it has.
func (f *fixture) beside(name string, keys ...string) via {
	f.Helper()
	c, err := inside.Process(withKeys(f.dsn, keys), name)
	if err != nil {
		f.Fatal(err)
	}
	return f.asking(openDB(f, c))
}

// newRole makes a role that may use everything in the fixture's schema.
func (f *fixture) newRole(database string) string {
	f.Helper()
	role := "hardened_" + strings.ToLower(rand.Text())
	pgtest.Exec(f, database, "CREATE ROLE "+role+" LOGIN")
	f.Cleanup(func() { pgtest.Exec(f, database, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	f.past("GRANT USAGE ON SCHEMA cache_statement TO " + role)
	f.past("GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
	f.past("GRANT ALL ON ALL SEQUENCES IN SCHEMA cache_statement TO " + role)
	return role
}

// mode is the exec mode of the story.
func (f *fixture) mode() pgx.QueryExecMode {
	f.Helper()
	config, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	return config.DefaultQueryExecMode
}

func (f *fixture) poolConfig() *pgxpool.Config {
	f.Helper()
	config, err := pgxpool.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	return config
}

// with opens another cachedpg DB with keys such as "cache_ttl=1s" and returns
// the via that asks it.
func (f *fixture) with(keys ...string) via {
	f.Helper()
	return f.asking(f.open("cachedpg", withKeys(f.dsn, append(slices.Clone(f.keys), keys...))))
}

// asking returns the via that asks another cachedpg DB.
func (f *fixture) asking(db *sql.DB) via { return via{f: f, db: db, ask: db, truth: f.plain} }

// past executes past the driver, which therefore does not know of it.
func (f *fixture) past(query string, args ...any) {
	f.Helper()
	if _, err := f.plain.ExecContext(f.ctx, query, args...); err != nil {
		f.Fatalf("past the driver: %v\nin: %s", err, query)
	}
}

func (f *fixture) count(query string, args ...any) (n int) {
	f.Helper()
	if err := f.plain.QueryRowContext(f.ctx, query, args...).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

// session takes a connection out of db, and out of plain to compare with.
func (f *fixture) session() (via, *sql.Conn) {
	f.Helper()
	v := f.via
	ours, theirs := f.conn(f.db), f.conn(f.plain)
	v.ask, v.truth = ours, theirs
	return v, ours
}

func (f *fixture) conn(db *sql.DB) *sql.Conn {
	f.Helper()
	conn, err := db.Conn(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return conn
}

// begin starts a transaction on f.db.
func (f *fixture) begin(opts *sql.TxOptions) (via, *sql.Tx) {
	f.Helper()
	tx, err := f.db.BeginTx(f.ctx, opts)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	return f.on(tx), tx
}

func (f *fixture) commit(tx interface{ Commit() error }) {
	f.Helper()
	if err := tx.Commit(); err != nil {
		f.Fatalf("commit: %v", err)
	}
}

func (f *fixture) rollback(tx interface{ Rollback() error }) {
	f.Helper()
	if err := tx.Rollback(); err != nil {
		f.Fatalf("rollback: %v", err)
	}
}

// lockedCatalog has another session hold a lock without which no catalog can be loaded, on a
// table of PostgreSQL's that others do without.
func (f *fixture) lockedCatalog(table string) (unlock func()) {
	f.Helper()
	tx, err := f.plain.BeginTx(f.ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	if _, err := tx.ExecContext(f.ctx, "LOCK pg_catalog."+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		f.Fatal(err)
	}
	return func() { f.rollback(tx) }
}
