package cachedpg

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // "pgx", the truth that every answer is compared with
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

func TestMain(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.bench").Value.String() == "" {
		patience, readPatience = 20*time.Second, 20*time.Second // a load takes as long as the machine is slow
		flightPatience = testTimeout                            // so does a SELECT
	}
	heldFor = time.Hour
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

// inMemory reports that the story plays in the store in memory.
func (f *fixture) inMemory() bool { return len(f.keys) == 0 }

// scenarioOnce is scenario for a story that the exec mode does not matter to.
func scenarioOnce(t *testing.T, setup string, story func(f *fixture)) {
	t.Helper()
	t.Parallel()
	story(newFixture(t, pgtest.Database(t), "cache_statement", setup))
}

// fixture is one story in one mode. Its own hit, miss, bypass, … ask f.db;
// those of on(x) ask x.
type fixture struct {
	*testing.T
	via
	db    *sql.DB  // cachedpg
	plain *sql.DB  // pgx, with the same settings
	dsn   string   // for pgx
	keys  []string // of the driver, such as "cache_ttl=1s"
	ctx   context.Context
}

// step runs a part of the story as a subtest.
func (f *fixture) step(name string, part func(f *fixture)) {
	f.T.Run(name, func(t *testing.T) {
		sub := *f
		sub.T, sub.via.f = t, &sub
		part(&sub)
	})
}

// people is the setup of most stories.
const people = `
	CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, city text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo'), (2, 'bob', 'Rome'), (3, 'cid', NULL);`

