package core

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/store"
)

// old: the query is answered from the cache, with what may be out of date.
func old(v harness.Via, query string, args ...any) harness.Result {
	v.F.Helper()
	return v.Expect("hit", false, query, args)
}

const shopping = harness.People + `
	CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL, total int NOT NULL);
	INSERT INTO orders VALUES (1, 1, 10), (2, 2, 20);
	CREATE VIEW spending AS SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id;`

// A commit that runs beside the SELECT of a fill kills the entry by the strict
// relation, and leaves what only the age bounds as old as it is allowed to be.
func TestAWriteDuringTheFillOfAnAgedResult(t *testing.T) {
	harness.Scenario(t, shopping, func(f *harness.Fixture) {
		var meanwhile atomic.Pointer[string]
		aged := slowed(f, func() {
			if sql := meanwhile.Swap(nil); sql != nil {
				f.Exec(*sql)
			}
		}, "cache_policy=users:ttl:1h")
		const query = "SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = $1"
		aged.Fresh("SELECT 1")
		strict := "UPDATE orders SET total = 11 WHERE id = 1"
		meanwhile.Store(&strict)
		aged.Expect("miss", false, query, []any{1})
		aged.Miss(query, 1).Is("ann 11")
		aged.Hit(query, 1)
		loose := "UPDATE users SET name = 'bert' WHERE id = 2"
		meanwhile.Store(&loose)
		aged.Expect("miss", false, query, []any{2})
		old(aged, query, 2).Is("bob 20")
	})
}

// lateStore is a store that Fill reaches late: it counts the TTL from then.
type lateStore struct{ *store.Memory }

func (s *lateStore) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, _ time.Duration) error {
	return s.Memory.Fill(ctx, key, tags, stamps, entry, time.Hour)
}

func TestTheReaderJudgesTheAgeToo(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		aged := slowed(f, func() {}, "cache_policy=users:ttl:5ms")
		aged.Fresh("SELECT 1")
		sp := dbOf(aged.DB).space()
		sp.Store = &lateStore{sp.Store.(*store.Memory)}
		aged.Miss(harness.UserByID, 1)
		f.Past("UPDATE users SET name = 'anna' WHERE id = 1")
		time.Sleep(6 * time.Millisecond)
		tx, err := aged.DB.BeginTx(f.Ctx, nil) // where nothing is refreshed early
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		aged.On(tx).Miss(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// The age counts from before the SELECT, and jitter only shortens a life.
func TestTheAgeCountsFromBeforeTheSelect(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		slow := slowed(f, func() { time.Sleep(20 * time.Millisecond) }, "cache_policy=users:ttl:10ms")
		slow.Miss(harness.UserByID, 1)
		if s := statsOf(slow.DB); s.Memory.Entries != 0 {
			f.Errorf("%d entries after a SELECT that took longer than its result may live", s.Memory.Entries)
		}
		aged := f.With("cache_policy=users:ttl:1m")
		lives := make(map[time.Duration]bool)
		for id := range 20 {
			before := time.Now()
			aged.Expect("miss", false, harness.UserByID, []any{100 + id})
			life := entryOf(aged, harness.UserByID, 100+id).Expires.Sub(store.MomentOf(before))
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
func entryOf(v harness.Via, query string, args ...any) (entry *store.Entry) {
	v.F.Helper()
	conn := v.F.Conn(v.DB)
	defer conn.Close()
	err := conn.Raw(func(driverConn any) error {
		c := connOf(driverConn)
		var named []driver.NamedValue
		for i, a := range args {
			named = append(named, driver.NamedValue{Ordinal: i + 1, Value: a})
		}
		q, err := c.newCall(v.F.Ctx, query, named)
		if err == nil {
			err = c.plan(v.F.Ctx, &q)
		}
		if err != nil {
			return err
		}
		l, _ := c.lookup(v.F.Ctx, &q)
		entry, _, err = q.space.Lookup(v.F.Ctx, l.key, l.tags, make([]store.Stamp, len(l.tags)))
		return err
	})
	if err != nil || entry == nil {
		v.F.Fatalf("%s: no entry: %v", query, err)
	}
	return entry
}

// A result that is asked for all the time is there all the time, and never older.
func TestAnAgedResultIsRefreshedEarly(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		hot := slowed(f, func() { time.Sleep(5 * time.Millisecond) }, "cache_policy=users:ttl:100ms")
		hot.Expect("miss", false, harness.UserByID, []any{1})
		before := statsOf(hot.DB)
		f.Until("an early refresh", func() bool {
			hot.Read(hot.Ask, harness.UserByID, []any{1})
			return statsOf(hot.DB).Refreshed > before.Refreshed
		})
	})
}

// slowed opens a DB of another process whose SELECTs, once PostgreSQL has them, wait for what f does.
func slowed(f *harness.Fixture, pause func(), keys ...string) harness.Via {
	f.Helper()
	c := inside.Face(opened(f, harness.WithKeys(harness.WithKeys(f.DSN, f.Keys), keys)))
	d := dbOf(c)
	if len(f.Keys) == 0 && !slices.Contains(keys, "cache_policy=users:ttl:1h") {
		d.Process = "slowed " + rand.Text()
	}
	config, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	d.connect = func(ctx context.Context, _ *link) (backend.Conn, error) {
		in, err := dialPgx(ctx, stdlib.GetConnector(*config))
		if err != nil {
			return nil, err
		}
		return &slowInner{in.(*backend.Pgx), pause}, nil
	}
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return f.Asking(db)
}

type slowInner struct {
	*backend.Pgx
	pause func()
}

func (in *slowInner) Read(ctx context.Context, q backend.Query) (backend.Rows, error) {
	rows, err := in.Pgx.Read(ctx, q)
	in.pause()
	return rows, err
}
