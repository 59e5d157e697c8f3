package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Connections end while they are idle: PostgreSQL restarts, a firewall forgets them. pgx
// asks when database/sql takes one again, which then tries another in silence.

// laidOff is how many idle connections a DB has whose backends have ended since.
const laidOff = 3

// layOff leaves db with them. In each first was run.
func (f *fixture) layOff(db *sql.DB, first string) {
	f.Helper()
	db.SetMaxIdleConns(laidOff)
	var conns []*sql.Conn
	for range laidOff {
		conn := f.conn(db)
		if _, err := conn.ExecContext(f.ctx, first); err != nil {
			f.Fatal(err)
		}
		f.endBackend(conn)
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// endBackend returns when the backend of conn is gone.
func (f *fixture) endBackend(conn *sql.Conn) {
	f.Helper()
	var pid int
	if err := conn.QueryRowContext(WithBypass(f.ctx), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		f.Fatal(err)
	}
	f.past("SELECT pg_terminate_backend($1, 60000)", pid)
}

const renames = "UPDATE users SET name = 'ida' WHERE id = 1"

func TestIdleConnectionsWhoseBackendsHaveEndedAreReplacedInSilence(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people, keys...)
		onConn := func(use func(*sql.Conn) error) func(*sql.DB) error {
			return func(db *sql.DB) error {
				conn, err := db.Conn(f.ctx)
				if err != nil {
					return err
				}
				return errors.Join(use(conn), conn.Close())
			}
		}
		for name, use := range map[string]func(db *sql.DB) error{
			"ping": func(db *sql.DB) error { return db.PingContext(f.ctx) },
			"exec": func(db *sql.DB) error {
				_, err := db.ExecContext(f.ctx, renames)
				return err
			},
			"begin": func(db *sql.DB) error {
				tx, err := db.BeginTx(f.ctx, nil)
				if err != nil {
					return err
				}
				_, err = tx.ExecContext(f.ctx, renames)
				return errors.Join(err, tx.Commit())
			},
			"a connection's ping": onConn(func(conn *sql.Conn) error { return conn.PingContext(f.ctx) }),
			"a connection's exec": onConn(func(conn *sql.Conn) error {
				_, err := conn.ExecContext(f.ctx, renames)
				return err
			}),
			"a connection's query": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.ctx, "SELECT name FROM users WHERE id = $1 -- "+f.Name(), 2).Scan(&name)
			}),
			"a connection's query that is not cached": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.ctx, "SELECT name FROM users WHERE id = 2 FOR UPDATE").Scan(&name)
			}),
			"a connection's returning": onConn(func(conn *sql.Conn) error {
				var name string
				return conn.QueryRowContext(f.ctx, renames+" RETURNING name").Scan(&name)
			}),
			"a connection's statement": onConn(func(conn *sql.Conn) error {
				stmt, err := conn.PrepareContext(f.ctx, "UPDATE users SET name = $2 WHERE id = $1")
				if err != nil {
					return err
				}
				_, err = stmt.ExecContext(f.ctx, 1, "ida")
				return errors.Join(err, stmt.Close())
			}),
			"a connection's transaction": onConn(func(conn *sql.Conn) error {
				tx, err := conn.BeginTx(f.ctx, nil)
				if err != nil {
					return err
				}
				return tx.Rollback()
			}),
			"what a connection wraps": onConn(func(conn *sql.Conn) error {
				return conn.Raw(func(driverConn any) error {
					return driverConn.(interface{ Conn() *pgx.Conn }).Conn().Ping(f.ctx)
				})
			}),
		} {
			for driverName, dsn := range map[string]string{"pgx": f.dsn, "cachedpg": withKeys(f.dsn, keys)} {
				db := f.open(driverName, dsn)
				f.layOff(db, "SELECT 1")
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
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people, keys...)
		for _, query := range []string{"SELECT name FROM users WHERE id = $1", "SELECT name FROM users WHERE id = $1 FOR UPDATE"} {
			stmt, err := f.db.PrepareContext(f.ctx, query)
			if err != nil {
				t.Fatal(err)
			}
			f.layOff(f.db, "SELECT 1")
			for range laidOff + 1 {
				var name string
				if err := stmt.QueryRowContext(WithBypass(f.ctx), 2).Scan(&name); err != nil || name != "bob" {
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
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people+
			"CREATE SCHEMA other; CREATE TABLE other.users AS SELECT id, 'other ' || name AS name, city FROM users;", keys...)
		const query = "SELECT name FROM users WHERE id = 2"
		f.warm(query)
		v, conn := f.session()
		for _, x := range []asker{v.ask, v.truth} {
			if _, err := x.ExecContext(f.ctx, "SET search_path = other"); err != nil {
				t.Fatal(err)
			}
		}
		v.fresh(query).is("other bob")
		v.fresh(query).is("other bob")
		conn.Close()
		for _, db := range []*sql.DB{f.db, f.open("pgx", f.dsn)} {
			f.layOff(db, "SET search_path = other")
			conn := f.conn(db)
			for _, ctx := range []context.Context{f.ctx, WithBypass(f.ctx), f.ctx} {
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
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people, keys...)
		for name, use := range map[string]func(x asker) error{
			"exec": func(x asker) error {
				_, err := x.ExecContext(f.ctx, renames)
				return err
			},
			"exec with arguments": func(x asker) error {
				_, err := x.ExecContext(f.ctx, "UPDATE users SET name = $2 WHERE id = $1", 1, "ida")
				return err
			},
			"query": func(x asker) error {
				rows, err := x.QueryContext(f.ctx, renames+" RETURNING name")
				if err == nil {
					rows.Close()
				}
				return err
			},
		} {
			conn := f.conn(f.db)
			pid := 0
			if err := conn.QueryRowContext(WithBypass(f.ctx), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(f.ctx, "SET search_path = other"); err != nil { // the next statement asks what it is now
				t.Fatal(err)
			}
			f.past("SELECT pg_terminate_backend($1, 60000)", pid)
			if err := use(conn); !errors.Is(err, driver.ErrBadConn) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
