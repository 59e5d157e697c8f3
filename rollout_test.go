package cachedpg

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
)

// The recipes of docs/rollout.md, each under its name there. Pods are played by
// processes; one on pgx by f.plain.

// mixed has each writer change the row that all readers look at, and no reader get
// anything but the truth.
func (f *fixture) mixed(round string, writers, readers []via) {
	f.Helper()
	for i, w := range writers {
		city := fmt.Sprint(round, " ", i)
		w.exec("UPDATE users SET city = $1 WHERE id = 1", city)
		for range 2 {
			for _, r := range readers {
				r.fresh(userByID, 1).is("1 ann " + city)
			}
		}
	}
}

// hits is the number of hits of all.
func hits(of ...via) (n uint64) {
	for _, v := range of {
		n += StatsOf(v.db).Hits
	}
	return n
}

func (v via) stop() {
	v.f.Helper()
	v.released()
	if err := v.db.Close(); err != nil {
		v.f.Error(err)
	}
}

// rolls is a fixture in which no process of the driver runs yet; redis is the URL of one.
func rolls(t *testing.T, story func(f *fixture, redis string)) {
	t.Helper()
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	story(f, "cache_store="+pgtest.Redis(t))
}

func TestRolloutFirst(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		pgx := via{f: f, db: f.plain, ask: f.plain, truth: f.plain}
		a, b := f.process("a", redis, "cache_mode=write-only"), f.process("b", redis, "cache_mode=write-only")
		f.mixed("with pgx", []via{pgx, a, b}, []via{a, b})
		if n := hits(a, b); n != 0 {
			f.Fatalf("%d hits while a pod on pgx writes", n)
		}
		c := f.process("c", redis)
		c.caches(userByID, 1)
		f.mixed("marked", []via{a, c, b}, []via{a, b, c})
		a.stop()
		b.stop()
		d := f.process("d", redis)
		f.mixed("done", []via{c, d}, []via{c, d})
		c.caches(userByID, 1)
		d.hit(userByID, 1)
	})
}

func TestRolloutFirstInMemory(t *testing.T) {
	rolls(t, func(f *fixture, _ string) {
		pgx := via{f: f, db: f.plain, ask: f.plain, truth: f.plain}
		a := f.beside("a", "cache_mode=off")
		f.mixed("with pgx", []via{pgx, a}, []via{a})
		b := f.beside("b")
		f.mixed("replaced", []via{a, b}, []via{a, b})
		if n := hits(a, b); n != 0 {
			f.Fatalf("%d hits while another pod writes", n)
		}
		a.stop()
		b.caches(userByID, 1)
	})
}

func TestRolloutBack(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		a, b := f.process("a", redis), f.process("b", redis)
		a.caches(userByID, 1)
		c := f.process("c", redis, "cache_mode=write-only")
		f.mixed("marked", []via{a, b, c}, []via{a, b, c})
		a.caches(userByID, 1)
		a.stop()
		b.stop()
		before := hits(c)
		pgx := via{f: f, db: f.plain, ask: f.plain, truth: f.plain}
		off := f.beside("off", "cache_store=off")
		f.mixed("unmarked", []via{pgx, c, off}, []via{c, off})
		if n := hits(c, off) - before; n != 0 {
			f.Fatalf("%d hits while a pod on pgx writes", n)
		}
	})
}

func TestRolloutUpgrade(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		old, alike := f.process("old", redis), f.process("alike", redis)
		f.mixed("one format", []via{old, alike}, []via{old, alike})
		old.caches(userByID, 1)
		alike.caches(userByID, 1)
		alike.stop()

		next := f.beside("next", redis)
		connectorOf(next.db).build = "next"
		f.mixed("two formats", []via{next, old}, []via{old, next})
		old.withheldBy("another format", userByID, 1)
		next.withheldBy("another format", userByID, 1)
		old.stop()
		next.caches(userByID, 1)
	})
}

func TestRolloutRedis(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		another := "cache_store=" + redistest.Start(f.T).URL()
		memory := f.beside("memory")
		memory.caches(userByID, 1)
		first := f.process("first", redis)
		f.mixed("from the memory", []via{first, memory}, []via{memory, first})
		memory.stop()
		first.caches(userByID, 1)

		second := f.beside("second", another)
		f.mixed("to another Redis", []via{second, first}, []via{first, second})
		first.withheldBy("another Redis", userByID, 1)
		first.stop()
		second.caches(userByID, 1)
	})
}

func TestRolloutRegions(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		told, other := f.process("told", redis, "cache_external=events"), f.beside("other", "cache_store="+redistest.Start(f.T).URL())
		told.caches(userByID, 1)
		other.exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		told.caches(userByID, 1)
		told.exec("UPDATE users SET city = 'Bonn' WHERE id = 2")
		other.withheldBy("another Redis", userByID, 1) // nobody tells it
		told.released()
		told.caches(userByID, 1)
		if err := told.db.PingContext(f.ctx); err != nil {
			f.Errorf("Ping of one that is told: %v", err)
		}

		other.exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		origin, err := OriginOf(f.ctx, told.db)
		if err != nil {
			f.Fatal(err)
		}
		if err := Apply(f.ctx, told.db, invalidation.Event{Source: origin.Source, ID: "1", Time: time.Now(), Tags: everything}); err != nil {
			f.Fatal(err)
		}
		told.caches(userByID, 1).is("1 ann Rome")

		f.until("one that is not told, in the same Redis, to differ", func() bool {
			stray := f.process("stray", redis)
			stray.fresh(userByID, 1)
			defer stray.stop()
			return strings.Contains(StatsOf(stray.db).Peers.Differs, "cache_external")
		})
	})
}

func TestRolloutPolicies(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		const policy = "cache_policy=users:write-behind"
		old, next := f.process("old", redis), f.process("next", redis, policy, "cache_mode=write-only")
		old.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		next.exec("UPDATE users SET city = 'Rome' WHERE id > 1")
		differ := func(v via) bool {
			if err := v.db.PingContext(f.ctx); err != nil {
				f.Fatal(err)
			}
			return strings.Contains(StatsOf(v.db).Peers.Differs, "cache_policy")
		}
		f.until("the processes to differ", func() bool { return differ(old) && differ(next) })
		old.stop()
		f.until("the processes to agree", func() bool { return !differ(next) })
		after := f.process("after", redis, policy)
		after.caches(userByID, 1)
	})
}

func TestRolloutMigrations(t *testing.T) {
	rolls(t, func(f *fixture, redis string) {
		const all = "SELECT * FROM users WHERE id = 1"
		// Without the statement caches of pgx, which the change breaks as always.
		const mode = "default_query_exec_mode=exec"
		app := f.process("app", redis, mode)
		app.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		app.caches(all).is("1 ann Oslo")
		tool := f.process("tool", redis, mode, "cache_mode=write-only")
		tool.exec("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		tool.released()
		app.fresh(all).is("1 ann Oslo 7")
		app.caches(all)

		f.past("ALTER TABLE users ADD COLUMN size int DEFAULT 8")
		if err := Invalidate(f.ctx, tool.db); err != nil {
			f.Fatal(err)
		}
		app.fresh(all).is("1 ann Oslo 7 8")
		app.caches(all)
		app.stop()
		tool.stop()

		memory := f.beside("memory", mode)
		memory.truth = app.truth
		memory.caches(all)
		off := f.beside("off", mode, "cache_mode=off")
		off.exec("ALTER TABLE users DROP COLUMN size")
		memory.fresh(all).is("1 ann Oslo 7")
		off.stop()
		memory.caches(all).is("1 ann Oslo 7")
	})
}
