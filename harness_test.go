package cachedpg

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
)

// runTests is the TestMain of every package that uses the harness.
func runTests(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.bench").Value.String() == "" {
		patience.Load, patience.Read = 20*time.Second, 20*time.Second // a load takes as long as the machine is slow
		patience.Flight = testTimeout                                 // so does a SELECT
	}
	patience.Setting = time.Hour
	goleak.VerifyTestMain(m)
}

// modes are pgx's exec modes, by their names in a DSN. They decide how
// arguments are typed and in which format values travel, so every scenario
// runs in each.
var modes = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// testTimeout bounds one scenario in one mode; it only keeps a lost connection
// from hanging the run.
const testTimeout = 4 * time.Minute

var everyMode = flag.Bool("modes.every", false, "run every scenario in every exec mode with Redis too, not in one of them")

// modesIn returns the modes in which a test runs with a store: all of them in memory. The
// mode decides what travels between the driver and PostgreSQL, the store what becomes of it
// afterwards, so with Redis it is one of them, by turns.
func modesIn(t *testing.T, store string) []string {
	if store == "memory" || *everyMode {
		return modes
	}
	turn := crc32.ChecksumIEEE([]byte(t.Name())) % uint32(len(modes))
	return modes[turn : turn+1]
}

// scenario runs a story with every store, see modesIn, each in an empty schema
// that setup has filled. The database belongs to the scenario, because a DDL
// anywhere in a database empties its cache.
func scenario(t *testing.T, setup string, story func(f *fixture)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"memory", "redis"} {
		database := pgtest.Database(t)
		for i, mode := range modesIn(t, name) {
			var keys []string
			if name == "redis" {
				// What the mode before has cached is of another catalog, which its
				// setup has changed past the driver: that is noticed, but not here.
				keys = append(keys, "cache_store="+redisDatabase(t, 1+i))
			}
			t.Run(name+"/"+mode, func(t *testing.T) { story(newFixture(t, database, mode, setup, keys...)) })
		}
	}
}

// redisDatabase returns the URL of another database of the test Redis server.
func redisDatabase(t *testing.T, number int) string {
	t.Helper()
	u, err := url.Parse(pgtest.Redis(t))
	if err != nil {
		t.Fatal("the URL of the test Redis server cannot be read")
	}
	u.Path = "/" + strconv.Itoa(number)
	return u.String()
}

// inBothStores runs a test with each store, in parallel. keys name it.
func inBothStores(t *testing.T, test func(t *testing.T, keys ...string)) {
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

// scenarioInMemory is scenario for a story that is another one in a shared store.
func scenarioInMemory(t *testing.T, setup string, story func(f *fixture)) {
	t.Helper()
	t.Parallel()
	database := pgtest.Database(t)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) { story(newFixture(t, database, mode, setup)) })
	}
}

// scenarioOnce is scenario for a story that the exec mode does not matter to.
func scenarioOnce(t *testing.T, setup string, story func(f *fixture)) {
	t.Helper()
	t.Parallel()
	story(newFixture(t, pgtest.Database(t), "cache_statement", setup))
}

// withKeys returns dsn with keys such as "cache_ttl=1s" set.
func withKeys(dsn string, keys []string) string {
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		dsn = withKey(dsn, key, value)
	}
	return dsn
}

// withKey returns dsn with a key set.
func withKey(dsn, key, value string) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		q := u.Query()
		q.Set(key, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	return dsn + " " + key + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// userByID asks for one of people.
const userByID = "SELECT id, name, city FROM users WHERE id = $1"

// outage is a story with a Redis of its own, to be broken.
func outage(t *testing.T, story func(f *fixture, r *redistest.Server), keys ...string) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(newFixture(t, pgtest.Database(t), "cache_statement", people, append(keys, "cache_store="+r.URL())...), r)
}

// shared is a story of several processes that share a Redis. Each is played by
// a DB with a space of its own.
func shared(t *testing.T, setup string, story func(f *fixture)) {
	t.Helper()
	t.Parallel()
	story(newFixture(t, pgtest.Database(t), "cache_statement", setup, "cache_store="+pgtest.Redis(t)))
}

// server is the major version of the test database's server.
func server(tb testing.TB) int {
	tb.Helper()
	var version int
	if err := pgtest.Connect(tb, pgtest.DSN(tb)).QueryRow(tb.Context(), "SELECT current_setting('server_version_num')::int / 10000",
		pgx.QueryExecModeSimpleProtocol).Scan(&version); err != nil {
		tb.Fatal(err)
	}
	return version
}

// needsServer skips a test, or a step of one, that only newer servers can run.
func needsServer(tb testing.TB, major int) {
	tb.Helper()
	if version := server(tb); version < major {
		tb.Skipf("needs PostgreSQL %d or later; the server is %d", major, version)
	}
}
