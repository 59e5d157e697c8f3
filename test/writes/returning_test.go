package writes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Statements may be made to return which rows they change. Nobody but the driver may notice.
const orders = `
	CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, status text, note varchar(20) UNIQUE);
	CREATE INDEX ON orders (customer_id);
	INSERT INTO orders SELECT i, i % 7, 'new', 'note ' || i FROM generate_series(1, 300) i;`

// executor is a DB, a connection or a transaction.
type executor interface {
	harness.Asker
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// written are statements that leave the rows as the one before them has found them, or do so every time.
var written = []struct {
	sql  string
	args []any
}{
	{"UPDATE orders SET status = $1 WHERE id = $2", []any{"paid", 1}},
	{"UPDATE orders SET status = $1 WHERE id = $2", []any{"paid", -1}},
	{"UPDATE orders SET status = 'paid' WHERE id = 2", nil},
	{"UPDATE orders SET status = 'paid $1' WHERE id = 2", nil},
	{"UPDATE orders SET status = 'paid' WHERE id = 2; -- twice\n", nil},
	{"UPDATE orders SET status = $1 WHERE id = 3 -- RETURNING", []any{"paid"}},
	{"UPDATE orders AS o SET status = $1 WHERE o.id = 3 /* ; */ ;", []any{"paid"}},
	{"UPDATE orders SET status = $1", []any{"all"}},
	{"UPDATE orders SET status = $1 WHERE id = $2 RETURNING id, status, note", []any{"paid", 4}},
	{"UPDATE orders SET status = $1 WHERE id <= 9 RETURNING note AS n, 1.5::numeric(5,2);", []any{"paid"}},
	{"INSERT INTO orders VALUES ($1, 1, 'new', 'x') ON CONFLICT (id) DO NOTHING", []any{5}},
	{"INSERT INTO orders VALUES ($1, 1, 'new', 'note 5') ON CONFLICT (id) DO UPDATE SET status = 'again'", []any{5}},
	{"INSERT INTO orders VALUES ($1, 1, 'new', 'note 5') ON CONFLICT (id) DO UPDATE SET status = 'again' RETURNING id", []any{5}},
	{"DELETE FROM orders WHERE id = $1", []any{-5}},
	{"DELETE FROM orders WHERE id = -5 RETURNING *", nil},
	// These fail.
	{"UPDATE orders SET note = $1 WHERE id = $2", []any{"note 1", 2}},
	{"UPDATE orders SET note = 'note 1' WHERE id = 2 RETURNING id", nil},
	{"UPDATE orders SET id = $1 WHERE id = $2", []any{"x", 2}},
	{"UPDATE orders SET id = $1 WHERE id = $2", []any{1}},
	{"UPDATE orders SET nothing = $1 WHERE id = $2", []any{"x", 2}},
	{"UPDATE orders SET status = $1::int / 0 WHERE id = 1", []any{1}},
	{"UPDATE orders SET note = 'more than twenty characters' WHERE id = 1", nil},
	{"INSERT INTO orders VALUES ($1, NULL, 'new', 'y')", []any{1000}},
	{"INSERT INTO orders VALUES (1, 1, 'new', 'y') RETURNING nothing", nil},
}

// outcome is what a caller sees of an Exec.
func outcome(result sql.Result, err error) string {
	if err != nil {
		return fmt.Sprintf("%T %v", err, err)
	}
	n, err := result.RowsAffected()
	return fmt.Sprint(n, err)
}

// table is what a caller sees of a Query, down to the types of its columns.
func table(rows *sql.Rows, err error) string {
	if err != nil {
		return fmt.Sprintf("%T %v", err, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	out := fmt.Sprint(names, err)
	types, err := rows.ColumnTypes()
	for _, c := range types {
		length, hasLength := c.Length()
		precision, scale, isDecimal := c.DecimalSize()
		out += fmt.Sprint("|", c.Name(), c.DatabaseTypeName(), c.ScanType(), length, hasLength, precision, scale, isDecimal)
	}
	out += fmt.Sprint(err, "\n")
	var lines []string // in the order of the table's pages, which is anything
	for rows.Next() {
		values := make([]any, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return out + err.Error()
		}
		line := ""
		for _, v := range values {
			line += fmt.Sprintf("%T %v|", v, v)
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return out + strings.Join(lines, "") + fmt.Sprint(rows.Err(), rows.NextResultSet(), rows.Close())
}

func TestWhatAWriteIsMadeToReturnIsNotSeen(t *testing.T) {
	harness.Scenario(t, orders, func(f *harness.Fixture) {
		same := func(how, sql string, args []any, got, want string) {
			f.Helper()
			if got != want {
				f.Errorf("%s, %s %v:\n  got  %s\n  want %s", how, sql, args, got, want)
			}
		}
		for _, w := range written {
			for range 3 { // the first time, and when it is known
				got, want := outcome(f.DB.ExecContext(f.Ctx, w.sql, w.args...)), outcome(f.Plain.ExecContext(f.Ctx, w.sql, w.args...))
				same("Exec", w.sql, w.args, got, want)
				got, want = table(f.DB.QueryContext(f.Ctx, w.sql, w.args...)), table(f.Plain.QueryContext(f.Ctx, w.sql, w.args...))
				same("Query", w.sql, w.args, got, want)
			}
			inTransaction := func(db *sql.DB, f2 func(tx *sql.Tx) string) string {
				tx, err := db.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				out := f2(tx)
				return out + fmt.Sprint(tx.Commit())
			}
			exec := func(tx *sql.Tx) (out string) {
				for range 2 {
					out += outcome(tx.ExecContext(f.Ctx, w.sql, w.args...))
				}
				return out
			}
			same("Exec in a transaction", w.sql, w.args, inTransaction(f.DB, exec), inTransaction(f.Plain, exec))
			query := func(tx *sql.Tx) (out string) {
				for range 2 {
					out += table(tx.QueryContext(f.Ctx, w.sql, w.args...))
				}
				return out
			}
			same("Query in a transaction", w.sql, w.args, inTransaction(f.DB, query), inTransaction(f.Plain, query))
			prepared := func(x executor) (out string) {
				stmt, err := x.PrepareContext(f.Ctx, w.sql)
				if err != nil {
					return fmt.Sprintf("%T %v", err, err)
				}
				defer stmt.Close()
				for range 3 {
					out += outcome(stmt.ExecContext(f.Ctx, w.args...)) + table(stmt.QueryContext(f.Ctx, w.args...))
				}
				return out
			}
			same("Prepare", w.sql, w.args, prepared(f.DB), prepared(f.Plain))
			same("Prepare in a transaction", w.sql, w.args, inTransaction(f.DB, func(tx *sql.Tx) string { return prepared(tx) }), inTransaction(f.Plain, func(tx *sql.Tx) string { return prepared(tx) }))
		}
		for _, db := range []*sql.DB{f.DB, f.Plain} { // rows that nobody reads
			rows, err := db.QueryContext(f.Ctx, "UPDATE orders SET status = 'unread' WHERE id <= 100 RETURNING id")
			if err != nil {
				f.Fatal(err)
			}
			if err := rows.Close(); err != nil {
				f.Fatal(err)
			}
		}
		if n := f.Count("SELECT count(*) FROM orders WHERE status = 'unread'"); n != 100 {
			f.Errorf("%d rows were changed, want 100", n)
		}
		ctx, cancel := context.WithCancel(f.Ctx)
		cancel()
		_, got := f.DB.ExecContext(ctx, written[0].sql, written[0].args...)
		_, want := f.Plain.ExecContext(ctx, written[0].sql, written[0].args...)
		if !errors.Is(got, context.Canceled) || reflect.TypeOf(got) != reflect.TypeOf(want) {
			f.Errorf("got %v, want %v", got, want)
		}
	})
}

// A role may be allowed to write what it may not read.
func TestAWriteOfARoleThatMayNotRead(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			database := pgtest.Database(t)
			var keys []string
			if store == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			f := harness.New(t, database, "cache_statement", orders, keys...)
			role := f.NewRole(database)
			f.Past("REVOKE SELECT ON orders FROM " + role)
			f.Past("GRANT SELECT (id) ON orders TO " + role)
			for _, db := range []*sql.DB{f.DB, f.Plain} {
				mayNotRead(f, f.Conn(db), role)
			}
		})
	}
}

func mayNotRead(f *harness.Fixture, conn *sql.Conn, role string) {
	f.Helper()
	for _, sql := range []string{"SET ROLE " + role, "UPDATE orders SET status = 'a' WHERE id = 1", "BEGIN", "UPDATE orders SET status = 'b' WHERE id = 1", "UPDATE orders SET status = 'c' WHERE id = 2",
		"INSERT INTO orders VALUES (2000, 1)", "DELETE FROM orders WHERE id = 2000", "COMMIT", "INSERT INTO orders VALUES (2000, 1)", "DELETE FROM orders WHERE id = 2000"} {
		if _, err := conn.ExecContext(f.Ctx, sql); err != nil {
			f.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{"UPDATE orders SET status = 'a' WHERE note = 'x'", "UPDATE orders SET status = 'a' WHERE id = 1 RETURNING note"} {
		if _, err := conn.ExecContext(f.Ctx, sql); err == nil || err.Error() != "ERROR: permission denied for table orders (SQLSTATE 42501)" {
			f.Errorf("%s: %v", sql, err)
		}
	}
}

// Another session may change a table in the moment before a statement that returns its columns. The statement, and the transaction that
// it is in, go on as if it returned nothing.
func TestAColumnThatIsReturnedMayBeChanged(t *testing.T) {
	harness.Scenario(t, orders, func(f *harness.Fixture) {
		const update = "UPDATE orders SET status = $1 WHERE id = $2"
		conn := f.Conn(f.DB)
		stmt, err := conn.PrepareContext(f.Ctx, update)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		for i, ddl := range []string{"ALTER TABLE orders RENAME COLUMN customer_id TO client", "ALTER TABLE orders ALTER client TYPE bigint", "ALTER TABLE orders DROP COLUMN note",
			"ALTER TABLE orders DROP COLUMN client"} {
			warm := func(x executor, exec func(args ...any) (sql.Result, error)) {
				for range 3 {
					if _, err := x.ExecContext(f.Ctx, update, "warm", 1); err != nil {
						f.Fatal(err)
					}
					if _, err := exec("warm", 1); err != nil {
						f.Fatal(err)
					}
				}
			}
			outside := func(args ...any) (sql.Result, error) { return stmt.ExecContext(f.Ctx, args...) }
			f.Settled("SELECT count(*) FROM orders")
			warm(conn, outside)
			tx, err := conn.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			warm(tx, func(args ...any) (sql.Result, error) { return tx.StmtContext(f.Ctx, stmt).ExecContext(f.Ctx, args...) })
			f.Commit(tx)
			if tx, err = conn.BeginTx(f.Ctx, nil); err != nil {
				f.Fatal(err)
			}
			f.Past(ddl)
			for n, exec := range []func() (sql.Result, error){
				func() (sql.Result, error) { return tx.ExecContext(f.Ctx, update, ddl, 10*i+1) },
				func() (sql.Result, error) {
					return tx.ExecContext(f.Ctx, fmt.Sprintf("UPDATE orders SET status = '%s' WHERE id = %d", ddl, 10*i+2))
				},
				func() (sql.Result, error) { return tx.StmtContext(f.Ctx, stmt).ExecContext(f.Ctx, ddl, 10*i+3) },
			} {
				if got := outcome(exec()); got != "1 <nil>" {
					f.Errorf("%s: statement %d in the transaction: %s", ddl, n, got)
				}
			}
			f.Commit(tx)
			if got := outcome(conn.ExecContext(f.Ctx, update, ddl, 10*i+4)); got != "1 <nil>" {
				f.Errorf("%s: %s", ddl, got)
			}
			if n := f.Count("SELECT count(*) FROM orders WHERE status = $1", ddl); n != 4 {
				f.Errorf("%s: %d rows were changed, want 4", ddl, n)
			}
		}
	})
}
