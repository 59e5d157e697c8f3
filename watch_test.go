package cachedpg

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

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

const watchedPeople = people + `
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
func (r result) describes() string {
	if r.err != nil {
		return r.err.Error()
	}
	var names []string
	for _, c := range r.columns {
		names = append(names, c.Name+" "+c.Database)
	}
	return strings.Join(names, ",") + ": " + r.String()
}

// noticed returns when a reader gets what PostgreSQL gives. Whatever began later
// than the bound after the change and is not that is an error.
func (v via) noticed(changed time.Time, query string) {
	v.f.Helper()
	want := v.read(v.truth, query, nil).describes()
	v.f.until("the change to be noticed", func() bool {
		began := time.Now()
		got := v.read(v.ask, query, nil).describes()
		// The timer that ends a lease may be late on a busy machine.
		if late := began.Sub(changed) - store.Lease; got != want && late > time.Second {
			v.f.Fatalf("%s: got %s %v after the bound, want %s", query, got, late, want)
		}
		return got == want
	})
}

// Sessions that change the schema stay open, as those of a pool do: nothing tells of
// the change but PostgreSQL's own invalidation.
func TestDDLByOthersIsNoticed(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "exec", watchedPeople, keys...)
		other := f.another("other")
		for _, m := range migrations {
			f.again(m.query)
			other.again(m.query)
			f.past(m.ddl)
			changed := time.Now()
			f.noticed(changed, m.query)
			other.noticed(changed, m.query)
		}
		f.again("SELECT name FROM staff WHERE id = 1")
		f.past("DROP TABLE staff")
		changed := time.Now()
		f.noticed(changed, "SELECT name FROM staff WHERE id = 1")
		other.noticed(changed, "SELECT name FROM staff WHERE id = 1")
	})
}

// another is process for either store.
func (f *fixture) another(name string) via {
	f.Helper()
	if !f.inMemory() {
		return f.process(name)
	}
	c, err := (&Driver{}).OpenConnector(withKeys(f.dsn, f.keys))
	if err != nil {
		f.Fatal(err)
	}
	c.(*connector).process = name
	return f.asking(openDB(f, c))
}

// A process that starts after a migration never sees what was stored before it: an
// object mapper that reads a row whole and writes it back would empty the new column.
func TestAProcessThatStartsAfterAMigrationReadsNothingOfBefore(t *testing.T) {
	shared(t, people, func(f *fixture) {
		const first = "SELECT * FROM users WHERE id = 1"
		f.warm(first)
		f.past("ALTER TABLE users ADD COLUMN email text; UPDATE users SET email = 'ann@example.org' WHERE id = 1; CREATE TABLE dropped AS SELECT 1 AS id")
		late := f.process("late", "default_query_exec_mode=exec")
		late.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		row := late.fresh(first)
		row.is("1 ann Oslo ann@example.org")
		late.exec("UPDATE users SET name = 'anna', email = $1 WHERE id = 1", row.rows[0][3]) // as Save does
		late.released()
		late.fresh(first).is("1 anna Oslo ann@example.org")

		late.again("SELECT id FROM dropped")
		f.past("DROP TABLE dropped")
		later := f.process("later", "default_query_exec_mode=exec")
		later.truth = late.truth
		later.fails("SELECT id FROM dropped")
	})
}

// I22: what was planned with a catalog that others have changed is not kept beside
// the new one, whoever of two processes is the first to compare.
func TestALoaderOfAnOldCatalogDoesNotPutItBack(t *testing.T) {
	shared(t, people, func(f *fixture) {
		f.again(userByID, 1)
		sp := connectorOf(f.db).space()
		stamps, err := sp.keeper.stamps(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.view.Load().snapshot
		f.past("ALTER TABLE users ADD COLUMN more int")
		late := f.process("late", "default_query_exec_mode=exec")
		late.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		late.again("SELECT * FROM users WHERE id = 2")
		if agreed, err := sp.agree(f.ctx, old, &stamps, sp.gens.Current(), 0); agreed || err != nil {
			f.Fatalf("agreed %v, %v", agreed, err)
		}
		late.hit("SELECT * FROM users WHERE id = 2")
	})
}

// ANALYZE, a comment and temporary tables change nothing: what is cached stays.
func TestWhatChangesNothingLeavesTheCacheAsItIs(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", watchedPeople, keys...)
		f.again(userByID, 1)
		for _, sql := range []string{"ANALYZE users", "COMMENT ON TABLE users IS 'people'", "VACUUM users", "CREATE TEMP TABLE mine (id int)", "TRUNCATE staff"} {
			f.past(sql)
			v := connectorOf(f.db).space().view.Load()
			w, _ := connectorOf(f.db).space().watched(f.ctx)
			for range 2 { // asked twice, and compared
				number, err := w.ask(f.ctx)
				if err != nil {
					f.Fatal(err)
				}
				digest, known := w.digest(number)
				if !known {
					snapshot, err := w.guard.loadCatalog(f.ctx, nil)
					if err != nil {
						f.Fatal(err)
					}
					digest = snapshot.Digest()
					w.saw(number, digest)
				}
				if digest != v.snapshot.Digest() {
					f.Fatalf("%s: another digest", sql)
				}
			}
			if l := connectorOf(f.db).space().lease; l != nil {
				if err := l.check(f.ctx); err != nil {
					f.Fatal(err)
				}
			}
			f.hit(userByID, 1)
		}
	})
}

// Nothing is asked while no query runs, and the first one after that does not hit
// before the answer is there.
func TestAnIdleApplicationAsksNothing(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		const all = "SELECT * FROM users WHERE id = 1"
		exec := f.with("default_query_exec_mode=exec")
		exec.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		exec.again(all)
		l := connectorOf(exec.db).space().lease
		f.until("the end of the lease", func() bool { return !l.stands.Load() })
		const asked = "SELECT max(query_start)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%''now''::timestamptz%' AND pid <> pg_backend_pid()"
		before := f.read(f.plain, asked, nil).String()
		exec.stays(store.Lease, func() {})
		if after := f.read(f.plain, asked, nil).String(); after != before || after == "" || l.stands.Load() {
			f.Errorf("asked at %q, before at %q", after, before)
		}
		f.past("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		exec.fresh(all).is("1 ann Oslo 7") // at once: the lease has ended
		exec.again(all)
		f.past("ALTER TABLE users DROP COLUMN age")
		exec.noticed(time.Now(), all)
	})
}

// proxied returns the DSN with another address, and the way to it.
func (f *fixture) proxied() (string, *redistest.Proxied) {
	f.Helper()
	u, err := url.Parse(f.dsn)
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
	scenarioOnce(t, people, func(f *fixture) {
		dsn, p := f.proxied()
		v := f.asking(f.open("cachedpg", dsn))
		hits := func() bool {
			before := StatsOf(v.db).Hits
			_ = v.read(v.ask, userByID, []any{1}).err
			return StatsOf(v.db).Hits > before
		}
		v.again(userByID, 1)
		p.Refuse()
		v.stays(2*store.Lease, func() {
			if !hits() {
				f.Fatal("no hit while PostgreSQL is down")
			}
		})
		p.Restore()
		v.again(userByID, 1)
		f.past("ALTER TABLE users RENAME TO folks") // seen by whoever comes back
		f.until("the answer that the table is gone", func() bool { return v.read(v.ask, userByID, []any{1}).err != nil })
		f.past("ALTER TABLE folks RENAME TO users")
		v.again(userByID, 1)

		l := connectorOf(v.db).space().lease
		p.Cut()
		f.until("the end of the lease", func() bool { return !l.stands.Load() })
		if l.holds(f.ctx) {
			f.Error("hits are allowed while PostgreSQL is silent")
		}
		p.Restore()
		v.again(userByID, 1)
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
		if got := nobodyThere(tt.err); got != tt.want {
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
		l := &watchLease{space: &space{}, tried: make(chan struct{})}
		l.timer = time.AfterFunc(time.Hour, func() {})
		l.conclude(time.Now(), tt.err)
		if got := l.stands.Load(); got != tt.want {
			t.Errorf("%v: a lease %v, want %v", tt.err, got, tt.want)
		}
		l.stands.Store(false)
		if l.conclude(time.Now().Add(-store.Lease), nil); l.stands.Load() {
			t.Error("a lease from a question that was sent a lease ago")
		}
		l.timer.Stop()
	}
}

// To invalidate by name says so if nobody can be told.
func TestInvalidateWithoutTheStoreFails(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		db := f.open("cachedpg", withKey(f.dsn, "cache_store", "redis://127.0.0.1:1"))
		if err := Invalidate(f.ctx, db, "users"); err == nil {
			f.Error("no error though the store cannot be reached")
		}
		if err := Invalidate(f.ctx, db, "nowhere"); !errors.Is(err, errNoRelation) {
			f.Errorf("got %v, want %v", err, errNoRelation)
		}
	})
}
