//go:build !race

package reads

import (
	"database/sql"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// redisHitAllocations is the budget of a hit of one row by key in Redis: what
// a hit in memory takes, the command, its answer and the entry.
const redisHitAllocations = 45

func TestAHitInRedisKeepsItsAllocationBudget(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	stmt, err := f.DB.PrepareContext(f.Ctx, "SELECT name FROM users WHERE id = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for _, tc := range []struct {
		name string
		row  func() *sql.Row
	}{
		// A context that cannot end: for others database/sql and the store have a goroutine.
		{"argument", func() *sql.Row { return f.DB.QueryRow("SELECT name FROM users WHERE id = $1", 2) }},
		{"literal", func() *sql.Row { return f.DB.QueryRow("SELECT name FROM users WHERE id = 2") }},
		{"text argument", func() *sql.Row { return f.DB.QueryRow("SELECT name FROM users WHERE name = $1", "bob") }},
		{"prepared", func() *sql.Row { return stmt.QueryRow(2) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			read := func() {
				var name string
				if err := tc.row().Scan(&name); err != nil || name != "bob" {
					t.Fatalf("got %q, %v", name, err)
				}
			}
			read()
			before := cachedpg.StatsOf(f.DB).Hits
			const runs = 200
			got := testing.AllocsPerRun(runs, read)
			if hits := cachedpg.StatsOf(f.DB).Hits - before; hits != runs+1 {
				t.Fatalf("%d of %d reads were hits", hits, runs+1)
			}
			t.Logf("%v allocations", got)
			if got > redisHitAllocations {
				t.Errorf("got %v allocations, want at most %d", got, redisHitAllocations)
			}
		})
	}
}
