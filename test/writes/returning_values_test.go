package writes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A list of one customer's orders outlives what happens to those of another one, however that is written.
func TestAListOutlivesWritesOfOthersByKey(t *testing.T) {
	const list = "SELECT id, status FROM orders WHERE customer_id = $1 ORDER BY id"
	harness.Scenario(t, orders, func(f *harness.Fixture) {
		type asked struct {
			name string
			exec func(sql string, args ...any)
		}
		// By the simple protocol there is no reading of a statement that could fail apart from its running.
		unguarded := f.Mode() == pgx.QueryExecModeSimpleProtocol
		inTransaction := func(query bool) func(string, ...any) {
			return func(sql string, args ...any) {
				v, tx := f.Begin(nil)
				if query {
					for _, r := range v.Read(tx, sql, args).Rows {
						f.Log(r)
					}
				} else if _, err := tx.ExecContext(f.Ctx, sql, args...); err != nil {
					f.Fatal(err)
				}
				f.Commit(tx)
			}
		}
		n := 0
		stmts := make(map[string]executed)
		for _, way := range []asked{
			{"Exec", func(sql string, args ...any) { f.Exec(sql, args...) }},
			{"Query", func(sql string, args ...any) { f.Read(f.DB, sql, args) }},
			{"Exec in a transaction", inTransaction(false)},
			{"Query in a transaction", inTransaction(true)},
			{"a prepared statement", func(sql string, args ...any) {
				if stmts[sql] == nil {
					stmt, err := f.Conn(f.DB).PrepareContext(f.Ctx, sql)
					if err != nil {
						f.Fatal(err)
					}
					f.Cleanup(func() { stmt.Close() })
					stmts[sql] = func(args ...any) error { _, err := stmt.ExecContext(f.Ctx, args...); return err }
					// Many are executed once.
					if err := stmts[sql](args...); err != nil {
						f.Fatal(err)
					}
				}
				if err := stmts[sql](args...); err != nil {
					f.Fatal(err)
				}
			}},
		} {
			for _, w := range []struct {
				sql  string
				args func(customer int) []any
			}{
				{"UPDATE orders SET status = $1 WHERE id = $2", func(c int) []any { n++; return []any{fmt.Sprint(way.name, n), 280 + c} }},
				{"UPDATE orders SET status = $1 WHERE id = $2 RETURNING id, status", func(c int) []any { n++; return []any{fmt.Sprint(way.name, n), 280 + c} }},
				{"UPDATE orders o SET status = $1 WHERE id = $2 -- RETURNING", func(c int) []any { n++; return []any{fmt.Sprint(way.name, n), 280 + c} }},
				{"DELETE FROM orders WHERE id = $1", func(c int) []any { n++; return []any{7*n + c} }},
			} {
				// What could not be asked before the first statement of a transaction is asked after it.
				way.exec(w.sql, w.args(1)...)
				f.Released()
				f.Known(list, 1)
				f.Known(list, 2)
				way.exec(w.sql, w.args(2)...)
				f.Released()
				if kept, want := f.IsHit(list, 1), !unguarded || !strings.HasSuffix(way.name, "in a transaction"); kept != want {
					f.Errorf("%s: %s of customer 2 left the list of customer 1: %v, want %v", way.name, w.sql, kept, want)
				}
				f.Miss(list, 2)
			}
		}
	})
}

type executed func(args ...any) error
