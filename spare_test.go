package cachedpg

import (
	"database/sql"
	"strings"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A role that may have as many connections as its pool: its callers get all of them, as with pgx, and what
// the driver needs it takes of those that nobody uses.
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
			f.until("a hit", func() bool {
				before := StatsOf(v.db).Hits
				v.fresh(userByID, 1)
				return StatsOf(v.db).Hits > before
			})
			v.exec("UPDATE users SET name = name || '!' WHERE id = 1")
			v.fresh(userByID, 1)
		}
		all()
	})
}

// What a caller has left on a connection stays.
func TestAConnectionThatIsUsedIsNotGivenUp(t *testing.T) {
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	f.db.SetMaxOpenConns(1)
	f.exec("SET application_name = 'mine'")
	d := connectorOf(f.db)
	d.spare.wish()
	for range 3 {
		if got := ownerOf(f.ctx, f.db, "SELECT current_setting('application_name')"); got != "mine" {
			t.Errorf("got %s", got)
		}
	}
	if !d.spare.wanted.Load() {
		t.Error("somebody gave way")
	}
	db := f.open("cachedpg", f.dsn)
	db.SetMaxOpenConns(1)
	stmt, err := db.Prepare("SELECT name FROM users WHERE city = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for _, want := range []string{"ann", "ann"} {
		var got string
		if err := stmt.QueryRow("Oslo").Scan(&got); err != nil || got != want {
			t.Errorf("got %s, %v", got, err)
		}
		connectorOf(db).spare.wish()
	}
	if pid := func(db *sql.DB) string { return ownerOf(f.ctx, db, "SELECT pg_backend_pid()::text") }; pid(db) == "" || strings.Contains(pid(db), "ERROR") {
		t.Error("no backend")
	}
}
