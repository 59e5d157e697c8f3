package outages

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
)

// The recipes of docs/rollout.md, each under its name there. Pods are played by
// processes; one on pgx by f.plain.

// mixed has each writer change the row that all readers look at, and no reader get
// anything but the truth.
func mixed(f *harness.Fixture, round string, writers, readers []harness.Via) {
	f.Helper()
	for i, w := range writers {
		city := fmt.Sprint(round, " ", i)
		w.Exec("UPDATE users SET city = $1 WHERE id = 1", city)
		for range 2 {
			for _, r := range readers {
				r.Fresh(harness.UserByID, 1).Is("1 ann " + city)
			}
		}
	}
}

// hits is the number of hits of all.
func hits(of ...harness.Via) (n uint64) {
	for _, v := range of {
		n += cachedpg.StatsOf(v.DB).Hits
	}
	return n
}

func stop(v harness.Via) {
	v.F.Helper()
	v.Released()
	if err := v.DB.Close(); err != nil {
		v.F.Error(err)
	}
}

// rolls is a fixture in which no process of the driver runs yet; redis is the URL of one.
func rolls(t *testing.T, story func(f *harness.Fixture, redis string)) {
	t.Helper()
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	story(f, "cache_store="+pgtest.Redis(t))
}

func TestRolloutFirst(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		pgx := harness.Via{F: f, DB: f.Plain, Ask: f.Plain, Truth: f.Plain}
		a, b := f.Process("a", redis, "cache_mode=write-only"), f.Process("b", redis, "cache_mode=write-only")
		mixed(f, "with pgx", []harness.Via{pgx, a, b}, []harness.Via{a, b})
		if n := hits(a, b); n != 0 {
			f.Fatalf("%d hits while a pod on pgx writes", n)
		}
		c := f.Process("c", redis)
		c.Caches(harness.UserByID, 1)
		mixed(f, "marked", []harness.Via{a, c, b}, []harness.Via{a, b, c})
		stop(a)
		stop(b)
		d := f.Process("d", redis)
		mixed(f, "done", []harness.Via{c, d}, []harness.Via{c, d})
		c.Caches(harness.UserByID, 1)
		d.Hit(harness.UserByID, 1)
	})
}

func TestRolloutFirstInMemory(t *testing.T) {
	rolls(t, func(f *harness.Fixture, _ string) {
		pgx := harness.Via{F: f, DB: f.Plain, Ask: f.Plain, Truth: f.Plain}
		a := f.Beside("a", "cache_mode=off")
		mixed(f, "with pgx", []harness.Via{pgx, a}, []harness.Via{a})
		b := f.Beside("b")
		mixed(f, "replaced", []harness.Via{a, b}, []harness.Via{a, b})
		if n := hits(a, b); n != 0 {
			f.Fatalf("%d hits while another pod writes", n)
		}
		stop(a)
		b.Caches(harness.UserByID, 1)
	})
}

func TestRolloutBack(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		a, b := f.Process("a", redis), f.Process("b", redis)
		a.Caches(harness.UserByID, 1)
		c := f.Process("c", redis, "cache_mode=write-only")
		mixed(f, "marked", []harness.Via{a, b, c}, []harness.Via{a, b, c})
		a.Caches(harness.UserByID, 1)
		stop(a)
		stop(b)
		before := hits(c)
		pgx := harness.Via{F: f, DB: f.Plain, Ask: f.Plain, Truth: f.Plain}
		off := f.Beside("off", "cache_store=off")
		mixed(f, "unmarked", []harness.Via{pgx, c, off}, []harness.Via{c, off})
		if n := hits(c, off) - before; n != 0 {
			f.Fatalf("%d hits while a pod on pgx writes", n)
		}
	})
}

func TestRolloutUpgrade(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		old, alike := f.Process("old", redis), f.Process("alike", redis)
		mixed(f, "one format", []harness.Via{old, alike}, []harness.Via{old, alike})
		old.Caches(harness.UserByID, 1)
		alike.Caches(harness.UserByID, 1)
		stop(alike)

		next := f.Beside("next", redis)
		inside.Build(next.DB, "next")
		mixed(f, "two formats", []harness.Via{next, old}, []harness.Via{old, next})
		outside.Withheld(old, "another format", harness.UserByID, 1)
		outside.Withheld(next, "another format", harness.UserByID, 1)
		stop(old)
		next.Caches(harness.UserByID, 1)
	})
}

