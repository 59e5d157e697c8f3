package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A trigger that returns OLD before an UPDATE leaves the row as it was. What runs after the row is written has the old values
// in NEW, whatever the statement has set.
func TestARowThatATriggerLeavesAsItWas(t *testing.T) {
	const setup = `
		CREATE TABLE customers (id int PRIMARY KEY, orders int NOT NULL DEFAULT 0);
		CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers);
		CREATE INDEX ON orders (customer_id);
		INSERT INTO customers SELECT i FROM generate_series(1, 9) i;
		INSERT INTO orders SELECT i, i FROM generate_series(1, 8) i;
		CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.customer_id > 5 THEN RETURN OLD; END IF; RETURN NEW; END $$;
		CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE customers SET orders = orders + 1 WHERE id = NEW.customer_id; RETURN NULL; END $$;
		CREATE TRIGGER stays BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stays();
		CREATE TRIGGER counts AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION counts();`
	const counted, listed = "SELECT orders FROM customers WHERE id = $1", "SELECT id FROM orders WHERE customer_id = $1"
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for _, customer := range []int{1, 3, 7} {
			f.Known(counted, customer)
			f.Known(listed, customer)
		}
		f.Exec("UPDATE orders SET customer_id = $1 WHERE id = $2", 7, 1) // stays with 1
		f.Released()
		f.Miss(counted, 1)
		f.Known(counted, 1)
		f.Exec("UPDATE orders SET customer_id = $1 WHERE id = $2", 3, 1)
		f.Released()
		f.Miss(counted, 3)
		f.Miss(listed, 1)
		f.Miss(listed, 3)
	})
}
