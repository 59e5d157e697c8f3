// Package harness is what tests of the driver on a real PostgreSQL have in common: a story is told in every
// exec mode and with every store, and each answer of the driver is compared with that of plain pgx.
//
// It does not import the driver: tests in the driver's own package use it too. What it has to
// know of it comes by way of internal/inside.
package harness

import (
	"flag"
	"hash/crc32"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // "pgx", the truth that every answer is compared with
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// Main is the TestMain of every package that uses the harness.
func Main(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.bench").Value.String() == "" {
		patience.Load, patience.Read = 20*time.Second, 20*time.Second // a load takes as long as the machine is slow
		patience.Flight = Timeout                                     // so does a SELECT
	}
	patience.Setting = time.Hour
	patience.Lease = 3 * store.Lease // which a machine that has something else to do must not make run out
	goleak.VerifyTestMain(m)
}

// Modes are pgx's exec modes, by their names in a DSN. They decide how
// arguments are typed and in which format values travel, so every scenario
// runs in each.
var Modes = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// Timeout bounds one scenario in one mode; it only keeps a lost connection
// from hanging the run.
const Timeout = 4 * time.Minute

var everyMode = flag.Bool("modes.every", false, "run every scenario in every exec mode with Redis too, not in one of them")

// ModesIn returns the modes in which a test runs with a store: all of them in memory. The
// mode decides what travels between the driver and PostgreSQL, the store what becomes of it
// afterwards, so with Redis it is one of them, by turns.
func ModesIn(t *testing.T, store string) []string {
	if store == "memory" || *everyMode {
		return Modes
	}
	turn := crc32.ChecksumIEEE([]byte(t.Name())) % uint32(len(Modes))
	return Modes[turn : turn+1]
}

// Scenario runs a story with every store, see ModesIn, each in an empty schema
// that setup has filled. The database belongs to the scenario, because a DDL
// anywhere in a database empties its cache.
func Scenario(t *testing.T, setup string, story func(f *Fixture)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"memory", "redis"} {
		database := pgtest.Database(t)
		for i, mode := range ModesIn(t, name) {
			var keys []string
			if name == "redis" {
				// What the mode before has cached is of another catalog, which its
				// setup has changed past the driver: that is noticed, but not here.
				keys = append(keys, "cache_store="+RedisDatabase(t, 1+i))
			}
			t.Run(name+"/"+mode, func(t *testing.T) { story(New(t, database, mode, setup, keys...)) })
		}
	}
}

// RedisDatabase returns the URL of another database of the test Redis server.
func RedisDatabase(t *testing.T, number int) string {
	t.Helper()
	u, err := url.Parse(pgtest.Redis(t))
	if err != nil {
		t.Fatal("the URL of the test Redis server cannot be read")
	}
	u.Path = "/" + strconv.Itoa(number)
	return u.String()
}

// InBothStores runs a test with each store, in parallel. keys name it.
func InBothStores(t *testing.T, test func(t *testing.T, keys ...string)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, "cache_store="+pgtest.Redis(t))
	})
}

// ScenarioInMemory is scenario for a story that is another one in a shared store.
func ScenarioInMemory(t *testing.T, setup string, story func(f *Fixture)) {
	t.Helper()
	t.Parallel()
	database := pgtest.Database(t)
	for _, mode := range Modes {
		t.Run(mode, func(t *testing.T) { story(New(t, database, mode, setup)) })
	}
}

// ScenarioOnce is scenario for a story that the exec mode does not matter to.
func ScenarioOnce(t *testing.T, setup string, story func(f *Fixture)) {
	t.Helper()
	t.Parallel()
	story(New(t, pgtest.Database(t), "cache_statement", setup))
}

// WithKeys returns dsn with keys such as "cache_ttl=1s" set.
func WithKeys(dsn string, keys []string) string {
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		dsn = WithKey(dsn, key, value)
	}
	return dsn
}

// WithKey returns dsn with a key set.
func WithKey(dsn, key, value string) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		q := u.Query()
		q.Set(key, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	return dsn + " " + key + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// UserByID asks for one of people.
const UserByID = "SELECT id, name, city FROM users WHERE id = $1"

// Outage is a story with a Redis of its own, to be broken.
func Outage(t *testing.T, story func(f *Fixture, r *redistest.Server), keys ...string) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(New(t, pgtest.Database(t), "cache_statement", People, append(keys, "cache_store="+r.URL())...), r)
}

// Shared is a story of several processes that share a Redis. Each is played by
// a DB with a space of its own.
func Shared(t *testing.T, setup string, story func(f *Fixture)) {
	t.Helper()
	t.Parallel()
	story(New(t, pgtest.Database(t), "cache_statement", setup, "cache_store="+pgtest.Redis(t)))
}

// ServerVersion is the major version of the test database's server.
func ServerVersion(tb testing.TB) int {
	tb.Helper()
	var version int
	if err := pgtest.Connect(tb, pgtest.DSN(tb)).QueryRow(tb.Context(), "SELECT current_setting('server_version_num')::int / 10000",
		pgx.QueryExecModeSimpleProtocol).Scan(&version); err != nil {
		tb.Fatal(err)
	}
	return version
}

// NeedsServer skips a test, or a step of one, that only newer servers can run.
func NeedsServer(tb testing.TB, major int) {
	tb.Helper()
	if version := ServerVersion(tb); version < major {
		tb.Skipf("needs PostgreSQL %d or later; the server is %d", major, version)
	}
}

// Everything is what an event invalidates that names nothing.
var Everything = []store.Tag{{Kind: store.TagSchema}, {Kind: store.TagCatalog}}