func TestRolloutRedis(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		another := "cache_store=" + redistest.Start(f.T).URL()
		memory := f.Beside("memory")
		memory.Caches(harness.UserByID, 1)
		first := f.Process("first", redis)
		mixed(f, "from the memory", []harness.Via{first, memory}, []harness.Via{memory, first})
		stop(memory)
		first.Caches(harness.UserByID, 1)

		second := f.Beside("second", another)
		mixed(f, "to another Redis", []harness.Via{second, first}, []harness.Via{first, second})
		outside.Withheld(first, "another Redis", harness.UserByID, 1)
		stop(first)
		second.Caches(harness.UserByID, 1)
	})
}

func TestRolloutRegions(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		told, other := f.Process("told", redis, "cache_external=events"), f.Beside("other", "cache_store="+redistest.Start(f.T).URL())
		told.Caches(harness.UserByID, 1)
		other.Exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		told.Caches(harness.UserByID, 1)
		told.Exec("UPDATE users SET city = 'Bonn' WHERE id = 2")
		outside.Withheld(other, "another Redis", harness.UserByID, 1) // nobody tells it
		told.Released()
		told.Caches(harness.UserByID, 1)
		if err := told.DB.PingContext(f.Ctx); err != nil {
			f.Errorf("Ping of one that is told: %v", err)
		}

		other.Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		origin, err := cachedpg.OriginOf(f.Ctx, told.DB)
		if err != nil {
			f.Fatal(err)
		}
		if err := cachedpg.Apply(f.Ctx, told.DB, invalidation.Event{Source: origin.Source, ID: "1", Time: time.Now(), Tags: harness.Everything}); err != nil {
			f.Fatal(err)
		}
		told.Caches(harness.UserByID, 1).Is("1 ann Rome")

		f.Until("one that is not told, in the same Redis, to differ", func() bool {
			stray := f.Process("stray", redis)
			stray.Fresh(harness.UserByID, 1)
			defer stop(stray)
			return strings.Contains(cachedpg.StatsOf(stray.DB).Peers.Differs, "cache_external")
		})
	})
}

func TestRolloutPolicies(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		const policy = "cache_policy=users:write-behind"
		old, next := f.Process("old", redis), f.Process("next", redis, policy, "cache_mode=write-only")
		old.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		next.Exec("UPDATE users SET city = 'Rome' WHERE id > 1")
		differ := func(v harness.Via) bool {
			if err := v.DB.PingContext(f.Ctx); err != nil {
				f.Fatal(err)
			}
			return strings.Contains(cachedpg.StatsOf(v.DB).Peers.Differs, "cache_policy")
		}
		f.Until("the processes to differ", func() bool { return differ(old) && differ(next) })
		stop(old)
		f.Until("the processes to agree", func() bool { return !differ(next) })
		after := f.Process("after", redis, policy)
		after.Caches(harness.UserByID, 1)
	})
}

func TestRolloutMigrations(t *testing.T) {
	rolls(t, func(f *harness.Fixture, redis string) {
		const all = "SELECT * FROM users WHERE id = 1"
		// Without the statement caches of pgx, which the change breaks as always.
		const mode = "default_query_exec_mode=exec"
		app := f.Process("app", redis, mode)
		app.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		app.Caches(all).Is("1 ann Oslo")
		tool := f.Process("tool", redis, mode, "cache_mode=write-only")
		tool.Exec("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		tool.Released()
		app.Fresh(all).Is("1 ann Oslo 7")
		app.Caches(all)

		f.Past("ALTER TABLE users ADD COLUMN size int DEFAULT 8")
		if err := cachedpg.Invalidate(f.Ctx, tool.DB); err != nil {
			f.Fatal(err)
		}
		app.Fresh(all).Is("1 ann Oslo 7 8")
		app.Caches(all)
		stop(app)
		stop(tool)

		memory := f.Beside("memory", mode)
		memory.Truth = app.Truth
		memory.Caches(all)
		off := f.Beside("off", mode, "cache_mode=off")
		off.Exec("ALTER TABLE users DROP COLUMN size")
		memory.Fresh(all).Is("1 ann Oslo 7")
		stop(off)
		memory.Caches(all).Is("1 ann Oslo 7")
	})
}
