package cachedpg

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
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// A change of the schema that cannot be looked at makes everything stale, which takes no
// catalog, and the lease goes on. While nothing has changed a load that is held up is nobody's affair.
func TestALeaseIsRenewedWhileTheCatalogCannotBeLoaded(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "exec", people, keys...)
		const all = "SELECT * FROM users WHERE id = 1"
		f.again(all)
		sp := connectorOf(f.db).space()
		before := StatsOf(f.db).Shared.Epochs

		unlock := f.lockedCatalog("pg_depend")
		f.stays(2*store.Lease, func() { f.hit(all) })
		f.past("ALTER TABLE users RENAME COLUMN city TO town")
		f.noticed(time.Now(), all)
		f.stays(2*store.Lease, func() { f.bypasses(all) })
		f.exec("UPDATE users SET name = name || '!' WHERE id = 1")
		f.fresh(all).is("1 ann! Oslo")
		if f.inMemory() {
			unlock()
		} else {
			if !sp.keeper.live.Load() {
				t.Error("there is no lease")
			}
			unlock()
			defer func() {
				if s := StatsOf(f.db).Shared; s.Epochs != before {
					t.Errorf("%d epochs have ended", s.Epochs-before)
				}
			}()
		}
		f.again(all)
		f.again("SELECT count(*) FROM users")
	})
}

// bypasses: the result is PostgreSQL's, and nothing comes from the cache.
func (v via) bypasses(query string, args ...any) {
	v.f.Helper()
	hits := StatsOf(v.db).Hits
	v.fresh(query, args...)
	if got := StatsOf(v.db).Hits; got != hits {
		v.f.Fatalf("%s: a hit", query)
	}
}

// I22: a lease that is extended without a digest has nothing under it that was planned
// with a catalog of before.
func TestADoubtLeavesNothingThatWasPlannedBefore(t *testing.T) {
	shared(t, people, func(f *fixture) {
		f.again(userByID, 1)
		sp := connectorOf(f.db).space()
		stamps, err := sp.keeper.stamps(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.view.Load()
		number, err := sp.keeper.watch.ask(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		if sure, err := sp.keeper.doubt(f.ctx, number); !sure || err != nil {
			f.Fatalf("sure %v, %v", sure, err)
		}
		if agreed, err := sp.agree(f.ctx, old.snapshot, &stamps, sp.gens.Current(), number); agreed || err != nil {
			f.Errorf("a catalog loaded before is agreed on: %v, %v", agreed, err)
		}
		f.miss(userByID, 1)
		f.hit(userByID, 1)
	})
}

// heldUp is a connection to PostgreSQL on which a catalog is not loaded before the test
// says so.
type heldUp struct {
	*pgxInner
	held  <-chan struct{}
	loads *atomic.Int64
}

func (in *heldUp) loadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	in.loads.Add(1)
	select {
	case <-in.held:
		return in.pgxInner.loadCatalog(ctx, before)
	case <-ctx.Done():
		_ = in.Close() // as pgx does with any query
		return nil, ctx.Err()
	}
}

// heldUp opens a database whose catalog takes as long as the test wants.
func (f *fixture) heldUp(keys ...string) (v via, loads *atomic.Int64, release func()) {
	f.Helper()
	c, err := (&Driver{}).OpenConnector(withKeys(f.dsn, append(f.keys, keys...)))
	if err != nil {
		f.Fatal(err)
	}
	config, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	held := make(chan struct{})
	loads = &atomic.Int64{}
	c.(*connector).process = "held up " + rand.Text()
	c.(*connector).connect = func(ctx context.Context, _ *link) (inner, error) {
		in, err := dialPgx(ctx, stdlib.GetConnector(*config))
		if err != nil {
			return nil, err
		}
		return &heldUp{in.(*pgxInner), held, loads}, nil
	}
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return f.asking(db), loads, func() { close(held) }
}

// A deadline that is shorter than the load of the catalog is long enough for what it was set for.
func TestADeadlineIsNotSpentOnTheCatalog(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people, keys...)
		v, loads, release := f.heldUp()
		const deadline = 10 * time.Second // a fraction of what the load takes, which is for ever
		do := func(what string, act func(ctx context.Context, db *sql.DB) error) {
			t.Helper()
			for range 3 {
				for name, db := range map[string]*sql.DB{"pgx": f.plain, "cachedpg": v.db} {
					ctx, cancel := context.WithTimeout(f.ctx, deadline)
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
		v.again(userByID, 1)
	})
}

// A catalog that cannot be loaded is not tried for by every query.
func TestACatalogThatCannotBeLoadedIsRarelyTriedFor(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		database := pgtest.Database(t)
		f := newFixture(t, database, "cache_statement", people, keys...)
		role := f.newRole(database)
		f.past("REVOKE SELECT ON pg_catalog.pg_proc FROM public")
		f.dsn = withKey(f.dsn, "user", role)
		v, loads, release := f.heldUp()
		release()
		v.truth = f.open("pgx", f.dsn)
		const queries = 200
		for range queries {
			v.fresh(userByID, 1)
			v.fresh("SELECT count(*) FROM users")
			v.exec("UPDATE users SET city = 'Rome' WHERE id = 2")
		}
		if n := loads.Load(); n == 0 || n > 25 { // a back-off of seconds makes few in any time that a test has
			t.Errorf("%d queries made %d loads", queries, n)
		}
		pgtest.Exec(t, database, "GRANT SELECT ON pg_catalog.pg_proc TO public")
		v.again(userByID, 1)
	})
}

