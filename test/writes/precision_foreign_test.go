package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

const foreignSetup = `
	CREATE TABLE customers (id int PRIMARY KEY, name text, seen int NOT NULL DEFAULT 0);
	CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers ON DELETE CASCADE, status text);
	CREATE INDEX ON orders (status);
	INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 9) i;
	INSERT INTO orders SELECT i, i, 'open' FROM generate_series(1, 8) i;`

const openOrders = "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status = $1 ORDER BY o.id"

// Who is found by a foreign key was there before, so a new customer changes no list of orders.
func TestNewRowsThatNobodyRefersTo(t *testing.T) {
	harness.Scenario(t, foreignSetup, func(f *harness.Fixture) {
		f.Known(openOrders, "open")
		f.Exec("INSERT INTO customers VALUES ($1, 'new')", 10)
		f.Exec("UPDATE customers SET seen = seen + 1 WHERE id = $1", 1)
		f.Released()
		f.Hit(openOrders, "open")
		f.Exec("INSERT INTO orders VALUES ($1, $2, 'open')", 9, 10)
		f.Released()
		f.Miss(openOrders, "open")
		f.Known(openOrders, "open")
		f.Exec("UPDATE customers SET name = 'other' WHERE id = $1", 10)
		f.Released()
		f.Miss(openOrders, "open")
		f.Known(openOrders, "open")
		f.Exec("DELETE FROM customers WHERE id = $1", 10)
		f.Released()
		f.Miss(openOrders, "open")
	})
}

// Where foreign keys are not checked, a row may come after those that refer to it.
func TestNewRowsThatSomebodyRefersTo(t *testing.T) {
	harness.Scenario(t, foreignSetup, func(f *harness.Fixture) {
		_, conn := f.Session()
		for _, sql := range []string{"SET session_replication_role = replica", "INSERT INTO orders VALUES (9, 10, 'open')"} {
			if _, err := conn.ExecContext(f.Ctx, sql); err != nil {
				f.Fatal(err)
			}
		}
		f.Released()
		f.Known(openOrders, "open")
		if _, err := conn.ExecContext(f.Ctx, "INSERT INTO customers VALUES ($1, 'late')", 10); err != nil {
			f.Fatal(err)
		}
		f.Released()
		f.Miss(openOrders, "open")
	})
}

// PostgreSQL has not looked whether the rows that were there before have theirs.
func TestNewRowsOfAForeignKeyThatIsNotValid(t *testing.T) {
	harness.Scenario(t, foreignSetup+`
	ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey;
	INSERT INTO orders VALUES (9, 10, 'open');
	ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers NOT VALID`, func(f *harness.Fixture) {
		f.Known(openOrders, "open")
		f.Exec("INSERT INTO customers VALUES ($1, 'late')", 10)
		f.Released()
		f.Miss(openOrders, "open")
	})
}
