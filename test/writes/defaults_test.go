package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// What an INSERT does not give it gets from the relation that it names: a view, a partitioned table, a partition.
func TestRowsWithValuesThatNobodyHasGiven(t *testing.T) {
	const setup = `
		CREATE TABLE orders (id int PRIMARY KEY, customer_id int);
		CREATE INDEX ON orders (customer_id);
		CREATE VIEW mine AS SELECT id, customer_id FROM orders;
		ALTER VIEW mine ALTER customer_id SET DEFAULT 7;
		CREATE TABLE parted (id int, customer_id int DEFAULT 7) PARTITION BY RANGE (id);
		CREATE TABLE parted_one PARTITION OF parted FOR VALUES FROM (0) TO (100);
		ALTER TABLE parted_one ALTER customer_id DROP DEFAULT;
		CREATE INDEX ON parted (customer_id);`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for i, test := range []struct{ read, write string }{
			{"SELECT id FROM orders WHERE customer_id = $1", "INSERT INTO mine (id) VALUES ($1)"},
			{"SELECT id FROM parted WHERE customer_id = $1", "INSERT INTO parted (id) VALUES ($1)"},
			{"SELECT id FROM parted_one WHERE customer_id = $1", "INSERT INTO parted (id) VALUES ($1)"},
		} {
			f.Known(test.read, 7)
			f.Exec(test.write, i)
			f.Released()
			f.Miss(test.read, 7)
		}
		const nobody = "SELECT id FROM parted WHERE customer_id = $1"
		f.Known(nobody, 7)
		f.Exec("INSERT INTO parted_one (id) VALUES ($1)", 50)
		f.Released()
		f.Hit(nobody, 7)
	})
}
