package connections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/keying"
)

// What a caller may do beside Query and Exec: the pgx connection underneath,
// prepared statements, pgx's own arguments, connectors of other makes, and a
// PostgreSQL that is not there.

// Whatever is done with the pgx connection is seen by its tracer.
func TestTheConnectionUnderneathInvalidates(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People, func(f *harness.Fixture) {
		const count = "SELECT count(*) FROM users"
		f.Warm(count).Is("3")
		f.Warm(harness.UserByID, 1)
		f.Warm("SELECT 1")

		outside.Raw(f, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.Ctx, "UPDATE users SET name = $1 WHERE id = 1", "anna")
			return err
		})
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		f.Hit("SELECT 1")

		outside.Raw(f, func(conn *pgx.Conn) error {
			_, err := conn.CopyFrom(f.Ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{8, "copied"}, {9, "too"}}))
			return err
		})
		f.Fresh(count).Is("5")
		f.Known(count)

		outside.Raw(f, func(conn *pgx.Conn) error {
			var batch pgx.Batch
			batch.Queue("SELECT 1")
			batch.Queue("UPDATE users SET name = $1 WHERE id = $2", "batched", 1)
			batch.Queue("DELETE FROM users WHERE id = $1", 9)
			return conn.SendBatch(f.Ctx, &batch).Close()
		})
		f.Fresh(harness.UserByID, 1).Is("1 batched Oslo")
		f.Fresh(count).Is("4")
		f.Known(count)

		outside.Raw(f, func(conn *pgx.Conn) error {
			return pgx.BeginFunc(f.Ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(f.Ctx, "DELETE FROM users WHERE id = 8"); err != nil {
					return err
				}
				f.Hit(count).Is("4") // not committed yet
				return nil
			})
		})
		f.Fresh(count).Is("3")
		f.Known(count)

		outside.Raw(f, func(conn *pgx.Conn) error {
			var id int
			return conn.QueryRow(f.Ctx, "INSERT INTO users VALUES (7, 'returned') RETURNING id").Scan(&id)
		})
		f.Fresh(count).Is("4")
		f.Known(count)

		err := cachedpg.PgxConn(f.Ctx, f.Conn(f.DB), func(conn *pgx.Conn) error {
			tx, err := conn.Begin(f.Ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(f.Ctx, "DELETE FROM users"); err != nil {
				return err
			}
			return tx.Rollback(f.Ctx)
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Fresh(count).Is("4")
		f.Known(harness.UserByID, 1)

		// A read there is a read: it neither fills nor invalidates.
		outside.Raw(f, func(conn *pgx.Conn) error {
			var n int
			return conn.QueryRow(f.Ctx, count).Scan(&n)
		})
		f.Hit(harness.UserByID, 1)
	})
}

// A setting made there is a setting of the session.
func TestTheConnectionUnderneathChangesItsSession(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE v AS SELECT '2024-05-01 12:00Z'::timestamptz AS at", func(f *harness.Fixture) {
		const query = "SELECT at::text FROM v"
		s, conn := f.Session()
		first := s.Warm(query).String()
		const set = "SET TIME ZONE 'Asia/Tokyo'"
		err := cachedpg.PgxConn(f.Ctx, conn, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.Ctx, set)
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		if _, err := s.Truth.ExecContext(f.Ctx, set); err != nil {
			f.Fatal(err)
		}
		if s.Fresh(query).String() == first {
			f.Error("the setting was not seen")
		}
		f.Hit(query).Is(first)

		// A transaction left open there is the driver's to know.
		err = cachedpg.PgxConn(f.Ctx, conn, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.Ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		s.Runs(keying.Isolation, query)
		s.Exec("COMMIT")
		s.Hit(query)
	})
}

