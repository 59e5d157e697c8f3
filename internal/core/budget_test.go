//go:build !race

package core

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The race detector allocates too, so the budgets are kept without it.

// hitAllocations is the budget of a hit of one row by key through database/sql.
const hitAllocations = 15

func openBudget(tb testing.TB) *sql.DB {
	tb.Helper()
	dsn := pgtest.Database(tb)
	pgtest.Exec(tb, dsn, harness.People)
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	harness.AwaitCaching(tb, db)
	return db
}

func TestAHitKeepsItsAllocationBudget(t *testing.T) {
	db := openBudget(t)
	ctx := context.Background()
	stmt, err := db.Prepare("SELECT name FROM users WHERE id = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for _, tc := range []struct {
		name string
		row  func() *sql.Row
	}{
		{"argument", func() *sql.Row { return db.QueryRowContext(ctx, "SELECT name FROM users WHERE id = $1", 2) }},
		{"literal", func() *sql.Row { return db.QueryRowContext(ctx, "SELECT name FROM users WHERE id = 2") }},
		{"text argument", func() *sql.Row { return db.QueryRowContext(ctx, "SELECT name FROM users WHERE name = $1", "bob") }},
		{"prepared", func() *sql.Row { return stmt.QueryRowContext(ctx, 2) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			read := func() {
				var name string
				if err := tc.row().Scan(&name); err != nil || name != "bob" {
					t.Fatalf("got %q, %v", name, err)
				}
			}
			read()
			before := statsOf(db)
			const runs = 200
			got := testing.AllocsPerRun(runs, read)
			if hits := statsOf(db).Hits - before.Hits; hits != runs+1 {
				t.Fatalf("%d of %d reads were hits", hits, runs+1)
			}
			t.Logf("%v allocations", got)
			if got > hitAllocations {
				t.Errorf("got %v allocations, want at most %d", got, hitAllocations)
			}
		})
	}
}

func TestAKnownTextIsPlannedWithoutAllocation(t *testing.T) {
	d, known := warmPlan(t)
	const text = "SELECT name FROM users WHERE id = $1"
	if got := testing.AllocsPerRun(100, func() { d.Plan(known.view, known.session, text) }); got > 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

// warmPlan returns a connector that has planned the text of the budget, with its state.
func warmPlan(tb testing.TB) (*DB, *state) {
	tb.Helper()
	db := openBudget(tb)
	var name string
	if err := db.QueryRow("SELECT name FROM users WHERE id = $1", 1).Scan(&name); err != nil {
		tb.Fatal(err)
	}
	d := dbOf(db)
	known := *d.known.Load()
	known.view = d.space().View.Load() // dialled before it was loaded
	return d, &known
}

func TestNoTextIsParsedTwice(t *testing.T) {
	db := openBudget(t)
	ask := func(query string, args ...any) {
		t.Helper()
		rows, err := db.Query(query, args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ask("SELECT name FROM users WHERE id = 1 AND city = 'Oslo'")
	ask("SELECT name FROM users WHERE id = $1", 1)
	if _, err := db.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	parsed := statsOf(db).Parsed
	for i := range 20 {
		ask(fmt.Sprintf("SELECT name FROM users WHERE id = %d AND city = 'city %d'", i, i))
		ask(fmt.Sprintf("SELECT name FROM users WHERE id = %d AND city = 'it''s' /* traceparent='%d' */", i, i))
		ask(fmt.Sprintf("  SELECT name\nFROM users -- %d\nWHERE id = 1 AND city = E'\\'x'", i))
		ask("SELECT name FROM users WHERE id = $1", i)
		if _, err := db.Exec(fmt.Sprintf("UPDATE users SET city = 'c%d' WHERE id = %d", i, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := statsOf(db).Parsed; got != parsed {
		t.Errorf("%d texts were parsed again", got-parsed)
	}
}
