package through

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/store"
)

// A SELECT that waits for a lock, or for a slow disk, is ended by PostgreSQL.
func TestARefillHasATimeLimit(t *testing.T) {
	const setup = harness.People + "CREATE TABLE cities (name text PRIMARY KEY)"
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		v := openThrough(f)
		const joined = "SELECT count(*) FROM users JOIN cities ON cities.name = city"
		on, check := harness.Pin(v)
		v.Known(harness.UserByID, 1)
		v.Known(joined)
		tx, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("LOCK TABLE cities"); err != nil {
			f.Fatal(err)
		}
		before, begin := cachedpg.StatsOf(v.DB), time.Now()
		on.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		if took := time.Since(begin); took < inside.RefillTime { // and no longer than the lock, which is held
			f.Errorf("the commit took %v", took)
		}
		refills(v, before, 0, 1, 1)
		check()
		v.Miss(harness.UserByID, 1).Is("1 ann Bergen")
		f.Rollback(tx)
		v.Miss(joined)
	})
}

// Once the caller's context has ended nothing more is begun, and what has begun is
// finished: the commit and its connection are as without.
func TestAContextThatEndsDuringARefill(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, v, _ harness.Via) {
		v.Known(harness.UserByID, 1)
		g := gateStore(v)
		on, check := harness.Pin(v)
		for _, at := range []string{"before lookup", "after lookup", "before fill", "after fill"} {
			v.Known(harness.UserByID, 1)
			v.Known("SELECT count(*) FROM users WHERE city = 'x'")
			ctx, cancel := context.WithCancel(f.Ctx)
			g.next(at, cancel)
			before := cachedpg.StatsOf(v.DB)
			on.In(func(context.Context) context.Context { return cachedpg.WithBypass(ctx) }).Exec(setCity, at)
			refills(v, before, 1, 1, 0)
			v.Fresh(harness.UserByID, 1)
		}
		check()
	})
}

// An entry keeps the life that its reader has asked for, and one that has expired
// is not brought back.
func TestARefillKeepsTheTTLOfTheEntry(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		v.Known(harness.UserByID, 2)
		short := v.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, 300*time.Millisecond) })
		short.Known(harness.UserByID, 1)
		before := cachedpg.StatsOf(v.DB)
		v.Exec(setCity, "one")
		refills(v, before, 1, 0, 0)
		left := func() time.Duration {
			expires, ok := inside.Expires(v.DB, harness.UserByID, "1")
			if !ok {
				return time.Hour
			}
			return expires.Sub(store.Now())
		}
		if d := left(); d > 300*time.Millisecond {
			f.Errorf("it lives for %v more", d)
		}
		f.Until("the entry to expire", func() bool { return left() < 0 })
		before = cachedpg.StatsOf(v.DB)
		v.Exec(setCity, "two")
		v.Miss(harness.UserByID, 1)
		refills(v, before, 0, 0, 0)
	})
}

// What nobody reads any more is not read for ever.
func TestAResultThatNobodyReadsIsGivenUp(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		v.Known(harness.UserByID, 1)
		before := cachedpg.StatsOf(v.DB)
		for range inside.MaxUnread + 5 {
			v.Exec("UPDATE users SET city = city || '!' WHERE id = 1")
		}
		refills(v, before, inside.MaxUnread+1, 0, 0)
		v.Miss(harness.UserByID, 1)
		before = cachedpg.StatsOf(v.DB)
		for range inside.MaxUnread + 5 {
			v.Exec("UPDATE users SET city = city || '!' WHERE id = 1")
			v.Hit(harness.UserByID, 1)
		}
		refills(v, before, inside.MaxUnread+5, 0, 0)
	})
}

func TestExplainNamesWriteThrough(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+"CREATE TABLE pets (id int PRIMARY KEY); CREATE VIEW named AS SELECT id, name FROM users", func(f *harness.Fixture) {
		db := f.With(usersThrough, "cache_refill_max=3").DB
		for query, want := range map[string][2]string{
			harness.UserByID:                     {"write-through", ""},
			"SELECT name FROM named":             {"write-through", ""},
			"SELECT * FROM pets":                 {"cache-aside", ""},
			"DELETE FROM pets":                   {"cache-aside", ""},
			"DELETE FROM users WHERE id = $1":    {"write-through", "at most 3 results"},
			"UPDATE named SET name = 'x'":        {"write-through", "cache_statement.users"},
			"ALTER TABLE users ADD column x int": {"cache-aside", ""},
		} {
			x, err := cachedpg.Explain(f.Ctx, db, query)
			if err != nil {
				f.Fatal(err)
			}
			notes := strings.Join(x.Notes, " ")
			if x.Policy != want[0] || !strings.Contains(notes, want[1]) || want[1] == "" && strings.Contains(notes, "read again, at most") {
				f.Errorf("%s: policy %s, notes %q; want %q", query, x.Policy, notes, want)
			}
		}
	})
}
