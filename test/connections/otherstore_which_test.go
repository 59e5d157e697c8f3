package connections

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// inAnotherStore reports that an error says that another DB has the same database in another store.
func inAnotherStore(err error) bool {
	return err != nil && strings.Contains(err.Error(), "cachedpg: cache_store: another sql.DB of this process has the same database in another store")
}

// Of two stores of one database the one counts that was there first: what the other DB
// writes is marked in it, and that DB passes its queries through and says why.
func TestTwoDBsOfOneDatabaseNameDifferentStores(t *testing.T) {
	t.Parallel()
	for name, stores := range map[string][2]string{
		"memory, then redis":      {"memory", harness.RedisDatabase(t, 7)},
		"redis, then memory":      {harness.RedisDatabase(t, 7), "memory"},
		"redis, then another":     {harness.RedisDatabase(t, 7), harness.RedisDatabase(t, 8)},
		"memory, then eventual":   {"memory", harness.RedisDatabase(t, 7) + "\x00eventual"},
		"redis, then, eventually": {harness.RedisDatabase(t, 7), harness.RedisDatabase(t, 8) + "\x00eventual"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
			open := func(store string) harness.Via {
				store, eventual, _ := strings.Cut(store, "\x00")
				keys := []string{"cache_store=" + store}
				if eventual != "" {
					keys = append(keys, "cache_consistency=eventual")
				}
				return f.Asking(f.Open("cachedpg", harness.WithKeys(f.DSN, keys)))
			}
			first, second := open(stores[0]), open(stores[1])
			if stores[0] != "memory" {
				f.Live(first.DB)
			}
			first.Warm(harness.UserByID, 1)
			for _, name := range []string{"anna", "ann"} {
				second.Bypass(keying.OtherStore, harness.UserByID, 1)
				second.Exec("UPDATE users SET name = $1 WHERE id = 1", name)
				first.Released()
				first.Miss(harness.UserByID, 1).Is("1 " + name + " Oslo")
				first.Hit(harness.UserByID, 1)
				tx, err := second.DB.BeginTx(f.Ctx, nil)
				if err != nil {
					t.Fatal(err)
				}
				second.On(tx).Exec("UPDATE users SET name = $1 WHERE id = 1", name+"!")
				f.Commit(tx)
				first.Released()
				first.Miss(harness.UserByID, 1).Is("1 " + name + "! Oslo")
				first.Hit(harness.UserByID, 1)
			}
			if err := second.DB.PingContext(f.Ctx); !inAnotherStore(err) {
				t.Errorf("Ping: %v", err)
			}
			if err := first.DB.PingContext(f.Ctx); err != nil {
				t.Errorf("the first one's Ping: %v", err)
			}
			if x, err := cachedpg.Explain(f.Ctx, second.DB, harness.UserByID, 1); err != nil || x.Reason != keying.OtherStore.String() {
				t.Errorf("Explain: %+v, %v", x, err)
			}
			if _, err := cachedpg.OriginOf(f.Ctx, second.DB); !inAnotherStore(err) {
				t.Errorf("OriginOf: %v", err)
			}
			// What it cannot do it says.
			shared := stores[1] != "memory"
			if err := cachedpg.Invalidate(f.Ctx, second.DB); inAnotherStore(err) != shared || err != nil && !shared {
				t.Errorf("Invalidate: %v", err)
			}
			first.Miss(harness.UserByID, 1)
		})
	}
}

// What is queued in one Redis cannot be put in order with what is written past it.
func TestADBThatQueuesIsRefusedBesideAnotherStore(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	f.Warm(harness.UserByID, 1)
	second := f.Open("cachedpg", harness.WithKeys(f.DSN, []string{"cache_store=" + harness.RedisDatabase(t, 8), "cache_policy=users:write-behind"}))
	for _, do := range []func(db *sql.DB) error{
		func(db *sql.DB) error { return db.PingContext(f.Ctx) },
		func(db *sql.DB) error { _, err := db.ExecContext(f.Ctx, renames); return err },
	} {
		if err := do(second); !inAnotherStore(err) {
			t.Errorf("got %v", err)
		}
	}
}
