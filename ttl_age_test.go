package cachedpg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// old: the query is answered from the cache, with what may be out of date.
func (v via) old(query string, args ...any) result {
	v.f.Helper()
	return v.expect("hit", false, query, args)
}

// ttl asks with a TTL by context.
func (v via) ttl(d time.Duration) via {
	return v.in(func(ctx context.Context) context.Context { return WithTTL(ctx, d) })
}

const shopping = people + `
	CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL, total int NOT NULL);
	INSERT INTO orders VALUES (1, 1, 10), (2, 2, 20);
	CREATE VIEW spending AS SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id;`

func TestAStrictRelationInTheSameQueryStaysStrict(t *testing.T) {
	scenario(t, shopping, func(f *fixture) {
		aged := f.with("cache_policy=users:ttl:1h")
		for _, query := range []string{
			"SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1 AND u.id = 1",
			"SELECT * FROM spending WHERE name LIKE 'a%'",
			"SELECT name, (SELECT sum(total) FROM orders) FROM users WHERE id = 1",
			"SELECT name, (SELECT total FROM orders WHERE id = 1) FROM users WHERE id = 1",
		} {
			f.step(query, func(f *fixture) {
				aged := f.asking(aged.db)
				before := aged.known(query).String()
				aged.exec("UPDATE users SET name = name || '!' WHERE id = 1")
				aged.old(query).is(before)
				aged.exec("UPDATE orders SET total = total + 1 WHERE id = 1")
				aged.miss(query) // and as pgx reads it
				aged.hit(query)
				f.exec("UPDATE orders SET total = total + 1 WHERE id = 1") // of a DB without the policy
				f.released()
				aged.miss(query)
			})
		}
	})
}

// Of rows that are not there the whole table tells: also of those of a strict
// relation beside one that is not.
func TestAnEmptyResultDependsOnTheStrictRelationAlone(t *testing.T) {
	scenario(t, shopping, func(f *fixture) {
		aged := f.with("cache_policy=users:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = $1 AND u.id = $2"
		aged.known(query, 3, 3).is("")
		aged.exec("INSERT INTO users VALUES (4, 'dan', NULL)")
		aged.old(query, 3, 3).is("")
		aged.exec("INSERT INTO orders VALUES (3, 3, 30)")
		aged.miss(query, 3, 3).is("cid 30")
	})
}

// Who gives a TTL to one of two relations must not get what another has stored who
// gives it to the other.
func TestPoliciesThatDifferHaveEntriesOfTheirOwn(t *testing.T) {
	scenario(t, shopping, func(f *fixture) {
		users, orders := f.with("cache_policy=users:ttl:1h"), f.with("cache_policy=orders:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1 AND u.id = 1"
		users.known(query)
		users.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		users.old(query).is("ann 10")
		orders.miss(query).is("anna 10")
		f.miss(query).is("anna 10")
		f.hit(query)
	})
}

// A commit that runs beside the SELECT of a fill kills the entry by the strict
// relation, and leaves what only the age bounds as old as it is allowed to be.
func TestAWriteDuringTheFillOfAnAgedResult(t *testing.T) {
	scenario(t, shopping, func(f *fixture) {
		var meanwhile atomic.Pointer[string]
		aged := f.slowed(func() {
			if sql := meanwhile.Swap(nil); sql != nil {
				f.exec(*sql)
			}
		}, "cache_policy=users:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = $1"
		aged.fresh("SELECT 1")
		strict := "UPDATE orders SET total = 11 WHERE id = 1"
		meanwhile.Store(&strict)
		aged.expect("miss", false, query, []any{1})
		aged.miss(query, 1).is("ann 11")
		aged.hit(query, 1)
		loose := "UPDATE users SET name = 'bert' WHERE id = 2"
		meanwhile.Store(&loose)
		aged.expect("miss", false, query, []any{2})
		aged.old(query, 2).is("bob 20")
	})
}

func TestAReaderNeverGetsAnOlderAnswerThanItAsksFor(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		aged := f.with("cache_policy=users:ttl:1h")
		aged.known(userByID, 1)
		f.past("UPDATE users SET name = 'anna' WHERE id = 1")
		aged.ttl(time.Minute).miss(userByID, 1).is("1 anna Oslo")
		aged.ttl(time.Minute).hit(userByID, 1)
		aged.hit("/* cachedpg: ttl=60s */ "+userByID, 1) // a comment is as good
		aged.ttl(2*time.Hour).old(userByID, 1).is("1 ann Oslo")
		aged.ttl(1<<63-1).old(userByID, 1).is("1 ann Oslo") // no longer than the policy

		short := aged.ttl(3 * time.Millisecond)
		short.expect("", false, userByID, []any{1})
		f.past("UPDATE users SET name = 'ann' WHERE id = 1")
		time.Sleep(4 * time.Millisecond)
		short.expect("miss", true, userByID, []any{1})

		const at = "SELECT name, now() >= 'epoch' FROM users WHERE id = $1"
		f.ttl(time.Hour).known(at, 1)
		f.ttl(time.Minute).miss(at, 1)
	})
}

// lateStore is a store that Fill reaches late: it counts the TTL from then.
type lateStore struct{ *store.Memory }

func (s *lateStore) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, _ time.Duration) error {
	return s.Memory.Fill(ctx, key, tags, stamps, entry, time.Hour)
}

