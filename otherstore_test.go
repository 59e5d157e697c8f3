package cachedpg

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// A program may open a database twice: a job library has a DSN of its own.

// What does not name a server makes no other store of it.
func TestTwoDBsReachTheirRedisInDifferentWays(t *testing.T) {
	t.Parallel()
	store := redisDatabase(t, 6)
	u, err := url.Parse(store)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("the test Redis is at %s: %v", u.Host, err)
	}
	f := newFixture(t, pgtest.Database(t), "cache_statement", people, "cache_store="+store)
	f.warm(userByID, 1)
	before := StatsOf(f.db).Hits
	for _, other := range []string{
		withKey(withKey(store, "pool_size", "3"), "min_idle_conns", "1"),
		withKey(withKey(store, "dial_timeout", "3s"), "client_name", "jobs"),
		strings.Replace(store, "127.0.0.1", "localhost", 1),
	} {
		second := f.asking(f.open("cachedpg", withKeys(f.dsn, []string{"cache_store=" + other})))
		if err := second.db.PingContext(f.ctx); err != nil {
			t.Errorf("%s: %v", other, err)
		}
		second.hit(userByID, 1)
		second.exec("UPDATE users SET name = name || '.' WHERE id = 1")
		f.released()
		f.miss(userByID, 1)
		second.hit(userByID, 1)
	}
	if got := StatsOf(f.db).Hits; got != before {
		t.Errorf("%d hits that nobody has asked for", got-before)
	}
}

// Of two stores of one database the one counts that was there first: what the other DB
// writes is marked in it, and that DB passes its queries through and says why.
func TestTwoDBsOfOneDatabaseNameDifferentStores(t *testing.T) {
	t.Parallel()
	for name, stores := range map[string][2]string{
		"memory, then redis":      {"memory", redisDatabase(t, 7)},
		"redis, then memory":      {redisDatabase(t, 7), "memory"},
		"redis, then another":     {redisDatabase(t, 7), redisDatabase(t, 8)},
		"memory, then eventual":   {"memory", redisDatabase(t, 7) + "\x00eventual"},
		"redis, then, eventually": {redisDatabase(t, 7), redisDatabase(t, 8) + "\x00eventual"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, pgtest.Database(t), "cache_statement", people)
			open := func(store string) via {
				store, eventual, _ := strings.Cut(store, "\x00")
				keys := []string{"cache_store=" + store}
				if eventual != "" {
					keys = append(keys, "cache_consistency=eventual")
				}
				return f.asking(f.open("cachedpg", withKeys(f.dsn, keys)))
			}
			first, second := open(stores[0]), open(stores[1])
			if connectorOf(first.db).target != nil {
				f.live(first.db)
			}
			first.warm(userByID, 1)
			for _, name := range []string{"anna", "ann"} {
				second.bypass(keying.OtherStore, userByID, 1)
				second.exec("UPDATE users SET name = $1 WHERE id = 1", name)
				first.released()
				first.miss(userByID, 1).is("1 " + name + " Oslo")
				first.hit(userByID, 1)
				tx, err := second.db.BeginTx(f.ctx, nil)
				if err != nil {
					t.Fatal(err)
				}
				second.on(tx).exec("UPDATE users SET name = $1 WHERE id = 1", name+"!")
				f.commit(tx)
				first.released()
				first.miss(userByID, 1).is("1 " + name + "! Oslo")
				first.hit(userByID, 1)
			}
			if err := second.db.PingContext(f.ctx); !errors.Is(err, errOtherStore) {
				t.Errorf("Ping: %v", err)
			}
			if err := first.db.PingContext(f.ctx); err != nil {
				t.Errorf("the first one's Ping: %v", err)
			}
			if x, err := Explain(f.ctx, second.db, userByID, 1); err != nil || x.Reason != keying.OtherStore.String() {
				t.Errorf("Explain: %+v, %v", x, err)
			}
			if _, err := OriginOf(f.ctx, second.db); !errors.Is(err, errOtherStore) {
				t.Errorf("OriginOf: %v", err)
			}
			// What it cannot do it says.
			shared := stores[1] != "memory"
			if err := Invalidate(f.ctx, second.db); errors.Is(err, errOtherStore) != shared || err != nil && !shared {
				t.Errorf("Invalidate: %v", err)
			}
			first.miss(userByID, 1)
		})
	}
}

// What is queued in one Redis cannot be put in order with what is written past it.
func TestADBThatQueuesIsRefusedBesideAnotherStore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	f.warm(userByID, 1)
	second := f.open("cachedpg", withKeys(f.dsn, []string{"cache_store=" + redisDatabase(t, 8), "cache_policy=users:write-behind"}))
	for _, do := range []func(db *sql.DB) error{
		func(db *sql.DB) error { return db.PingContext(f.ctx) },
		func(db *sql.DB) error { _, err := db.ExecContext(f.ctx, renames); return err },
	} {
		if err := do(second); !errors.Is(err, errOtherStore) {
			t.Errorf("got %v", err)
		}
	}
}
