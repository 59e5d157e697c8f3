package writes

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A loop over the rows of UPDATE … RETURNING that writes the same rows on
// another connection hangs.
func TestReturnedRowsHoldNoLocks(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		rows, err := f.DB.QueryContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id < 3 RETURNING id")
		if err != nil {
			f.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				f.Fatal(err)
			}
			_, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET city = 'y' WHERE id = $1", id)
			if err != nil {
				f.Fatalf("id %d: %v", id, err)
			}
		}
		if err := rows.Err(); err != nil {
			f.Fatal(err)
		}
	})
}

// Errors with and without arguments, in all modes.
func TestErrorsOfAutocommitStatementsAreThoseOfPgx(t *testing.T) {
	const setup = harness.People + `CREATE TABLE parents (id int PRIMARY KEY);
		CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for _, tc := range []struct {
			sql  string
			args []any
		}{
			{"INSERT INTO users VALUES ($1, 'x', NULL)", []any{1}},
			{"INSERT INTO children VALUES ($1, 7)", []any{1}},
			{"UPDATE users SET nothing = $1", []any{1}},
			{"UPDATE nowhere SET nothing = $1", []any{1}},
			{"UPDATE users SET name = $1", nil},
			{"UPDATE users SET name = $1", []any{1, 2}},
			{"UPDATE users SET name = $1 WHERE id = $2", []any{"x"}},
			{"UPDATE users SET id = $1", []any{"abc"}},
			{"UPDATE users SET id = $1", []any{struct{ X int }{1}}},
			{"UPDATE users SET id = 1/0 WHERE id = $1", []any{1}},
			{"UPDATE users SET id = $1::int / 0", []any{1}},
			{"LOCK TABLE users", nil},
			{"DECLARE c CURSOR FOR SELECT 1", nil},
			{"CREATE TABLE users (id int)", nil},
			{"SAVEPOINT a", nil},
			{"INSERT INTO users VALUES (9, 'x'); INSERT INTO users VALUES (1, 'x')", nil},
			{"VACUUM nowhere", nil},
			{"CREATE INDEX CONCURRENTLY i ON nowhere (a)", nil},
		} {
			_, got := f.DB.ExecContext(f.Ctx, tc.sql, tc.args...)
			_, want := f.Plain.ExecContext(f.Ctx, tc.sql, tc.args...)
			if fmt.Sprint(got) != fmt.Sprint(want) || reflect.TypeOf(got) != reflect.TypeOf(want) {
				f.Errorf("Exec %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, got, got, want, want)
			}
			a := f.Read(f.DB, tc.sql, tc.args)
			b := f.Read(f.Plain, tc.sql, tc.args)
			if fmt.Sprint(a.Err) != fmt.Sprint(b.Err) || reflect.TypeOf(a.Err) != reflect.TypeOf(b.Err) {
				f.Errorf("Query %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, a.Err, a.Err, b.Err, b.Err)
			}
		}
	})
}

// COMMIT itself writes: a transaction without an id until then.
func TestACommitThatRunsAHeldCursor(t *testing.T) {
	harness.Shared(t, harness.People+`CREATE FUNCTION w() RETURNS int LANGUAGE sql AS $$ UPDATE users SET name = 'anna' WHERE id = 1 RETURNING 1 $$;`, func(f *harness.Fixture) {
		other := f.Process("other")
		other.Known(harness.UserByID, 1)
		tx, err := f.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := tx.ExecContext(f.Ctx, "DECLARE c CURSOR WITH HOLD FOR SELECT w()"); err != nil {
			f.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			f.Fatal(err)
		}
		f.Released()
		other.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
	})
}