func TestTheReaderJudgesTheAgeToo(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		aged := f.slowed(func() {}, "cache_policy=users:ttl:5ms")
		aged.fresh("SELECT 1")
		sp := connectorOf(aged.db).space()
		sp.store = &lateStore{sp.store.(*store.Memory)}
		aged.miss(userByID, 1)
		f.past("UPDATE users SET name = 'anna' WHERE id = 1")
		time.Sleep(6 * time.Millisecond)
		tx, err := aged.db.BeginTx(f.ctx, nil) // where nothing is refreshed early
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		aged.on(tx).miss(userByID, 1).is("1 anna Oslo")
	})
}

// The age counts from before the SELECT, and jitter only shortens a life.
func TestTheAgeCountsFromBeforeTheSelect(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		slow := f.slowed(func() { time.Sleep(20 * time.Millisecond) }, "cache_policy=users:ttl:10ms")
		slow.miss(userByID, 1)
		if s := StatsOf(slow.db); s.Entries != 0 {
			f.Errorf("%d entries after a SELECT that took longer than its result may live", s.Entries)
		}
		aged := f.with("cache_policy=users:ttl:1m")
		lives := make(map[time.Duration]bool)
		for id := range 20 {
			before := time.Now()
			aged.expect("miss", false, userByID, []any{100 + id})
			life := aged.entryOf(userByID, 100+id).Expires.Sub(store.MomentOf(before))
			if life > time.Minute+time.Since(before) || life < 54*time.Second {
				f.Errorf("got a life of %v, want between 54s and 1m", life)
			}
			lives[life.Round(time.Second)] = true
		}
		if len(lives) < 2 {
			f.Errorf("20 entries end at one time: %v", lives)
		}
	})
}

// entryOf is the entry of a query that is cached.
func (v via) entryOf(query string, args ...any) (entry *store.Entry) {
	v.f.Helper()
	conn := v.f.conn(v.db)
	defer conn.Close()
	err := conn.Raw(func(driverConn any) error {
		c := driverConn.(*Conn)
		var named []driver.NamedValue
		for i, a := range args {
			named = append(named, driver.NamedValue{Ordinal: i + 1, Value: a})
		}
		q, err := c.newCall(v.f.ctx, query, named)
		if err == nil {
			err = c.plan(v.f.ctx, &q)
		}
		if err != nil {
			return err
		}
		l, _ := c.lookup(v.f.ctx, &q)
		entry, _, err = q.space.lookup(v.f.ctx, l.key, l.tags, make([]store.Stamp, len(l.tags)))
		return err
	})
	if err != nil || entry == nil {
		v.f.Fatalf("%s: no entry: %v", query, err)
	}
	return entry
}

// A result that is asked for all the time is there all the time, and never older.
func TestAnAgedResultIsRefreshedEarly(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		hot := f.slowed(func() { time.Sleep(5 * time.Millisecond) }, "cache_policy=users:ttl:100ms")
		hot.expect("miss", false, userByID, []any{1})
		before := StatsOf(hot.db)
		f.until("an early refresh", func() bool {
			hot.read(hot.ask, userByID, []any{1})
			return StatsOf(hot.db).Refreshed > before.Refreshed
		})
	})
}

// slowed opens a DB of another process whose SELECTs, once PostgreSQL has them, wait for what f does.
func (f *fixture) slowed(pause func(), keys ...string) via {
	f.Helper()
	c, err := (&Driver{}).OpenConnector(withKeys(withKeys(f.dsn, f.keys), keys))
	if err != nil {
		f.Fatal(err)
	}
	d := c.(*connector)
	if len(f.keys) == 0 && !slices.Contains(keys, "cache_policy=users:ttl:1h") {
		d.process = "slowed " + rand.Text()
	}
	config, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	d.connect = func(ctx context.Context, _ *link) (inner, error) {
		in, err := dialPgx(ctx, stdlib.GetConnector(*config))
		if err != nil {
			return nil, err
		}
		return &slowInner{in.(*pgxInner), pause}, nil
	}
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return f.asking(db)
}

type slowInner struct {
	*pgxInner
	pause func()
}

func (in *slowInner) read(ctx context.Context, q *call) (wireRows, error) {
	rows, err := in.pgxInner.read(ctx, q)
	in.pause()
	return rows, err
}

