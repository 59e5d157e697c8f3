package core

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/store"
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

// another is process for either store.
func another(f *harness.Fixture, name string) harness.Via {
	f.Helper()
	if !f.InMemory() {
		return f.Process(name)
	}
	c := inside.Face(opened(f, harness.WithKeys(f.DSN, f.Keys)))
	inside.Process(c, name)
	return f.Asking(harness.OpenDB(f, c))
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
		sp := dbOf(f.DB).space()
		stamps, err := sp.Keeper.Stamps(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.View.Load().Snapshot
		f.Past("ALTER TABLE users ADD COLUMN more int")
		late := f.Process("late", "default_query_exec_mode=exec")
		late.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		late.Again("SELECT * FROM users WHERE id = 2")
		if agreed, err := sp.Agree(f.Ctx, old, &stamps, sp.Gens.Current(), 0); agreed || err != nil {
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
			v := dbOf(f.DB).space().View.Load()
			w, _ := dbOf(f.DB).space().Watched(f.Ctx)
			for range 2 { // asked twice, and compared
				number, err := w.Ask(f.Ctx)
				if err != nil {
					f.Fatal(err)
				}
				digest, known := w.Digest(number)
				if !known {
					snapshot, err := w.Guard.LoadCatalog(f.Ctx, nil)
					if err != nil {
						f.Fatal(err)
					}
					digest = snapshot.Digest()
					w.Saw(number, digest)
				}
				if digest != v.Snapshot.Digest() {
					f.Fatalf("%s: another digest", sql)
				}
			}
			if l := dbOf(f.DB).space().Lease; l != nil {
				if err := l.Check(f.Ctx); err != nil {
					f.Fatal(err)
				}
			}
			f.Hit(harness.UserByID, 1)
		}
	})
}

// Nothing is asked while no query runs, and the first one after that does not hit
// before the answer is there.
func TestAnIdleApplicationAsksNothing(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		const all = "SELECT * FROM users WHERE id = 1"
		exec := f.With("default_query_exec_mode=exec")
		exec.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		exec.Again(all)
		l := dbOf(exec.DB).space().Lease
		f.Until("the end of the lease", func() bool { return !l.Stands.Load() })
		const asked = "SELECT max(query_start)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%''now''::timestamptz%' AND pid <> pg_backend_pid()"
		before := f.Read(f.Plain, asked, nil).String()
		exec.Stays(patience.Lease, func() {})
		if after := f.Read(f.Plain, asked, nil).String(); after != before || after == "" || l.Stands.Load() {
			f.Errorf("asked at %q, before at %q", after, before)
		}
		f.Past("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		exec.Fresh(all).Is("1 ann Oslo 7") // at once: the lease has ended
		exec.Again(all)
		f.Past("ALTER TABLE users DROP COLUMN age")
		noticed(exec, time.Now(), all)
	})
}

// proxied returns the DSN with another address, and the way to it.
func proxied(f *harness.Fixture) (string, *redistest.Proxied) {
	f.Helper()
	u, err := url.Parse(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	p := redistest.Proxy(f.T, net.JoinHostPort(u.Hostname(), port))
	u.Host = p.Addr()
	return u.String(), p
}

// While nobody listens at PostgreSQL's address nobody can change anything there, and
// hits go on; while it is silent others may, and hits end with the lease.
func TestHitsGoOnWhilePostgreSQLIsDownAndNotWhileItIsSilent(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		dsn, p := proxied(f)
		v := f.Asking(f.Open("cachedpg", dsn))
		hits := func() bool {
			before := statsOf(v.DB).Hits
			_ = v.Read(v.Ask, harness.UserByID, []any{1}).Err
			return statsOf(v.DB).Hits > before
		}
		v.Again(harness.UserByID, 1)
		p.Refuse()
		v.Stays(2*patience.Lease, func() {
			if !hits() {
				f.Fatal("no hit while PostgreSQL is down")
			}
		})
		p.Restore()
		v.Again(harness.UserByID, 1)
		f.Past("ALTER TABLE users RENAME TO folks") // seen by whoever comes back
		f.Until("the answer that the table is gone", func() bool { return v.Read(v.Ask, harness.UserByID, []any{1}).Err != nil })
		f.Past("ALTER TABLE folks RENAME TO users")
		v.Again(harness.UserByID, 1)

		l := dbOf(v.DB).space().Lease
		p.Cut()
		f.Until("the end of the lease", func() bool { return !l.Stands.Load() })
		if l.Holds(f.Ctx) {
			f.Error("hits are allowed while PostgreSQL is silent")
		}
		p.Restore()
		v.Again(harness.UserByID, 1)
	})
}

func TestWhoCanBeReached(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{refused, true},
		{fmt.Errorf("dialling: %w", refused), true},
		{errors.Join(refused, &pgconn.PgError{Code: "57P03"}), true},
		{errors.Join(refused, errors.New("timeout")), false}, // one of two hosts may be there
		{&pgconn.PgError{Code: "53300"}, false},
		{&pgconn.PgError{Code: "28P01"}, false},
		{&net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}, false},
		{&net.OpError{Op: "dial", Err: syscall.ENOENT}, true}, // no socket
		{net.ErrClosed, false},
	} {
		if got := space.NobodyThere(tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

// An answer that did not come is none: what others do meanwhile is not seen.
func TestASilentPostgreSQLGivesNoLease(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{errors.New("time-out"), false},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
	} {
		l := &space.WatchLease{Space: &space.Space{}, Tried: make(chan struct{})}
		l.Timer = time.AfterFunc(time.Hour, func() {})
		l.Conclude(time.Now(), tt.err)
		if got := l.Stands.Load(); got != tt.want {
			t.Errorf("%v: a lease %v, want %v", tt.err, got, tt.want)
		}
		l.Stands.Store(false)
		if l.Conclude(time.Now().Add(-patience.Lease), nil); l.Stands.Load() {
			t.Error("a lease from a question that was sent a lease ago")
		}
		l.Timer.Stop()
	}
}

// To invalidate by name says so if nobody can be told.
func TestInvalidateWithoutTheStoreFails(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		db := f.Open("cachedpg", harness.WithKey(f.DSN, "cache_store", "redis://127.0.0.1:1"))
		if err := invalidate(f.Ctx, db, "users"); err == nil {
			f.Error("no error though the store cannot be reached")
		}
		if err := invalidate(f.Ctx, db, "nowhere"); !errors.Is(err, errNoRelation) {
			f.Errorf("got %v, want %v", err, errNoRelation)
		}
	})
}

// An epoch whose lease ran out begins again when nobody commits past the store any more.
// What somebody did is on disk by then (I21).
func TestAnEpochBeginsWithWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	s := harness.Unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	conn := pgtest.Connect(f, harness.WithKey(f.DSN, "synchronous_commit", "off"))
	for _, fresh := range []store.Fresh{{Epoch: "kept", Kept: true}, {Epoch: "new"}} {
		run(f, conn, "UPDATE users SET city = 'past' WHERE id = 1")
		if !f.IsUnflushed() {
			t.Error("the log is on disk before it shall be")
		}
		k := &space.Keeper{Log: new(backend.Log), Peers: keeperOf(f.Via).Peers} // not the one that is at work
		k.Guard.ID, k.Watch.Guard = keeperOf(f.Via).Guard.ID, &k.Guard
		k.Guard.Add(dbOf(f.DB))
		f.Until("a lease", func() bool {
			ok, err := k.Sure(f.Ctx, fresh)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
		k.Guard.Close()
		if f.IsUnflushed() {
			t.Errorf("%+v begins with what a crash may undo", fresh)
		}
	}
}