// The ways to the wrapped connection that other wrappers use.
func TestTheWrappedConnectionIsAvailable(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		err := f.Conn(f.DB).Raw(func(c any) error {
			conn, ok := c.(interface{ Conn() *pgx.Conn })
			if !ok {
				return fmt.Errorf("%T has no Conn", c)
			}
			if err := conn.Conn().Ping(f.Ctx); err != nil {
				return err
			}
			for _, wrapped := range []driver.Conn{c.(interface{ Raw() driver.Conn }).Raw(), c.(interface{ Unwrap() driver.Conn }).Unwrap()} {
				if _, ok := wrapped.(*stdlib.Conn); !ok {
					return fmt.Errorf("got %T, want *stdlib.Conn", wrapped)
				}
			}
			return nil
		})
		if err != nil {
			f.Error(err)
		}
		err = cachedpg.PgxConn(f.Ctx, f.Conn(f.Plain), func(*pgx.Conn) error { return nil })
		if err == nil {
			f.Error("PgxConn of another driver's connection: no error")
		}
		if s := cachedpg.StatsOf(f.Plain); s.Lookups != 0 {
			f.Error("stats of another driver's DB")
		}
		if err := cachedpg.Invalidate(f.Ctx, f.Plain); err == nil {
			f.Error("Invalidate of another driver's DB: no error")
		}
	})
}

// database/sql prepares a statement on each connection that it runs on; a
// hit needs none of them.
func TestPreparedStatements(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		stmt, err := f.DB.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		p := f.On(harness.Prepared{Stmt: stmt})
		p.Warm(harness.UserByID, 1)
		p.Warm(harness.UserByID, 2)

		write, err := f.DB.PrepareContext(f.Ctx, "UPDATE users SET name = $2 WHERE id = $1")
		if err != nil {
			f.Fatal(err)
		}
		defer write.Close()
		f.On(harness.Prepared{Stmt: write}).Exec("", 1, "anna")
		p.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		p.Hit(harness.UserByID, 2)

		returning, err := f.DB.PrepareContext(f.Ctx, "UPDATE users SET name = $2 WHERE id = $1 RETURNING name")
		if err != nil {
			f.Fatal(err)
		}
		defer returning.Close()
		f.On(harness.Prepared{Stmt: returning}).Runs(keying.NotRead, "", 1, "annette").Is("annette")
		p.Miss(harness.UserByID, 1).Is("1 annette Oslo")

		// Wrong arguments: database/sql counts, PostgreSQL knows the types.
		plain, err := f.Plain.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		defer plain.Close()
		p.Truth = harness.Prepared{Stmt: plain}
		for _, args := range [][]any{{}, {1, 2}, {"x"}, {struct{}{}}} {
			p.Fails(harness.UserByID, args...)
		}
		p.Fresh(harness.UserByID, 1.5) // pgx makes 1 of it
		f.Exec("UPDATE users SET name = 'ann' WHERE id = 1")
		p.Fresh(harness.UserByID, 1.5)

		// In a transaction, on a connection where it was not prepared.
		tx, end := f.Begin(nil)
		inTx := end.StmtContext(f.Ctx, stmt)
		tx.On(harness.Prepared{Stmt: inTx}).Hit(harness.UserByID, 2)
		tx.On(harness.Prepared{Stmt: end.StmtContext(f.Ctx, write)}).Exec("", 2, "bobby")
		tx.On(harness.Prepared{Stmt: inTx}).Runs(keying.InTransactionAfterWrite, harness.UserByID, 2).Is("2 bobby Rome")
		p.Hit(harness.UserByID, 2).Is("2 bob Rome")
		f.Commit(end)
		p.Miss(harness.UserByID, 2).Is("2 bobby Rome")

		if _, err := f.DB.PrepareContext(f.Ctx, "SELECT nothing FROM nowhere"); err == nil {
			f.Error("Prepare of nonsense: no error")
		}
	})
}

// A statement that was accepted once is prepared on other connections when it
// must run there, and not before.
func TestPreparingAgainCostsNothing(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		p := harness.ThroughProxy(f)
		v := p.Via
		stmt, err := v.DB.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		v.On(harness.Prepared{Stmt: stmt}).Warm(harness.UserByID, 1)
		f.Conn(v.DB) // takes the only connection that has dialled
		p.Cut()
		v.On(harness.Prepared{Stmt: stmt}).Hit(harness.UserByID, 1)
		again, err := v.DB.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatalf("Prepare of an accepted text asks PostgreSQL: %v", err)
		}
		defer again.Close()
		v.On(harness.Prepared{Stmt: again}).Hit(harness.UserByID, 1)
		if _, err := again.QueryContext(f.Ctx, 2); err == nil {
			f.Error("a miss without PostgreSQL succeeded")
		}
		if _, err := again.QueryContext(f.Ctx); err == nil || !strings.Contains(err.Error(), "expected 1 arguments, got 0") {
			f.Errorf("too few arguments: %v", err)
		}
		p.Restore()
		v.On(harness.Prepared{Stmt: again}).Warm(harness.UserByID, 2)
	})
}

