//go:build !race

package through

import (
	"context"
	"database/sql"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// openTwo opens two DBs on one database, without the strategy and with it for
// users, and a table that it does not concern.
func openTwo(t *testing.T, keys ...string) (aside, through *sql.DB) {
	t.Helper()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, harness.People+"CREATE TABLE pets (id int PRIMARY KEY, n int); INSERT INTO pets VALUES (1, 0)")
	open := func(keys ...string) *sql.DB {
		db, err := sql.Open("cachedpg", harness.WithKeys(database, keys))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		db.SetMaxOpenConns(1)
		harness.AwaitCaching(t, db)
		return db
	}
	return open(keys...), open(append(keys, usersThrough)...)
}

// Who does not use the strategy does not pay for it, nor does a hit.
func TestWriteThroughKeepsTheBudgetWhereItDoesNothing(t *testing.T) {
	ctx := context.Background()
	for name, keys := range map[string][]string{"memory": nil, "redis": {"cache_store=" + pgtest.Redis(t)}} {
		t.Run(name, func(t *testing.T) {
			aside, through := openTwo(t, keys...)
			read := func(db *sql.DB) func() {
				return func() {
					var name string
					if err := db.QueryRowContext(ctx, "SELECT name FROM users WHERE id = $1", 2).Scan(&name); err != nil || name != "bob" {
						t.Fatalf("got %q, %v", name, err)
					}
				}
			}
			write := func(db *sql.DB, text string) func() {
				return func() {
					if _, err := db.ExecContext(ctx, text, 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			const pets, nobody = "UPDATE pets SET n = n + 1 WHERE id = $1", "UPDATE users SET name = name WHERE id = $1"
			for _, tc := range []struct {
				name string
				do   func(db *sql.DB) func()
				more float64 // what a release that goes its own way may cost one time and not the other
			}{
				{"a hit", read, 0},
				{"a commit of another relation", func(db *sql.DB) func() { return write(db, pets) }, 2},
				{"a commit without anything warm", func(db *sql.DB) func() { return write(db, nobody) }, 2},
			} {
				read(aside)()
				read(through)()
				before := cachedpg.StatsOf(through)
				want := testing.AllocsPerRun(300, tc.do(aside))
				got := testing.AllocsPerRun(300, tc.do(through))
				t.Logf("%s: %v allocations, without the strategy %v", tc.name, got, want)
				if name == "memory" {
					tc.more = 0
				}
				if got > want+tc.more {
					t.Errorf("%s: got %v allocations, without the strategy %v", tc.name, got, want)
				}
				if s := cachedpg.StatsOf(through); s.Refilled != before.Refilled {
					t.Errorf("%s: %d were refilled", tc.name, s.Refilled-before.Refilled)
				}
			}
		})
	}
}
