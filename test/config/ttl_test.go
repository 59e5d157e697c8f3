package config

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/keying"
)

const ageing = harness.People + `
	CREATE TABLE views (page int PRIMARY KEY, n int NOT NULL DEFAULT 0);
	INSERT INTO views VALUES (1, 10), (2, 20);
	CREATE VIEW seen AS SELECT u.name, v.n FROM users u JOIN views v ON v.page = u.id;
	CREATE UNLOGGED TABLE scratch (id int);
	CREATE SEQUENCE seq;
	CREATE TABLE secret (id int, owner text);
	ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
	CREATE TABLE audit (id int);
	CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO audit VALUES (1) RETURNING 1';
	CREATE FUNCTION mine() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;`

const (
	viewsOf  = "SELECT n FROM views WHERE page = $1"
	allSeen  = "SELECT name, n FROM seen ORDER BY 1"
	aMinute  = "/* cachedpg: ttl=1m */ "
	viewsTTL = "cache_policy=views:ttl:1m"
)

// What only the moment is against is cached by age, and nothing else is.
func TestWhatATTLExcuses(t *testing.T) {
	harness.ScenarioOnce(t, ageing, func(f *harness.Fixture) {
		for _, query := range []string{
			"SELECT now()", "SELECT current_timestamp", "SELECT current_date", "SELECT localtime", "SELECT clock_timestamp()",
			"SELECT statement_timestamp()", "SELECT transaction_timestamp()", "SELECT timeofday()", "SELECT age(timestamp '2020-01-01')",
			"SELECT random()", "SELECT gen_random_uuid()", "SELECT id FROM users ORDER BY random()",
			"SELECT id FROM users TABLESAMPLE bernoulli (50)", "SELECT ctid, id FROM users", "SELECT xmin, id FROM users WHERE id = 1",
			"SELECT 'now'::timestamptz", "SELECT date 'today'", "SELECT name::timetz FROM users WHERE false", "SELECT name::date FROM users WHERE false",
			"SELECT last_value FROM seq", "SELECT * FROM scratch",
			"SELECT version()", "SELECT pg_is_in_recovery()", "SELECT pg_current_wal_lsn()", "SELECT pg_postmaster_start_time()",
			"SELECT pg_database_size(current_database())", "SELECT pg_relation_size(16384)", "SELECT pg_total_relation_size(16384)",
			"SELECT format_type(23, 0)", "SELECT obj_description(1, 'pg_class')", "SELECT pg_get_viewdef(1::oid)",
			"SELECT * FROM json_to_record('{\"a\": 1}') AS x(a int)",
			"SELECT count(*) FROM pg_class", "SELECT relname FROM pg_catalog.pg_class c WHERE c.oid = 1259",
			"SELECT count(*) FROM pg_stat_activity", "SELECT count(*) FROM pg_stat_user_tables", "SELECT count(*) FROM information_schema.columns",
			"SELECT count(*) FROM pg_tables t JOIN users u ON u.name = t.tablename",
		} {
			f.Step(query, func(f *harness.Fixture) {
				if r := outside.Explain(f.Via, query); r.Cacheable {
					f.Fatalf("cacheable without a ttl")
				}
				f.Expect("miss", false, aMinute+query, nil)
				f.Expect("hit", false, aMinute+query, nil)
				if x := outside.Explain(f.Via, aMinute+query); !x.Cacheable || len(x.ByAge) == 0 || x.TTL != "1m0s" {
					f.Errorf("explained as\n%s", x)
				}
			})
		}
		for _, tc := range []struct {
			reason keying.Reason
			query  string
		}{
			{keying.VolatileFunction, "SELECT pg_sleep(0)"},
			{keying.VolatileFunction, "SELECT nextval('seq')"},
			{keying.VolatileFunction, "SELECT setseed(0.5)"},
			{keying.VolatileFunction, "SELECT pg_advisory_lock_shared(1)"},
			{keying.VolatileFunction, "SELECT pg_notify('a', 'b')"},
			{keying.VolatileFunction, "SELECT now(), lastval()"},
			{keying.SessionFunction, "SELECT set_config('app.tenant', 'x', false)"},
			{keying.StableFunction, "SELECT current_setting('app.tenant', true)"},
			{keying.StableFunction, "SELECT now(), current_setting('app.tenant', true)"},
			{keying.StableFunction, "SELECT pg_backend_pid()"},
			{keying.StableFunction, "SELECT inet_client_port()"},
			{keying.StableFunction, "SELECT txid_current()"},
			{keying.StableFunction, "SELECT pg_current_snapshot()::text"},
			{keying.WritingFunction, "SELECT writes()"},
			{keying.UserFunction, "SELECT mine()"},
			{keying.UserFunction, "SELECT now(), mine()"},
			{keying.RowSecurity, "SELECT * FROM secret"},
			{keying.RowLock, "SELECT now() FROM users FOR UPDATE"},
			{keying.SystemCatalog, "SELECT setting FROM pg_settings WHERE name = 'app.tenant'"},
			{keying.SystemCatalog, "SELECT name FROM pg_cursors"},
			{keying.SystemCatalog, "SELECT name FROM pg_prepared_statements"},
			{keying.SystemCatalog, "SELECT count(*) FROM pg_stat_xact_user_tables"},
			{keying.SessionKeyword, "SELECT current_schema"},
		} {
			f.Step(tc.query, func(f *harness.Fixture) {
				x := outside.Explain(f.Via, aMinute+tc.query)
				if x.Cacheable || len(x.ByAge) > 0 || strings.Contains(x.String(), "cached by age") {
					f.Errorf("explained as\n%s", x)
				}
				before := inside.Counted(f.DB)
				f.Read(f.Ask, aMinute+tc.query, nil)
				f.Read(f.Ask, aMinute+tc.query, nil)
				if met := harness.Difference(before, inside.Counted(f.DB)); strings.Contains(met, "hit") || strings.Contains(met, "miss") {
					f.Errorf("got a %s", met)
				}
			})
		}
		if n := f.Read(f.Truth, "SELECT count(*) FROM audit", nil); n.String() != "2" {
			f.Errorf("writes() ran %s times, want each of the 2 times that it was called", n)
		}
	})
}

