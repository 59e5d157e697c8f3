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
	"github.com/cachedpg/cachedpg/keying"
)

// old: the query is answered from the cache, with what may be out of date.
func old(v harness.Via, query string, args ...any) harness.Result {
	v.F.Helper()
	return v.Expect("hit", false, query, args)
}

// withTTL asks with a TTL by context.
func withTTL(v harness.Via, d time.Duration) harness.Via {
	return v.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, d) })
}

const shopping = harness.People + `
	CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL, total int NOT NULL);
	INSERT INTO orders VALUES (1, 1, 10), (2, 2, 20);
	CREATE VIEW spending AS SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id;`

func TestAStrictRelationInTheSameQueryStaysStrict(t *testing.T) {
	harness.Scenario(t, shopping, func(f *harness.Fixture) {
		aged := f.With("cache_policy=users:ttl:1h")
		for _, query := range []string{
			"SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1 AND u.id = 1",
			"SELECT * FROM spending WHERE name LIKE 'a%'",
			"SELECT name, (SELECT sum(total) FROM orders) FROM users WHERE id = 1",
			"SELECT name, (SELECT total FROM orders WHERE id = 1) FROM users WHERE id = 1",
		} {
			f.Step(query, func(f *harness.Fixture) {
				aged := f.Asking(aged.DB)
				before := aged.Known(query).String()
				aged.Exec("UPDATE users SET name = name || '!' WHERE id = 1")
				old(aged, query).Is(before)
				aged.Exec("UPDATE orders SET total = total + 1 WHERE id = 1")
				aged.Miss(query) // and as pgx reads it
				aged.Hit(query)
				f.Exec("UPDATE orders SET total = total + 1 WHERE id = 1") // of a DB without the policy
				f.Released()
				aged.Miss(query)
			})
		}
	})
}

// Of rows that are not there the whole table tells: also of those of a strict
// relation beside one that is not.
func TestAnEmptyResultDependsOnTheStrictRelationAlone(t *testing.T) {
	harness.Scenario(t, shopping, func(f *harness.Fixture) {
		aged := f.With("cache_policy=users:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = $1 AND u.id = $2"
		aged.Known(query, 3, 3).Is("")
		aged.Exec("INSERT INTO users VALUES (4, 'dan', NULL)")
		old(aged, query, 3, 3).Is("")
		aged.Exec("INSERT INTO orders VALUES (3, 3, 30)")
		aged.Miss(query, 3, 3).Is("cid 30")
	})
}

// Who gives a TTL to one of two relations must not get what another has stored who
// gives it to the other.
func TestPoliciesThatDifferHaveEntriesOfTheirOwn(t *testing.T) {
	harness.Scenario(t, shopping, func(f *harness.Fixture) {
		users, orders := f.With("cache_policy=users:ttl:1h"), f.With("cache_policy=orders:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1 AND u.id = 1"
		users.Known(query)
		users.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		old(users, query).Is("ann 10")
		orders.Miss(query).Is("anna 10")
		f.Miss(query).Is("anna 10")
		f.Hit(query)
	})
}

func TestAReaderNeverGetsAnOlderAnswerThanItAsksFor(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		aged := f.With("cache_policy=users:ttl:1h")
		aged.Known(harness.UserByID, 1)
		f.Past("UPDATE users SET name = 'anna' WHERE id = 1")
		withTTL(aged, time.Minute).Miss(harness.UserByID, 1).Is("1 anna Oslo")
		withTTL(aged, time.Minute).Hit(harness.UserByID, 1)
		aged.Hit("/* cachedpg: ttl=60s */ "+harness.UserByID, 1) // a comment is as good
		old(withTTL(aged, 2*time.Hour), harness.UserByID, 1).Is("1 ann Oslo")
		old(withTTL(aged, 1<<63-1), harness.UserByID, 1).Is("1 ann Oslo") // no longer than the policy

		short := withTTL(aged, 3*time.Millisecond)
		short.Expect("", false, harness.UserByID, []any{1})
		f.Past("UPDATE users SET name = 'ann' WHERE id = 1")
		time.Sleep(4 * time.Millisecond)
		short.Expect("miss", true, harness.UserByID, []any{1})

		const at = "SELECT name, now() >= 'epoch' FROM users WHERE id = $1"
		withTTL(f.Via, time.Hour).Known(at, 1)
		withTTL(f.Via, time.Minute).Miss(at, 1)
	})
}

