package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

const ordersOfOne = "SELECT id, status FROM orders WHERE customer_id = $1 ORDER BY id"

// An order that gets another customer concerns both, and nobody else.
func TestARowThatMovesConcernsBothSides(t *testing.T) {
	harness.Scenario(t, orders, func(f *harness.Fixture) {
		f.Exec("UPDATE orders SET customer_id = $1 WHERE id = $2", 2, 50) // whatever is learnt by the first execution
		for i, sql := range []string{
			"UPDATE orders SET customer_id = $1 WHERE id = $2",
			"UPDATE orders SET customer_id = customer_id + $1 - 1 WHERE id = $2 RETURNING id",
			"UPDATE orders SET note = 'note ' || (900 + $1), customer_id = $1 WHERE id = $2",
		} {
			order := 7*i + 8 // of customer 1
			for customer := 1; customer <= 3; customer++ {
				f.Known(ordersOfOne, customer)
			}
			f.Exec(sql, 2, order)
			f.Released()
			f.Hit(ordersOfOne, 3)
			f.Miss(ordersOfOne, 1)
			f.Miss(ordersOfOne, 2)
		}
	})
}

// Under READ COMMITTED a statement may change another version of a row than the one
// that its sub-selects see. Then the values that it replaces are not known.
func TestValuesThatWereReplacedMeanwhile(t *testing.T) {
	harness.Scenario(t, orders, func(f *harness.Fixture) {
		f.Exec("UPDATE orders SET customer_id = $1 WHERE id = $2", 2, 50)
		f.Known(ordersOfOne, 5)
		other, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := other.ExecContext(f.Ctx, "UPDATE orders SET customer_id = 2 WHERE id = 8"); err != nil {
			f.Fatal(err)
		}
		f.Hit(ordersOfOne, 5)
		done := make(chan error, 1)
		go func() {
			_, err := f.DB.ExecContext(f.Ctx, "UPDATE orders SET customer_id = $1 WHERE id = $2", 3, 8)
			done <- err
		}()
		f.Until("the statement waits for the row", func() bool {
			return f.Count("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.datname = current_database() AND l.locktype = 'transactionid' AND NOT l.granted") == 1
		})
		if err := other.Commit(); err != nil {
			f.Fatal(err)
		}
		if err := <-done; err != nil {
			f.Fatal(err)
		}
		f.Released()
		f.Miss(ordersOfOne, 5)
	})
}
