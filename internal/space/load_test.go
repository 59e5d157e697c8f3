package space

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
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// A change of the schema that cannot be looked at makes everything stale, which takes no
// catalog, and the lease goes on. While nothing has changed a load that is held up is nobody's affair.
func TestALeaseIsRenewedWhileTheCatalogCannotBeLoaded(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "exec", harness.People, keys...)
		const all = "SELECT * FROM users WHERE id = 1"
		f.Again(all)
		sp := spaceOf(f.DB)
		epochs := func() uint64 {
			if s, ok := sp.Store.(store.Shared); ok {
				return s.SharedStats().Epochs
			}
			return 0
		}
		before := epochs()

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
				if now := epochs(); now != before {
					t.Errorf("%d epochs have ended", now-before)
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
	hits := inside.Counted(v.DB).Hits
	v.Fresh(query, args...)
	if got := inside.Counted(v.DB).Hits; got != hits {
		v.F.Fatalf("%s: a hit", query)
	}
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
	c, err := f.DB.Driver().(driver.DriverContext).OpenConnector(harness.WithKeys(f.DSN, append(f.Keys, keys...)))
	if err != nil {
		f.Fatal(err)
	}
	held := make(chan struct{})
	loads = &atomic.Int64{}
	inside.Process(c, "held up "+rand.Text())
	inside.Dialled(c, func(in backend.Conn) backend.Conn { return &heldUp{in.(*backend.Pgx), held, loads} })
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
					if err := v.DB.QueryRow("SELECT name FROM users WHERE id = $1", 1).Scan(&name); err != nil {
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
	if s := inside.Counted(v.DB); s.Hits+s.Misses > 0 {
		t.Errorf("%d hits and %d misses while it is cold", s.Hits, s.Misses)
	}
	f.Rollback(tx)
	v.Again("SELECT name FROM users WHERE id = $1", 1)
}