// A table that such a query reads invalidates it as it would any other, and a
// value that says now is excused like a word that does.
func TestAgeIsNoExcuseForTables(t *testing.T) {
	harness.Scenario(t, ageing, func(f *harness.Fixture) {
		const recent = aMinute + "SELECT name FROM users WHERE id = $1 AND now() > '2020-01-01'"
		f.Warm(recent, 1)
		f.Exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		f.Hit(recent, 1)
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss(recent, 1).Is("anna")
		f.Hit(recent, 1)
		f.Exec("ALTER TABLE users ADD COLUMN more int")
		f.Miss(recent, 1)

		const since = "SELECT name FROM users WHERE now() > $1::text::timestamptz AND id = 1"
		f.Bypass(keying.StableFunction, since, "2020-01-01")
		minute := f.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, time.Minute) })
		minute.Warm(since, "2020-01-01")
		minute.Warm("SELECT name FROM users WHERE id = 1 AND $1::timestamptz IS NOT NULL", "yesterday")
		f.Bypass(keying.ClockInput, "SELECT name FROM users WHERE id = 1 AND $1::timestamptz IS NOT NULL", "yesterday")

		v, tx := f.Begin(nil)
		v.Exec("UPDATE users SET name = 'anne' WHERE id = 1")
		v.Runs(keying.InTransactionAfterWrite, recent, 1).Is("anne")
		f.Rollback(tx)
	})
}

