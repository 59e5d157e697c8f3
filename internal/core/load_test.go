package core

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

// A change of the schema that cannot be looked at makes everything stale, which takes no
// catalog, and the lease goes on. While nothing has changed a load that is held up is nobody's affair.
func TestALeaseIsRenewedWhileTheCatalogCannotBeLoaded(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "exec", harness.People, keys...)
		const all = "SELECT * FROM users WHERE id = 1"
		f.Again(all)
		sp := dbOf(f.DB).space()
		before := statsOf(f.DB).Shared.Epochs

		unlock := f.LockedCatalog("pg_depend")
		f.Stays(2*patience.Lease, func() { f.Hit(all) })
		f.Past("ALTER TABLE users RENAME COLUMN city TO town")
		noticed(f.Via, time.Now(), all)
		f.Stays(2*patience.Lease, func() { bypasses(f.Via, all) })
		f.Exec("UPDATE users SET name = name || '!' WHERE id = 1")
		f.Fresh(all).Is("1 ann! Oslo")
		if f.InMemory() {
			unlock()
		} else {
			if !sp.Keeper.Live.Load() {
				t.Error("there is no lease")
			}
			unlock()
			defer func() {
				if s := statsOf(f.DB).Shared; s.Epochs != before {
					t.Errorf("%d epochs have ended", s.Epochs-before)
				}
			}()
		}
		f.Again(all)
		f.Again("SELECT count(*) FROM users")
	})
}

// bypasses: the result is PostgreSQL's, and nothing comes from the cache.
func bypasses(v harness.Via, query string, args ...any) {
	v.F.Helper()
	hits := statsOf(v.DB).Hits
	v.Fresh(query, args...)
	if got := statsOf(v.DB).Hits; got != hits {
		v.F.Fatalf("%s: a hit", query)
	}
}

// I22: a lease that is extended without a digest has nothing under it that was planned
// with a catalog of before.
func TestADoubtLeavesNothingThatWasPlannedBefore(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Again(harness.UserByID, 1)
		sp := dbOf(f.DB).space()
		stamps, err := sp.Keeper.Stamps(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.View.Load()
		number, err := sp.Keeper.Watch.Ask(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		if sure, err := sp.Keeper.Doubt(f.Ctx, number); !sure || err != nil {
			f.Fatalf("sure %v, %v", sure, err)
		}
		if agreed, err := sp.Agree(f.Ctx, old.Snapshot, &stamps, sp.Gens.Current(), number); agreed || err != nil {
			f.Errorf("a catalog loaded before is agreed on: %v, %v", agreed, err)
		}
		f.Miss(harness.UserByID, 1)
		f.Hit(harness.UserByID, 1)
	})
}

// heldUp is a connection to PostgreSQL on which a catalog is not loaded before the test
// says so.
type heldUp struct {
	*backend.Pgx
	held  <-chan struct{}
	loads *atomic.Int64
}

func (in *heldUp) LoadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	in.loads.Add(1)
	select {
	case <-in.held:
		return in.Pgx.LoadCatalog(ctx, before)
	case <-ctx.Done():
		_ = in.Close() // as pgx does with any query
		return nil, ctx.Err()
	}
}

// holdUp opens a database whose catalog takes as long as the test wants.
func holdUp(f *harness.Fixture, keys ...string) (v harness.Via, loads *atomic.Int64, release func()) {
	f.Helper()
	c := inside.Face(opened(f, harness.WithKeys(f.DSN, append(f.Keys, keys...))))
	config, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	held := make(chan struct{})
	loads = &atomic.Int64{}
	inside.Process(c, "held up "+rand.Text())
	dbOf(c).connect = func(ctx context.Context, _ *link) (backend.Conn, error) {
		in, err := dialPgx(ctx, stdlib.GetConnector(*config))
		if err != nil {
			return nil, err
		}
		return &heldUp{in.(*backend.Pgx), held, loads}, nil
	}
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return f.Asking(db), loads, func() { close(held) }
}

// A deadline that is shorter than the load of the catalog is long enough for what it was set for.
func TestADeadlineIsNotSpentOnTheCatalog(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		v, loads, release := holdUp(f)
		const deadline = 10 * time.Second // a fraction of what the load takes, which is for ever
		do := func(what string, act func(ctx context.Context, db *sql.DB) error) {
			t.Helper()
			for range 3 {
				for name, db := range map[string]*sql.DB{"pgx": f.Plain, "cachedpg": v.DB} {
					ctx, cancel := context.WithTimeout(f.Ctx, deadline)
					if err := act(ctx, db); err != nil {
						t.Errorf("%s: %s: %v", name, what, err)
					}
					cancel()
				}
			}
		}
		do("a read", func(ctx context.Context, db *sql.DB) error {
			var n int
			return db.QueryRowContext(ctx, "SELECT count(*) FROM users").Scan(&n)
		})
		do("a write", func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "UPDATE users SET city = 'Rome' WHERE id = $1", 1)
			return err
		})
		do("a transaction", func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			if _, err := tx.ExecContext(ctx, "UPDATE users SET city = 'Oslo' WHERE id = $1", 1); err != nil {
				return err
			}
			return tx.Commit()
		})
		if n := loads.Load(); n != 1 {
			t.Errorf("%d loads, want the one", n)
		}
		release()
		v.Again(harness.UserByID, 1)
	})
}

