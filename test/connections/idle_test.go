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
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Connections end while they are idle: PostgreSQL restarts, a firewall forgets them. pgx
// asks when database/sql takes one again, which then tries another in silence.

// laidOff is how many idle connections a DB has whose backends have ended since.
const laidOff = 3

// layOff leaves db with them. In each first was run.
func layOff(f *harness.Fixture, db *sql.DB, first string) {
	f.Helper()
	db.SetMaxIdleConns(laidOff)
	var conns []*sql.Conn
	for range laidOff {
		conn := f.Conn(db)
		if _, err := conn.ExecContext(f.Ctx, first); err != nil {
			f.Fatal(err)
		}
		endBackend(f, conn)
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// endBackend returns when the backend of conn is gone.
func endBackend(f *harness.Fixture, conn *sql.Conn) {
	f.Helper()
	var pid int
	if err := conn.QueryRowContext(cachedpg.WithBypass(f.Ctx), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		f.Fatal(err)
	}
	f.Past("SELECT pg_terminate_backend($1, 60000)", pid)
}

const renames = "UPDATE users SET name = 'ida' WHERE id = 1"

func TestIdleConnectionsWhoseBackendsHaveEndedAreReplacedInSilence(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		onConn := func(use func(*sql.Conn) error) func(*sql.DB) error {
			return func(db *sql.DB) error {
				conn, err := db.Conn(f.Ctx)
				if err != nil {
					return err
				}
				return errors.Join(use(conn), conn.Close())
			}
		}
		for name, use := range map[string]func(db *sql.DB) error{
			"ping": func(db *sql.DB) error { return db.PingContext(f.Ctx) },
			"exec": func(db *sql.DB) error {
				_, err := db.ExecContext(f.Ctx, renames)
				return err
			},
			"begin": func(db *sql.DB) error {
				tx, err := db.BeginTx(f.Ctx, nil)
				if err != nil {
					return err
				}
				_, err = tx.ExecContext(f.Ctx, renames)
				return errors.Join(err, tx.Commit())
			},
			"a connection's ping": onConn(func(conn *sql.Conn) error { return conn.PingContext(f.Ctx) }),
			"a connection's exec": onConn(func(conn *sql.Conn) error {
				_, err := conn.ExecContext(f.Ctx, renames)
				return err
			}),
			"a connection's query": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = $1 -- "+f.Name(), 2).Scan(&name)
			}),
			"a connection's query that is not cached": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = 2 FOR UPDATE").Scan(&name)
			}),
			"a connection's returning": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.Ctx, renames+" RETURNING name").Scan(&name)
			}),
			"a connection's statement": onConn(func(conn *sql.Conn) error {
				stmt, err := conn.PrepareContext(f.Ctx, "UPDATE users SET name = $2 WHERE id = $1")
				if err != nil {
					return err
				}
				_, err = stmt.ExecContext(f.Ctx, 1, "ida")
				return errors.Join(err, stmt.Close())
			}),
			"a connection's transaction": onConn(func(conn *sql.Conn) error {
				tx, err := conn.BeginTx(f.Ctx, nil)
				if err != nil {
					return err
				}
				return tx.Rollback()
			}),
			"what a connection wraps": onConn(func(conn *sql.Conn) error {
				return conn.Raw(func(driverConn any) error {
					return driverConn.(interface{ Conn() *pgx.Conn }).Conn().Ping(f.Ctx)
				})
			}),
		} {
			for driverName, dsn := range map[string]string{"pgx": f.DSN, "cachedpg": harness.WithKeys(f.DSN, keys)} {
				db := f.Open(driverName, dsn)
				layOff(f, db, "SELECT 1")
				for range laidOff + 1 {
					if err := use(db); err != nil {
						t.Errorf("%s, %s: %v", driverName, name, err)
					}
				}
				db.Close()
			}
		}
	})
}

// A statement that was prepared on connections of which all have ended is prepared again.
func TestAStatementOutlivesTheBackendsThatPreparedIt(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		for _, query := range []string{"SELECT name FROM users WHERE id = $1", "SELECT name FROM users WHERE id = $1 FOR UPDATE"} {
			stmt, err := f.DB.PrepareContext(f.Ctx, query)
			if err != nil {
				t.Fatal(err)
			}
			layOff(f, f.DB, "SELECT 1")
			for range laidOff + 1 {
				var name string
				if err := stmt.QueryRowContext(cachedpg.WithBypass(f.Ctx), 2).Scan(&name); err != nil || name != "bob" {
					t.Errorf("%s: %q, %v", query, name, err)
				}
			}
			if err := stmt.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// What is answered from the cache needs no backend, and is not one's that has ended with
// settings of its own.
func TestAnEndedSessionTakesItsSettingsAlong(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People+
			"CREATE SCHEMA other; CREATE TABLE other.users AS SELECT id, 'other ' || name AS name, city FROM users;", keys...)
		const query = "SELECT name FROM users WHERE id = 2"
		f.Warm(query)
		v, conn := f.Session()
		for _, x := range []harness.Asker{v.Ask, v.Truth} {
			if _, err := x.ExecContext(f.Ctx, "SET search_path = other"); err != nil {
				t.Fatal(err)
			}
		}
		v.Fresh(query).Is("other bob")
		v.Fresh(query).Is("other bob")
		conn.Close()
		for _, db := range []*sql.DB{f.DB, f.Open("pgx", f.DSN)} {
			layOff(f, db, "SET search_path = other")
			conn := f.Conn(db)
			for _, ctx := range []context.Context{f.Ctx, cachedpg.WithBypass(f.Ctx), f.Ctx} {
				var name string
				if err := conn.QueryRowContext(ctx, query).Scan(&name); err != nil || name != "bob" {
					t.Errorf("%T: %q, %v", db.Driver(), name, err)
				}
			}
		}
	})
}

// A question of the driver's own that finds the connection gone costs the caller no
// statement: none was sent, so that database/sql may try another connection.
func TestWhatTheDriverFindsGoneBeforeAStatementIsSentIsABadConnection(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		for name, use := range map[string]func(x harness.Asker) error{
			"exec": func(x harness.Asker) error {
				_, err := x.ExecContext(f.Ctx, renames)
				return err
			},
			"exec with arguments": func(x harness.Asker) error {
				_, err := x.ExecContext(f.Ctx, "UPDATE users SET name = $2 WHERE id = $1", 1, "ida")
				return err
			},
			"query": func(x harness.Asker) error {
				rows, err := x.QueryContext(f.Ctx, renames+" RETURNING name")
				if err == nil {
					rows.Close()
				}
				return err
			},
		} {
			conn := f.Conn(f.DB)
			pid := 0
			if err := conn.QueryRowContext(cachedpg.WithBypass(f.Ctx), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(f.Ctx, "SET search_path = other"); err != nil { // the next statement asks what it is now
				t.Fatal(err)
			}
			f.Past("SELECT pg_terminate_backend($1, 60000)", pid)
			if err := use(conn); !errors.Is(err, driver.ErrBadConn) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
