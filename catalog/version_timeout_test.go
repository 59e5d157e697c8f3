package catalog_test

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The time that a session gives its own transactions is not the catalog's: here
// Load waits for a lock, for a time of its own.
func TestLoadOutlastsTheTransactionTimeout(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	conn, other := pgtest.Connect(t, database), pgtest.Connect(t, database)
	needs(t, conn, 170000)
	run(t, conn, "CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t; SET transaction_timeout = 200")
	run(t, other, "BEGIN; LOCK TABLE t")
	if s := load(t, conn); !s.Incomplete() {
		t.Error("nothing was locked")
	}
	run(t, other, "ROLLBACK")
	run(t, conn, `DO $$ BEGIN IF current_setting('transaction_timeout') <> '200ms' THEN RAISE 'the setting is another'; END IF; END $$`)
}