// A catalog that cannot be loaded is not tried for by every query.
func TestACatalogThatCannotBeLoadedIsRarelyTriedFor(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		database := pgtest.Database(t)
		f := harness.New(t, database, "cache_statement", harness.People, keys...)
		role := f.NewRole(database)
		f.Past("REVOKE SELECT ON pg_catalog.pg_proc FROM public")
		f.DSN = harness.WithKey(f.DSN, "user", role)
		v, loads, release := holdUp(f)
		release()
		v.Truth = f.Open("pgx", f.DSN)
		const queries = 200
		for range queries {
			v.Fresh(harness.UserByID, 1)
			v.Fresh("SELECT count(*) FROM users")
			v.Exec("UPDATE users SET city = 'Rome' WHERE id = 2")
		}
		if n := loads.Load(); n == 0 || n > 25 { // a back-off of seconds makes few in any time that a test has
			t.Errorf("%d queries made %d loads", queries, n)
		}
		pgtest.Exec(t, database, "GRANT SELECT ON pg_catalog.pg_proc TO public")
		v.Again(harness.UserByID, 1)
	})
}

// Who reads waits for no catalog, and who begins a transaction for the first one, for a bounded time.
func TestNoReadWaitsForTheFirstCatalog(t *testing.T) {
	play(t, func(s *script) {
		s.d.readPatience = 0
		reader, writer := s.session(), s.session()
		s.Holdup.Set()
		began := time.Now()
		for range 3 {
			reader.selects("ann").gets("ann")
		}
		if waited := time.Since(began); waited != 0 {
			s.Errorf("reads waited for %v", waited)
		}
		if got := s.d.stats.bypasses[keying.CatalogUnavailable].Load(); got != 3 {
			s.Errorf("%d bypasses, want 3", got)
		}
		for _, want := range []time.Duration{patience.Load, patience.Load} { // counted from when the load began
			writer.Mock.ExpectBegin()
			writer.Mock.ExpectRollback()
			tx, err := writer.Conn.Begin(s.Context(), driver.TxOptions{})
			if err != nil {
				s.Fatal(err)
			}
			if err := tx.Rollback(); err != nil {
				s.Fatal(err)
			}
			if waited := time.Since(began); waited != want {
				s.Errorf("a transaction began after %v, want %v", waited, want)
			}
		}
		s.Holdup.Let()
		synctest.Wait()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
	})
}

// After a change of the schema readers ask PostgreSQL until the new one is there.
func TestAChangeOfTheSchemaStopsNoReaders(t *testing.T) {
	play(t, func(s *script) {
		reader, next, other := s.session(), s.session(), s.session()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
		s.d.readPatience = 0
		s.Holdup.Set()
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		for range 3 {
			next.selects("ann").gets("ann")
			reader.selects("ann").gets("ann")
		}
		if waited := time.Since(began); waited != 0 {
			s.Errorf("they waited for %v", waited)
		}
		if n := reader.Reanalysed; n != 0 {
			s.Errorf("what was prepared was analysed %d times for a catalog that is not there", n)
		}
		s.Holdup.Let()
		synctest.Wait()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
		if n := reader.Reanalysed; n != 1 {
			s.Errorf("what was prepared was analysed %d times for a new catalog", n)
		}
	})
}

// After a DDL the catalog is loaded once: when its marks are released, with which it would have to be loaded again.
func TestADDLHasTheCatalogLoadedOnce(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		v, loads, release := holdUp(f)
		release()
		v.Again(harness.UserByID, 1)
		const changes = 20
		before := loads.Load()
		for i := range changes {
			ctx, stop := context.WithCancel(f.Ctx)
			var reader sync.WaitGroup
			reader.Go(func() { // who finds no catalog has it loaded at once
				for ctx.Err() == nil {
					var name string
					if err := v.DB.QueryRow(nameByID, 1).Scan(&name); err != nil {
						t.Error(err)
						return
					}
				}
			})
			if _, err := v.DB.Exec(fmt.Sprintf("ALTER TABLE users ADD COLUMN more%d int", i)); err != nil {
				t.Error(err)
			}
			v.Again(harness.UserByID, 1)
			stop()
			reader.Wait()
		}
		if n := loads.Load() - before; n > changes*3/2 { // a renewal may have one loaded, too
			t.Errorf("%d loads for %d changes", n, changes)
		}
	})
}

// While a writer of before keeps a shared store cold no query asks PostgreSQL for more than itself.
func TestAColdStoreIsRarelyTriedFor(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "simple_protocol", harness.People)
	tx, err := f.Plain.BeginTx(f.Ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET city = 'Bonn' WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	wire := pgtest.Listen(t, f.DSN)
	v := f.Asking(f.Open("cachedpg", harness.WithKey(wire.DSN, "cache_store", redistest.Start(t).URL())))
	v.DB.SetMaxOpenConns(1)
	const queries, extra = 200, 10
	for range queries {
		if got := harness.OwnerOf(f.Ctx, v.DB, "SELECT name FROM users WHERE id = $1", 1); got != "ann" {
			t.Fatalf("got %s", got)
		}
	}
	sent := map[int]int{} // by connection
	asked := map[int]bool{}
	for _, text := range wire.Texts() {
		sent[text.Client]++
		asked[text.Client] = asked[text.Client] || strings.HasPrefix(text.SQL, "SELECT name FROM users")
	}
	for client, n := range sent {
		if asked[client] && n > queries+extra {
			t.Errorf("%d queries sent %d texts", queries, n)
		}
	}
	if s := statsOf(v.DB); s.Hits+s.Misses > 0 {
		t.Errorf("%d hits and %d misses while it is cold", s.Hits, s.Misses)
	}
	f.Rollback(tx)
	v.Again("SELECT name FROM users WHERE id = $1", 1)
}