func TestInvalidateReachesATTLRelation(t *testing.T) {
	harness.Scenario(t, shopping, func(f *harness.Fixture) {
		aged := f.With("cache_policy=users:ttl:1h")
		aged.Known("SELECT name FROM users WHERE id = 1")
		f.Past("UPDATE users SET name = 'x' WHERE id = 1")
		if err := cachedpg.Invalidate(f.Ctx, aged.DB, "users"); err != nil {
			f.Fatal(err)
		}
		aged.Miss("SELECT name FROM users WHERE id = 1").Is("x")
		aged.Known("SELECT name FROM users WHERE id = 1")
		aged.Known("SELECT total FROM orders WHERE id = 1")
		if err := cachedpg.Invalidate(f.Ctx, aged.DB, "orders"); err != nil {
			f.Fatal(err)
		}
		aged.Hit("SELECT name FROM users WHERE id = 1") // which has to do with orders nothing
		aged.Miss("SELECT total FROM orders WHERE id = 1")
	})
}

// A foreign table changes where nobody sees it: whoever gives it a TTL accepts that.
func TestAForeignTableWithAPolicyIsCachedByAge(t *testing.T) {
	const setup = harness.People + `
		CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA pg_catalog; DROP SERVER IF EXISTS files CASCADE;
		CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
		CREATE FOREIGN TABLE version (v text) SERVER files OPTIONS (filename 'PG_VERSION');
		CREATE UNLOGGED TABLE fast (id int)`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		aged := f.With("cache_policy=version:ttl:1h,fast:ttl:1h")
		aged.Miss("SELECT v FROM version")
		old(aged, "SELECT v FROM version")
		aged.Miss("SELECT * FROM fast")
		old(aged, "SELECT * FROM fast")
		aged.Bypass(keying.ForeignTable, "SELECT v, random() IS NULL FROM version") // which the policy does not speak of
		aged.Bypass(keying.RowLock, "SELECT * FROM fast FOR UPDATE")
		f.Bypass(keying.ForeignTable, "SELECT v FROM version")
		f.Bypass(keying.UnloggedTable, "SELECT * FROM fast")
		withTTL(f.Via, time.Hour).Miss("SELECT v FROM version")
		withTTL(f.Via, time.Hour).Miss("SELECT * FROM fast")
		f.Exec("INSERT INTO fast VALUES (1)") // only the crash is excused
		withTTL(f.Via, time.Hour).Miss("SELECT * FROM fast").Is("1")
	})
}

func TestAHintThatIsNotUnderstoodIsTold(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		for hint, want := range map[string]string{
			"ttl=0": "must be positive", "ttl=0s": "must be positive", "ttl=-5s": "must be positive", "ttl=5": "not a duration", "ttl=": "not a duration",
			"ttl=9999999999h": "not a duration", "ttl=5s ttl=6s": "given twice", "ttl": "use bypass or ttl=30s", "tll=5s": "unknown hint",
			"ttl=1000000h": "", "ttl=5s": "", "ttl=1ns": "", "ttl=5s ttl=5s": "",
		} {
			query := "/* cachedpg: " + hint + " */ SELECT name FROM users"
			x := outside.Explain(f.Via, query)
			if notes := strings.Join(x.Notes, " "); !strings.Contains(notes, want) || want == "" && notes != "" || x.Cacheable != (want == "") {
				f.Errorf("%s: cacheable %v, notes %q, want %q", hint, x.Cacheable, notes, want)
			}
			if want != "" {
				f.Bypass(keying.HintBypass, query)
			}
		}
		for ttl, want := range map[time.Duration]string{1<<63 - 1: "1h0m0s", time.Nanosecond: "1ns"} {
			if x := outside.Explain(withTTL(f.Via, ttl), "SELECT now()"); !x.Cacheable || x.TTL != want {
				f.Errorf("WithTTL %v: cacheable %v, for %s, want %s", ttl, x.Cacheable, x.TTL, want)
			}
		}
		for _, ttl := range []time.Duration{0, -1, -1 << 63} {
			withTTL(f.Via, ttl).Bypass(keying.ContextBypass, harness.UserByID, 1)
		}
	})
}

func TestExplainNamesAllThatIsByAgeOnly(t *testing.T) {
	harness.ScenarioOnce(t, shopping, func(f *harness.Fixture) {
		aged := f.With("cache_policy=users:ttl:1h")
		const query = "SELECT name, random(), $1::date FROM users WHERE current_date > 'epoch'"
		want := []string{"volatile-function (random)", "clock-keyword (current_date)", "clock-input", "table cache_statement.users"}
		if x := outside.Explain(withTTL(aged, time.Minute), query, "today"); !slices.Equal(x.ByAge, want) || x.TTL != "1m0s" {
			f.Errorf("got %q for %s, want %q", x.ByAge, x.TTL, want)
		}
		s, conn := f.Session()
		s.Exec("BEGIN")
		x := outside.ExplainOn(s, conn, "/* cachedpg: ttl=5s */ SELECT now()")
		if x.Cacheable || len(x.Notes) != 1 || !strings.HasPrefix(x.Notes[0], "In a transaction") {
			f.Errorf("in a transaction:\n%s", x)
		}
		s.Exec("ROLLBACK")
	})
}
