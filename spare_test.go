package cachedpg

import (
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A role that may have as many connections as its pool: its callers get all of them, as with pgx, whatever
// the driver has of its own.
func TestARoleMayHaveNoMoreConnectionsThanItsPool(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		const limit = 5
		database := pgtest.Database(t)
		f := newFixture(t, database, "cache_statement", people, keys...)
		f.db.Close() // or its role's connections would do
		role := f.newRole(database)
		f.past("ALTER ROLE " + role + " CONNECTION LIMIT 5")
		v := f.asking(f.open("cachedpg", withKeys(withKey(f.dsn, "user", role), keys)))
		v.db.SetMaxOpenConns(limit)
		v.db.SetMaxIdleConns(limit)
		all := func() {
			t.Helper()
			var begun, done sync.WaitGroup
			begun.Add(limit)
			release := make(chan struct{})
			for range limit {
				done.Go(func() {
					conn, err := v.db.Conn(f.ctx)
					if err == nil {
						defer conn.Close()
						_, err = conn.ExecContext(f.ctx, "SELECT 1")
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
			v.fresh(userByID, 1)
			v.exec("UPDATE users SET name = name || '!' WHERE id = 1")
			v.fresh(userByID, 1)
		}
		all()
	})
}