// DISCARD ALL drops what pgx has prepared by itself, and pgx fails then, once, with what it
// had. What of that is the driver's own is no failure of the caller's.
func TestWhatTheDriverHasPreparedMayBeDiscarded(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		for _, db := range []*sql.DB{f.Plain, f.DB} {
			conn := f.Conn(db)
			for _, text := range []string{"DISCARD ALL", "DEALLOCATE ALL"} {
				for _, query := range []string{"UPDATE users SET city = $1 WHERE id = 1 -- " + text, text, "UPDATE users SET name = $1 WHERE id = 1 -- " + text} {
					var args []any
					if query != text {
						args = []any{"x"}
					}
					if _, err := conn.ExecContext(f.Ctx, query, args...); err != nil {
						f.Errorf("pgx: %v, %s: %v", db == f.Plain, query, err)
					}
				}
			}
		}
	})
}

// gorm's migrator passes an exec mode as first argument.
func TestLeadingArgumentsOfPgx(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
			pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			f.Known(harness.UserByID, mode, 1)
			f.Known("SELECT name FROM users ORDER BY id", mode)
			f.Exec("UPDATE users SET name = $1 WHERE id = $2", mode, "x", 1)
			f.Miss(harness.UserByID, mode, 1)
			f.Exec("UPDATE users SET name = $1 WHERE id = $2", mode, "ann", 1)
		}
		f.Bypass(keying.ResultFormats, harness.UserByID, pgx.QueryResultFormats{1, 0, 0}, 1)
		f.Bypass(keying.ResultFormats, harness.UserByID, pgx.QueryResultFormatsByOID{23: 0}, 1)
	})
}

// A rewriter runs before the text is analysed: @id is an operator to the parser.
func TestNamedArguments(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		const query, update = "SELECT id, name FROM users WHERE id = @id", "UPDATE users SET name = @name WHERE id = @id"
		f.Warm(query, pgx.NamedArgs{"id": 1})
		f.Warm(query, pgx.NamedArgs{"id": 2})
		f.Hit(query, pgx.StrictNamedArgs{"id": 1})
		f.Hit("SELECT id, name FROM users WHERE id = $1", 1)
		f.Exec(update, pgx.NamedArgs{"id": 1, "name": "anna"})
		f.Miss(query, pgx.NamedArgs{"id": 1}).Is("1 anna")
		f.Hit(query, pgx.NamedArgs{"id": 2})
		f.Fails(query, pgx.StrictNamedArgs{"other": 1})
		f.Fails(query, pgx.StrictNamedArgs{"id": 1, "other": 1})
		f.Fresh(query, pgx.NamedArgs{"other": 1}) // is NULL
		f.Fresh(query)                            // @ is an operator
		f.Fails(query, 1)
		f.Fails(query, sql.Named("id", 1))
	})
}

// ownRewriter is a rewriter that the driver knows nothing of.
type ownRewriter struct{ id int }

func (r ownRewriter) RewriteQuery(_ context.Context, conn *pgx.Conn, sql string, args []any) (string, []any, error) {
	if conn == nil {
		return "", nil, errors.New("no connection")
	}
	return strings.ReplaceAll(sql, "?", "$1"), []any{r.id}, nil
}

func TestARewriterOfTheApplication(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm("SELECT name FROM users WHERE id = ?", ownRewriter{1}).Is("ann")
		f.Warm("SELECT name FROM users WHERE id = ?", ownRewriter{2}).Is("bob")
		f.Exec("UPDATE users SET name = 'x' WHERE id = ?", ownRewriter{1})
		f.Miss("SELECT name FROM users WHERE id = ?", ownRewriter{1}).Is("x")
		f.Hit("SELECT name FROM users WHERE id = ?", ownRewriter{2})
	})
}
