package connections

import (
	"net/url"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A program may open a database twice: a job library has a DSN of its own.

// What does not name a server makes no other store of it.
func TestTwoDBsReachTheirRedisInDifferentWays(t *testing.T) {
	t.Parallel()
	store := harness.RedisDatabase(t, 6)
	u, err := url.Parse(store)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("the test Redis is at %s: %v", u.Host, err)
	}
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+store)
	f.Warm(harness.UserByID, 1)
	before := cachedpg.StatsOf(f.DB).Hits
	for _, other := range []string{
		harness.WithKey(harness.WithKey(store, "pool_size", "3"), "min_idle_conns", "1"),
		harness.WithKey(harness.WithKey(store, "dial_timeout", "3s"), "client_name", "jobs"),
		strings.Replace(store, "127.0.0.1", "localhost", 1),
	} {
		second := f.Asking(f.Open("cachedpg", harness.WithKeys(f.DSN, []string{"cache_store=" + other})))
		if err := second.DB.PingContext(f.Ctx); err != nil {
			t.Errorf("%s: %v", other, err)
		}
		second.Hit(harness.UserByID, 1)
		second.Exec("UPDATE users SET name = name || '.' WHERE id = 1")
		f.Released()
		f.Miss(harness.UserByID, 1)
		second.Hit(harness.UserByID, 1)
	}
	if got := cachedpg.StatsOf(f.DB).Hits; got != before {
		t.Errorf("%d hits that nobody has asked for", got-before)
	}
}