func TestInvalidateReachesATTLRelation(t *testing.T) {
	scenario(t, shopping, func(f *fixture) {
		aged := f.with("cache_policy=users:ttl:1h")
		aged.known("SELECT name FROM users WHERE id = 1")
		f.past("UPDATE users SET name = 'x' WHERE id = 1")
		if err := Invalidate(f.ctx, aged.db, "users"); err != nil {
			f.Fatal(err)
		}
		aged.miss("SELECT name FROM users WHERE id = 1").is("x")
		aged.known("SELECT name FROM users WHERE id = 1")
		aged.known("SELECT total FROM orders WHERE id = 1")
		if err := Invalidate(f.ctx, aged.db, "orders"); err != nil {
			f.Fatal(err)
		}
		aged.hit("SELECT name FROM users WHERE id = 1") // which has to do with orders nothing
		aged.miss("SELECT total FROM orders WHERE id = 1")
	})
}

// A foreign table changes where nobody sees it: whoever gives it a TTL accepts that.
func TestAForeignTableWithAPolicyIsCachedByAge(t *testing.T) {
	const setup = people + `
		CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA pg_catalog; DROP SERVER IF EXISTS files CASCADE;
		CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
		CREATE FOREIGN TABLE version (v text) SERVER files OPTIONS (filename 'PG_VERSION');
		CREATE UNLOGGED TABLE fast (id int)`
	scenario(t, setup, func(f *fixture) {
		aged := f.with("cache_policy=version:ttl:1h,fast:ttl:1h")
		aged.miss("SELECT v FROM version")
		aged.old("SELECT v FROM version")
		aged.miss("SELECT * FROM fast")
		aged.old("SELECT * FROM fast")
		aged.bypass(keying.ForeignTable, "SELECT v, random() IS NULL FROM version") // which the policy does not speak of
		aged.bypass(keying.RowLock, "SELECT * FROM fast FOR UPDATE")
		f.bypass(keying.ForeignTable, "SELECT v FROM version")
		f.bypass(keying.UnloggedTable, "SELECT * FROM fast")
		f.ttl(time.Hour).miss("SELECT v FROM version")
		f.ttl(time.Hour).miss("SELECT * FROM fast")
		f.exec("INSERT INTO fast VALUES (1)") // only the crash is excused
		f.ttl(time.Hour).miss("SELECT * FROM fast").is("1")
	})
}

func TestAHintThatIsNotUnderstoodIsTold(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		for hint, want := range map[string]string{
			"ttl=0": "must be positive", "ttl=0s": "must be positive", "ttl=-5s": "must be positive", "ttl=5": "not a duration", "ttl=": "not a duration",
			"ttl=9999999999h": "not a duration", "ttl=5s ttl=6s": "given twice", "ttl": "use bypass or ttl=30s", "tll=5s": "unknown hint",
			"ttl=1000000h": "", "ttl=5s": "", "ttl=1ns": "", "ttl=5s ttl=5s": "",
		} {
			query := "/* cachedpg: " + hint + " */ SELECT name FROM users"
			x := f.explain(query)
			if notes := strings.Join(x.Notes, " "); !strings.Contains(notes, want) || want == "" && notes != "" || x.Cacheable != (want == "") {
				f.Errorf("%s: cacheable %v, notes %q, want %q", hint, x.Cacheable, notes, want)
			}
			if want != "" {
				f.bypass(keying.HintBypass, query)
			}
		}
		for ttl, want := range map[time.Duration]string{1<<63 - 1: "1h0m0s", time.Nanosecond: "1ns"} {
			if x := f.ttl(ttl).explain("SELECT now()"); !x.Cacheable || x.TTL != want {
				f.Errorf("WithTTL %v: cacheable %v, for %s, want %s", ttl, x.Cacheable, x.TTL, want)
			}
		}
		for _, ttl := range []time.Duration{0, -1, -1 << 63} {
			f.ttl(ttl).bypass(keying.ContextBypass, userByID, 1)
		}
	})
}

func TestExplainNamesAllThatIsByAgeOnly(t *testing.T) {
	scenarioOnce(t, shopping, func(f *fixture) {
		aged := f.with("cache_policy=users:ttl:1h")
		const query = "SELECT name, random(), $1::date FROM users WHERE current_date > 'epoch'"
		want := []string{"volatile-function (random)", "clock-keyword (current_date)", "clock-input", "table cache_statement.users"}
		if x := aged.ttl(time.Minute).explain(query, "today"); !slices.Equal(x.ByAge, want) || x.TTL != "1m0s" {
			f.Errorf("got %q for %s, want %q", x.ByAge, x.TTL, want)
		}
		s, conn := f.session()
		s.exec("BEGIN")
		x := s.explainOn(conn, "/* cachedpg: ttl=5s */ SELECT now()")
		if x.Cacheable || len(x.Notes) != 1 || !strings.HasPrefix(x.Notes[0], "In a transaction") {
			f.Errorf("in a transaction:\n%s", x)
		}
		s.exec("ROLLBACK")
	})
}
