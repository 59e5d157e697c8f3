package connections

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A role that may have as many connections as its pool: its callers get all of them, as with pgx, whatever
// the driver has of its own.
func TestARoleMayHaveNoMoreConnectionsThanItsPool(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		const limit = 5
		database := pgtest.Database(t)
		f := harness.New(t, database, "cache_statement", harness.People, keys...)
		f.DB.Close() // or its role's connections would do
		role := f.NewRole(database)
		f.Past("ALTER ROLE " + role + " CONNECTION LIMIT 5")
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "user", role), keys)))
		v.DB.SetMaxOpenConns(limit)
		v.DB.SetMaxIdleConns(limit)
		all := func() {
			t.Helper()
			var begun, done sync.WaitGroup
			begun.Add(limit)
			release := make(chan struct{})
			for range limit {
				done.Go(func() {
					conn, err := v.DB.Conn(f.Ctx)
					if err == nil {
						defer conn.Close()
						_, err = conn.ExecContext(f.Ctx, "SELECT 1")
					}
					if err != nil {
						t.Error(err)
					}
					begun.Done()
					<-release
				})
			}
			begun.Wait()
			close(release)
			done.Wait()
		}
		for range 3 {
			all()
			v.Fresh(harness.UserByID, 1)
			v.Exec("UPDATE users SET name = name || '!' WHERE id = 1")
			v.Fresh(harness.UserByID, 1)
		}
		all()
	})
}

// The pool keeps as many connections as its role may have, and needs fewer at a time: one of those that are idle is the driver's.
func TestARoleOfAPoolThatIsNotInUseIsCached(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		const limit = 4
		database := pgtest.Database(t)
		f := harness.New(t, database, "cache_statement", harness.People)
		role := f.NewRole(database)
		f.Past("ALTER ROLE " + role + " CONNECTION LIMIT 4")
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "user", role), keys)))
		v.DB.SetMaxOpenConns(limit)
		v.DB.SetMaxIdleConns(limit)
		for range 3 {
			var conns []*sql.Conn // all at a time: the driver has none
			for range limit {
				conn := f.Conn(v.DB)
				if _, err := conn.ExecContext(f.Ctx, "SELECT 'mine'"); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			for _, conn := range conns {
				conn.Close()
			}
			v.Again(harness.UserByID, 1)
			for i := range 20 {
				v.Fresh("SELECT name FROM users WHERE id = $1", 100+i)
			}
			v.Again(harness.UserByID, 1)
		}
	})
}

// Callers of a pool as large as its role may have connections see no error and no wrong row, whatever comes and goes.
func TestCallersOfATightRoleSeeNoErrors(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		for _, limit := range []int{1, 4} {
			database := pgtest.Database(t)
			f := harness.New(t, database, "cache_statement", harness.People)
			role := f.NewRole(database)
			f.Past(fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", role, limit))
			db := f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "user", role), keys))
			db.SetMaxOpenConns(limit)
			db.SetMaxIdleConns(limit)
			var all sync.WaitGroup
			for worker := range 8 {
				all.Go(func() {
					for i := range 200 {
						var err error
						switch i % 10 {
						case 0:
							_, err = db.ExecContext(f.Ctx, "UPDATE users SET city = city WHERE id = $1", 1+worker%3)
						case 1:
							var tx *sql.Tx
							if tx, err = db.BeginTx(f.Ctx, nil); err == nil {
								_, err = tx.ExecContext(f.Ctx, "UPDATE users SET city = city WHERE id = $1", 100+worker)
								err = errors.Join(err, tx.Commit())
							}
						default:
							var name string
							err = db.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = $1", 1+i%3).Scan(&name)
							if want := []string{"ann", "bob", "cid"}[i%3]; err == nil && name != want {
								err = fmt.Errorf("got %s, want %s", name, want)
							}
						}
						if err != nil {
							t.Errorf("of %d: %d: %v", limit, i, err)
							return
						}
					}
				})
			}
			all.Wait()
		}
	})
}