func newFixture(t *testing.T, database, mode, setup string, keys ...string) *fixture {
	t.Helper()
	pgtest.Exec(t, database, "DROP SCHEMA IF EXISTS "+mode+" CASCADE; CREATE SCHEMA "+mode)
	dsn := withKey(withKey(database, "search_path", mode), "default_query_exec_mode", mode)
	if setup != "" {
		pgtest.Exec(t, withKey(database, "search_path", mode), setup)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	f := &fixture{T: t, dsn: dsn, keys: keys, ctx: ctx}
	f.db = f.open("cachedpg", withKeys(dsn, keys))
	f.plain = f.open("pgx", dsn)
	f.via = via{f: f, db: f.db, ask: f.db, truth: f.plain}
	if len(keys) > 0 {
		f.live(f.db)
	}
	return f
}

// live returns when a lease stands in db's shared store. Its begin may have
// to wait for transactions of other tests.
func (f *fixture) live(db *sql.DB) {
	f.Helper()
	f.until("a lease", func() bool {
		if err := db.PingContext(f.ctx); err != nil {
			f.Fatal(err)
		}
		return connectorOf(db).space().keeper.live.Load()
	})
}

// released returns when what has been committed is released.
func (v via) released() {
	v.f.Helper()
	if sp := connectorOf(v.db).space(); sp != nil && sp.keeper != nil && !StatsOf(v.db).Shared.Down {
		v.f.until("the release", func() bool { return sp.writes.Stats().Pending == 0 })
	}
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

func (f *fixture) open(driverName, dsn string) *sql.DB {
	f.Helper()
	// With it stories are told once more with few connections to PostgreSQL, see make test-bound.
	if n := os.Getenv("CACHEDPG_TEST_MAX_CONNS"); n != "" && driverName == "cachedpg" && !strings.Contains(dsn, "cache_max_conns") && !strings.HasPrefix(dsn, "registeredConnConfig") {
		dsn = withKey(dsn, "cache_max_conns", n)
	}
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	return db
}

// newRole makes a role that may use everything in the fixture's schema.
func (f *fixture) newRole(database string) string {
	f.Helper()
	role := "hardened_" + strings.ToLower(rand.Text())
	pgtest.Exec(f, database, "CREATE ROLE "+role+" LOGIN")
	f.Cleanup(func() { pgtest.Exec(f, database, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	f.past("GRANT USAGE ON SCHEMA cache_statement TO " + role)
	f.past("GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
	f.past("GRANT ALL ON ALL SEQUENCES IN SCHEMA cache_statement TO " + role)
	return role
}

// mode is the exec mode of the story.
func (f *fixture) mode() pgx.QueryExecMode {
	f.Helper()
	config, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	return config.DefaultQueryExecMode
}

// with opens another cachedpg DB with keys such as "cache_ttl=1s" and returns
// the via that asks it.
func (f *fixture) with(keys ...string) via {
	f.Helper()
	return f.asking(f.open("cachedpg", withKeys(f.dsn, append(slices.Clone(f.keys), keys...))))
}

// asking returns the via that asks another cachedpg DB.
func (f *fixture) asking(db *sql.DB) via { return via{f: f, db: db, ask: db, truth: f.plain} }

// past executes past the driver, which therefore does not know of it.
func (f *fixture) past(query string, args ...any) {
	f.Helper()
	if _, err := f.plain.ExecContext(f.ctx, query, args...); err != nil {
		f.Fatalf("past the driver: %v\nin: %s", err, query)
	}
}

// session takes a connection out of db, and out of plain to compare with.
func (f *fixture) session() (via, *sql.Conn) {
	f.Helper()
	v := f.via
	ours, theirs := f.conn(f.db), f.conn(f.plain)
	v.ask, v.truth = ours, theirs
	return v, ours
}

func (f *fixture) conn(db *sql.DB) *sql.Conn {
	f.Helper()
	conn, err := db.Conn(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return conn
}

// begin starts a transaction on f.db.
func (f *fixture) begin(opts *sql.TxOptions) (via, *sql.Tx) {
	f.Helper()
	tx, err := f.db.BeginTx(f.ctx, opts)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	return f.on(tx), tx
}

func (f *fixture) commit(tx interface{ Commit() error }) {
	f.Helper()
	if err := tx.Commit(); err != nil {
		f.Fatalf("commit: %v", err)
	}
}

func (f *fixture) rollback(tx interface{ Rollback() error }) {
	f.Helper()
	if err := tx.Rollback(); err != nil {
		f.Fatalf("rollback: %v", err)
	}
}

// asker is a *sql.DB, *sql.Conn, *sql.Tx or a statement.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// prepared makes an asker of a statement; the text given with each question is
// for the messages only.
type prepared struct{ *sql.Stmt }

func (p prepared) QueryContext(ctx context.Context, _ string, args ...any) (*sql.Rows, error) {
	return p.Stmt.QueryContext(ctx, args...)
}

func (p prepared) ExecContext(ctx context.Context, _ string, args ...any) (sql.Result, error) {
	return p.Stmt.ExecContext(ctx, args...)
}

// via asks something of the driver, sees in the stats how it was answered, and
// compares with the truth.
type via struct {
	f     *fixture
	db    *sql.DB // whose stats count
	ask   asker
	truth asker // plain pgx
	under func(context.Context) context.Context
}

// on returns the via that asks x, a connection or transaction of the same DB.
func (v via) on(x asker) via {
	v.ask = x
	return v
}

// in returns the via whose questions have a context made by f.
func (v via) in(f func(context.Context) context.Context) via {
	v.under = f
	return v
}

func (v via) context() context.Context {
	if v.under == nil {
		return v.f.ctx
	}
	return v.under(v.f.ctx)
}

// hit: the query is answered from the cache, and as plain pgx answers it now.
func (v via) hit(query string, args ...any) result {
	v.f.Helper()
	return v.expect("hit", true, query, args)
}

// miss: the query runs on PostgreSQL and its result is as plain pgx gives it.
func (v via) miss(query string, args ...any) result {
	v.f.Helper()
	return v.expect("miss", true, query, args)
}

// warm: the query has not been cached, and is from now on.
func (v via) warm(query string, args ...any) result {
	v.f.Helper()
	v.miss(query, args...)
	return v.hit(query, args...)
}

// bypass: the cache is not asked, for this reason, and the result is as plain pgx gives it.
func (v via) bypass(reason keying.Reason, query string, args ...any) result {
	v.f.Helper()
	return v.expect("bypass "+reason.String(), true, query, args)
}

// runs is bypass for a query that must not run twice, or whose result is its own.
func (v via) runs(reason keying.Reason, query string, args ...any) result {
	v.f.Helper()
	return v.expect("bypass "+reason.String(), false, query, args)
}

// known: the query is cached from now on, if it was not already.
func (v via) known(query string, args ...any) result {
	v.f.Helper()
	v.fresh(query, args...)
	return v.hit(query, args...)
}

// fresh: whatever the driver does, the result is as plain pgx gives it.
func (v via) fresh(query string, args ...any) result {
	v.f.Helper()
	return v.expect("", true, query, args)
}

// fails: the error is the one that plain pgx gives, and the cache has no part in it.
func (v via) fails(query string, args ...any) error {
	v.f.Helper()
	before := StatsOf(v.db)
	got := v.read(v.ask, query, args)
	if met := difference(before, StatsOf(v.db)); strings.Contains(met, "hit") {
		v.f.Errorf("%s: got %s, want an error", query, met)
	}
	want := v.read(v.truth, query, args)
	if fmt.Sprint(got.err) != fmt.Sprint(want.err) || want.err == nil {
		v.f.Errorf("%s: got error %v, plain pgx %v", query, got.err, want.err)
	}
	return got.err
}

func (v via) expect(want string, compare bool, query string, args []any) result {
	v.f.Helper()
	v.released()
	before := StatsOf(v.db)
	r := v.read(v.ask, query, args)
	got := difference(before, StatsOf(v.db))
	if r.err != nil {
		v.f.Fatalf("%s: %v (%s)", query, r.err, got)
	}
	if got != want && want != "" {
		v.f.Fatalf("%s: got a %s, want a %s", query, cmp.Or(got, "query that was not counted"), want)
	}
	if compare {
		v.compare(r, query, args)
	}
	return r
}

func (v via) compare(got result, query string, args []any) {
	v.f.Helper()
	want := v.read(v.truth, query, args)
	if want.err != nil {
		v.f.Fatalf("%s: plain pgx: %v", query, want.err)
	}
	if !reflect.DeepEqual(got.columns, want.columns) {
		v.f.Fatalf("%s: columns:\ngot         %v\nplain pgx's %v", query, got.columns, want.columns)
	}
	if !reflect.DeepEqual(got.rows, want.rows) {
		v.f.Fatalf("%s: rows:\ngot         %s\nplain pgx's %s", query, got, want)
	}
}

// difference says in words what one query was counted as.
func difference(before, after Stats) string {
	var met []string
	count := func(what string, b, a uint64) {
		for ; b < a; b++ {
			met = append(met, what)
		}
	}
	count("hit", before.Hits, after.Hits)
	count("miss", before.Misses, after.Misses)
	count("bypass "+keying.NotRead.String(), before.Others, after.Others)
	for _, reason := range slices.Sorted(maps.Keys(after.Bypasses)) {
		count("bypass "+reason, before.Bypasses[reason], after.Bypasses[reason])
	}
	return strings.Join(met, " + ")
}

// exec executes through the driver, which must not answer it from the cache.
func (v via) exec(query string, args ...any) sql.Result {
	v.f.Helper()
	r, err := v.ask.ExecContext(v.context(), query, args...)
	if err != nil {
		v.f.Fatalf("%v\nin: %s", err, query)
	}
	return r
}

// both executes through the driver and on the connection that it is compared with.
func (v via) both(query string, args ...any) {
	v.f.Helper()
	v.exec(query, args...)
	if _, err := v.truth.ExecContext(v.f.ctx, query, args...); err != nil {
		v.f.Fatalf("plain pgx: %v\nin: %s", err, query)
	}
}

// result is everything that database/sql says of a result.
type result struct {
	tb      testing.TB
	columns []column
	rows    [][]any
	err     error
}

type column struct {
	Name, Database   string
	Scan             reflect.Type
	Length           int64
	Precision, Scale int64
	Has, Nullable    [2]bool
}

// read reads a whole result.
func (v via) read(x asker, query string, args []any) (r result) {
	r.tb = v.f
	rows, err := x.QueryContext(v.context(), query, args...)
	if err != nil {
		return result{err: err}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return result{err: err}
	}
	for _, t := range types {
		c := column{Name: t.Name(), Database: t.DatabaseTypeName(), Scan: t.ScanType()}
		c.Length, c.Has[0] = t.Length()
		c.Precision, c.Scale, c.Has[1] = t.DecimalSize()
		c.Nullable[0], c.Nullable[1] = t.Nullable()
		r.columns = append(r.columns, c)
	}
	for rows.Next() {
		row := make([]any, len(types))
		dest := make([]any, len(types))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return result{err: err}
		}
		for i, value := range row {
			if n, ok := value.(float64); ok && n != n {
				row[i] = "NaN" // which equals itself
			}
		}
		r.rows = append(r.rows, row)
	}
	r.err = rows.Err()
	return r
}

// is checks the rows, written with blanks and commas: "1 ann, 2 bob".
func (r result) is(want string) {
	r.tb.Helper()
	if got := r.String(); got != want {
		r.tb.Errorf("got rows %q, want %q", got, want)
	}
}

func (r result) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	rows := make([]string, len(r.rows))
	for i, row := range r.rows {
		values := make([]string, len(row))
		for j, value := range row {
			values[j] = fmt.Sprint(value)
			if b, ok := value.([]byte); ok {
				values[j] = string(b)
			}
		}
		rows[i] = strings.Join(values, " ")
	}
	return strings.Join(rows, ", ")
}

// sameError checks that an error reaches the caller as pgx returns it.
func sameError(t testing.TB, got, want error) {
	t.Helper()
	if want == nil {
		t.Fatalf("plain pgx gives no error, cachedpg %v", got)
	}
	if got == nil || got.Error() != want.Error() || reflect.TypeOf(got) != reflect.TypeOf(want) {
		t.Errorf("got error %T %v, plain pgx's is %T %v", got, got, want, want)
	}
}