// Nobody gets an answer that is older than he asked for, because another one is
// content with less.
func TestTheLimitsOfQueriesAreKeptApart(t *testing.T) {
	harness.Scenario(t, ageing, func(f *harness.Fixture) {
		const clock = "SELECT clock_timestamp()"
		ask := func(ttl time.Duration, want string) {
			f.Helper()
			f.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, ttl) }).Expect(want, false, clock, nil)
		}
		ask(time.Hour, "miss")
		ask(time.Minute, "miss")
		ask(time.Hour, "hit")
		ask(time.Minute, "hit")
		ask(50*time.Millisecond, "miss")
		short := f.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, 50*time.Millisecond) })
		f.Until("its end", func() bool {
			before := cachedpg.StatsOf(f.DB).Misses
			short.Read(short.Ask, clock, nil)
			return cachedpg.StatsOf(f.DB).Misses > before
		})
		f.Expect("hit", false, aMinute+clock, nil) // a comment is as good
		f.Runs(keying.VolatileFunction, clock)
	})
}

// Writes leave alone what reads a relation of strategy "ttl", as far as that
// relation is concerned; the transaction that wrote sees what it did.
func TestARelationOfStrategyTTL(t *testing.T) {
	harness.Scenario(t, ageing, func(f *harness.Fixture) {
		v := f.With(viewsTTL)
		if !f.InMemory() {
			f.Live(v.DB)
		}
		old := func(query string, want string, args ...any) {
			f.Helper()
			if r := v.Expect("hit", false, query, args); r.String() != want {
				f.Errorf("%s: got %s, want %s", query, r, want)
			}
		}
		v.Warm(viewsOf, 1)
		v.Warm(allSeen)
		v.Exec("UPDATE views SET n = n + 1 WHERE page = 1")
		f.Past("UPDATE views SET n = n + 1 WHERE page = 1")
		old(viewsOf, "10", 1)
		old(allSeen, "ann 10, bob 20")

		f.Known(viewsOf, 1).Is("12") // who has no such policy is strict, with the same store
		v.Exec("UPDATE views SET n = n + 1 WHERE page = 1")
		f.Miss(viewsOf, 1).Is("13")
		old(viewsOf, "10", 1)

		v.Exec("UPDATE users SET city = 'Rome' WHERE id = 1") // strict, and in the same query
		v.Miss(allSeen)

		tx, err := v.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		in := v.On(tx)
		in.Expect("hit", false, viewsOf, []any{1})
		in.Exec("UPDATE views SET n = 0 WHERE page = 1")
		in.Runs(keying.InTransactionAfterWrite, viewsOf, 1).Is("0")
	})
}

// What a relation of the strategy is made of is not a matter of age.
func TestDDLInvalidatesWhatAgeBounds(t *testing.T) {
	harness.Scenario(t, ageing, func(f *harness.Fixture) {
		v := f.With(viewsTTL)
		v.Warm(viewsOf, 1)
		v.Exec("ALTER TABLE views ADD COLUMN more int")
		v.Miss(viewsOf, 1)
		x := outside.Explain(v, viewsOf, 1)
		if !x.Cacheable || len(x.ByAge) != 1 || !strings.HasSuffix(x.ByAge[0], ".views") || len(x.Reads) != 1 || x.Policy != "ttl" || x.TTL != "1m0s" {
			f.Errorf("explained as\n%s", x)
		}
	})
}

func TestPoliciesWithoutEffectAreTold(t *testing.T) {
	harness.ScenarioOnce(t, ageing, func(f *harness.Fixture) {
		v := f.With("cache_policy=veiws:ttl:1m,seen:off,views:ttl:1m,cache_statement.users:cache-aside:5m,other.users:off")
		v.Fresh("SELECT 1")
		want := []string{
			"cache_policy: veiws: there is no such relation",
			"cache_policy: seen: it is a view; name the tables that it reads",
			"cache_policy: other.users: there is no such relation",
		}
		if got := cachedpg.StatsOf(v.DB).Policies; !slices.Equal(got, want) {
			f.Errorf("got %q", got)
		}
		v.Exec("CREATE TABLE veiws (id int)")
		v.Fresh("SELECT * FROM veiws")
		if got := cachedpg.StatsOf(v.DB).Policies; !slices.Equal(got, want[1:]) {
			f.Errorf("after it was made: got %q", got)
		}
	})
}