// Who reads waits for no catalog, and who begins a transaction for the first one, for a bounded time.
func TestNoReadWaitsForTheFirstCatalog(t *testing.T) {
	play(t, func(s *script) {
		s.d.readPatience = 0
		reader, writer := s.session(), s.session()
		s.holdup.set()
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
			writer.mock.ExpectBegin()
			writer.mock.ExpectRollback()
			tx, err := writer.Conn.BeginTx(s.Context(), driver.TxOptions{})
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
		s.holdup.let()
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
		s.holdup.set()
		other.mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.ExecContext(s.Context(), ddl, nil); err != nil {
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
		if n := reader.reanalysed; n != 0 {
			s.Errorf("what was prepared was analysed %d times for a catalog that is not there", n)
		}
		s.holdup.let()
		synctest.Wait()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
		if n := reader.reanalysed; n != 1 {
			s.Errorf("what was prepared was analysed %d times for a new catalog", n)
		}
	})
}

// After a DDL the catalog is loaded once: when its marks are released, with which it would have to be loaded again.
func TestADDLHasTheCatalogLoadedOnce(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people, keys...)
		v, loads, release := f.heldUp()
		release()
		v.again(userByID, 1)
		const changes = 20
		before := loads.Load()
		for i := range changes {
			ctx, stop := context.WithCancel(f.ctx)
			var reader sync.WaitGroup
			reader.Go(func() { // who finds no catalog has it loaded at once
				for ctx.Err() == nil {
					var name string
					if err := v.db.QueryRow(nameByID, 1).Scan(&name); err != nil {
						t.Error(err)
						return
					}
				}
			})
			if _, err := v.db.Exec(fmt.Sprintf("ALTER TABLE users ADD COLUMN more%d int", i)); err != nil {
				t.Error(err)
			}
			v.again(userByID, 1)
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
	f := newFixture(t, pgtest.Database(t), "simple_protocol", people)
	tx, err := f.plain.BeginTx(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(f.ctx, "UPDATE users SET city = 'Bonn' WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	wire := pgtest.Listen(t, f.dsn)
	v := f.asking(f.open("cachedpg", withKey(wire.DSN, "cache_store", redistest.Start(t).URL())))
	v.db.SetMaxOpenConns(1)
	const queries, extra = 200, 10
	for range queries {
		if got := ownerOf(f.ctx, v.db, "SELECT name FROM users WHERE id = $1", 1); got != "ann" {
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
	if s := StatsOf(v.db); s.Hits+s.Misses > 0 {
		t.Errorf("%d hits and %d misses while it is cold", s.Hits, s.Misses)
	}
	f.rollback(tx)
	v.again("SELECT name FROM users WHERE id = $1", 1)
}
