package space

import (
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

const watchedPeople = harness.People + `
	CREATE TYPE mood AS ENUM ('glad');
	CREATE TABLE staff (id int PRIMARY KEY, name text, feels mood);
	INSERT INTO staff VALUES (1, 'eve', 'glad');
	CREATE VIEW named AS SELECT id, name FROM users;
	CREATE FUNCTION greeting() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'hello' $$;`

// migrations are what somebody does over plain pgx, each with a query that it
// gives another result or another form.
var migrations = []struct{ ddl, query string }{
	{"ALTER TABLE users ADD COLUMN age int DEFAULT 7", "SELECT * FROM users WHERE id = 1"},
	{"ALTER TABLE users RENAME COLUMN city TO town", "SELECT * FROM users WHERE id = 1"},
	{"ALTER TABLE users ALTER COLUMN age TYPE text", "SELECT * FROM users WHERE id = 1"},
	{"ALTER TABLE users DROP COLUMN age", "SELECT * FROM users WHERE id = 1"},
	{"CREATE OR REPLACE VIEW named AS SELECT id, name FROM staff", "SELECT name FROM named WHERE id = 1"},
	{"CREATE OR REPLACE FUNCTION greeting() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'good day' $$", "SELECT greeting() FROM users WHERE id = 1"},
	{"ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'", "SELECT feels FROM staff WHERE id = 1"},
	{"ALTER TABLE staff RENAME TO crew; CREATE TABLE staff AS SELECT 1 AS id, 'pat' AS name", "SELECT name FROM staff WHERE id = 1"},
}

// describes says what a reader gets, error and columns included.
func describes(r harness.Result) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	var names []string
	for _, c := range r.Columns {
		names = append(names, c.Name+" "+c.Database)
	}
	return strings.Join(names, ",") + ": " + r.String()
}

// noticed returns when a reader gets what PostgreSQL gives. Whatever began later
// than the bound after the change and is not that is an error.
func noticed(v harness.Via, changed time.Time, query string) {
	v.F.Helper()
	want := describes(v.Read(v.Truth, query, nil))
	v.F.Until("the change to be noticed", func() bool {
		began := time.Now()
		got := describes(v.Read(v.Ask, query, nil))
		// The timer that ends a lease may be late on a busy machine.
		if late := began.Sub(changed) - patience.Lease; got != want && late > time.Second {
			v.F.Fatalf("%s: got %s %v after the bound, want %s", query, got, late, want)
		}
		return got == want
	})
}

// Sessions that change the schema stay open, as those of a pool do: nothing tells of
// the change but PostgreSQL's own invalidation.
func TestDDLByOthersIsNoticed(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "exec", watchedPeople, keys...)
		other := another(f, "other")
		for _, m := range migrations {
			f.Again(m.query)
			other.Again(m.query)
			f.Past(m.ddl)
			changed := time.Now()
			noticed(f.Via, changed, m.query)
			noticed(other, changed, m.query)
		}
		f.Again("SELECT name FROM staff WHERE id = 1")
		f.Past("DROP TABLE staff")
		changed := time.Now()
		noticed(f.Via, changed, "SELECT name FROM staff WHERE id = 1")
		noticed(other, changed, "SELECT name FROM staff WHERE id = 1")
	})
}

// A process that starts after a migration never sees what was stored before it: an
// object mapper that reads a row whole and writes it back would empty the new column.
func TestAProcessThatStartsAfterAMigrationReadsNothingOfBefore(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		const first = "SELECT * FROM users WHERE id = 1"
		f.Warm(first)
		f.Past("ALTER TABLE users ADD COLUMN email text; UPDATE users SET email = 'ann@example.org' WHERE id = 1; CREATE TABLE dropped AS SELECT 1 AS id")
		late := f.Process("late", "default_query_exec_mode=exec")
		late.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		row := late.Fresh(first)
		row.Is("1 ann Oslo ann@example.org")
		late.Exec("UPDATE users SET name = 'anna', email = $1 WHERE id = 1", row.Rows[0][3]) // as Save does
		late.Released()
		late.Fresh(first).Is("1 anna Oslo ann@example.org")

		late.Again("SELECT id FROM dropped")
		f.Past("DROP TABLE dropped")
		later := f.Process("later", "default_query_exec_mode=exec")
		later.Truth = late.Truth
		later.Fails("SELECT id FROM dropped")
	})
}

// I22: what was planned with a catalog that others have changed is not kept beside
// the new one, whoever of two processes is the first to compare.
func TestALoaderOfAnOldCatalogDoesNotPutItBack(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Again(harness.UserByID, 1)
		sp := spaceOf(f.DB)
		stamps, err := sp.Keeper.stamps(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.View.Load().Snapshot
		f.Past("ALTER TABLE users ADD COLUMN more int")
		late := f.Process("late", "default_query_exec_mode=exec")
		late.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		late.Again("SELECT * FROM users WHERE id = 2")
		if agreed, err := sp.agree(f.Ctx, old, &stamps, sp.Gens.Current(), 0); agreed || err != nil {
			f.Fatalf("agreed %v, %v", agreed, err)
		}
		late.Hit("SELECT * FROM users WHERE id = 2")
	})
}

// ANALYZE, a comment and temporary tables change nothing: what is cached stays.
func TestWhatChangesNothingLeavesTheCacheAsItIs(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", watchedPeople, keys...)
		f.Again(harness.UserByID, 1)
		for _, sql := range []string{"ANALYZE users", "COMMENT ON TABLE users IS 'people'", "VACUUM users", "CREATE TEMP TABLE mine (id int)", "TRUNCATE staff"} {
			f.Past(sql)
			v := spaceOf(f.DB).View.Load()
			w, _ := spaceOf(f.DB).watched(f.Ctx)
			for range 2 { // asked twice, and compared
				number, err := w.ask(f.Ctx)
				if err != nil {
					f.Fatal(err)
				}
				digest, known := w.digest(number)
				if !known {
					snapshot, err := w.guard.LoadCatalog(f.Ctx, nil)
					if err != nil {
						f.Fatal(err)
					}
					digest = snapshot.Digest()
					w.saw(number, digest)
				}
				if digest != v.Snapshot.Digest() {
					f.Fatalf("%s: another digest", sql)
				}
			}
			if l := spaceOf(f.DB).Lease; l != nil {
				if err := l.check(f.Ctx); err != nil {
					f.Fatal(err)
				}
			}
			f.Hit(harness.UserByID, 1)
		}
	})
}
