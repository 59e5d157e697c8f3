package session

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// What an application may ask for, by context or by comment.
func TestHints(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		past := f.In(cachedpg.WithBypass)
		past.Bypass(keying.ContextBypass, harness.UserByID, 1)
		past.Bypass(keying.ContextBypass, harness.UserByID, 2)
		f.Miss(harness.UserByID, 2) // a bypass has stored nothing
		past.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo") // a write invalidates as always

		f.Bypass(keying.HintBypass, "/* cachedpg: bypass */ "+harness.UserByID, 1)
		f.Bypass(keying.HintBypass, harness.UserByID+" /* cachedpg: bypass */", 1)
		f.Hit("/* of the tracer: id=7 */ "+harness.UserByID, 1)
		f.Hit("/* cachedpg: ttl=1h */ "+harness.UserByID, 1)
		f.Hit(harness.UserByID+" -- cachedpg is not meant here\n", 1)

		short := f.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, time.Millisecond) })
		short.Miss(harness.UserByID, 3)
		time.Sleep(2 * time.Millisecond)
		f.Miss(harness.UserByID, 3)
		f.Hit(harness.UserByID, 3)
		f.Miss("/* cachedpg: ttl=1ms */ SELECT name FROM users ORDER BY id")
		time.Sleep(2 * time.Millisecond)
		f.Miss("SELECT name FROM users ORDER BY id")
		f.Hit("SELECT name FROM users ORDER BY id")
		for _, ttl := range []time.Duration{0, -1} {
			f.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, ttl) }).Bypass(keying.ContextBypass, harness.UserByID, 3)
		}

		// A hint that cannot be read bypasses: it meant something.
		for _, hint := range []string{"ttl=soon", "ttl=-1s", "no-such-hint", "ttl"} {
			f.Bypass(keying.HintBypass, "/* cachedpg: "+hint+" */ "+harness.UserByID, 1)
		}
		// What looks like a hint inside a value is a value.
		f.Warm("SELECT '/* cachedpg: bypass */' FROM users WHERE id = 1")
		f.Exec("/* cachedpg: bypass */ UPDATE users SET name = 'x' WHERE id = 1")
		f.Miss(harness.UserByID, 1).Is("1 x Oslo")
	})
}

func TestEntriesExpire(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		short := f.With("cache_ttl=1ms")
		short.Miss(harness.UserByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.Miss(harness.UserByID, 1)
		// The age of an entry counts, and not who asks.
		time.Sleep(2 * time.Millisecond)
		f.Warm(harness.UserByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.Hit(harness.UserByID, 1)
		if f.InMemory() && cachedpg.StatsOf(f.DB).Expirations == 0 {
			f.Error("no expiration was counted")
		}
	})
}

func TestPolicies(t *testing.T) {
	harness.Scenario(t, harness.People+"CREATE TABLE log (line text); CREATE TABLE news (line text); CREATE VIEW lines AS SELECT line FROM log", func(f *harness.Fixture) {
		v := f.With("cache_policy=log:off,news:cache-aside:1ms,nowhere:off")
		v.Warm(harness.UserByID, 1)
		v.Bypass(keying.PolicyOff, "SELECT * FROM log")
		v.Bypass(keying.PolicyOff, "SELECT * FROM lines")
		v.Bypass(keying.PolicyOff, "SELECT 1 FROM users, log")
		v.Bypass(keying.PolicyOff, "SELECT 1 FROM users WHERE EXISTS (SELECT FROM log)")
		for range 2 {
			v.Miss("SELECT 1 FROM users, news")
			time.Sleep(2 * time.Millisecond)
		}
		// Of one DB; the write of such a table still tells the others.
		f.Warm("SELECT * FROM log")
		v.Exec("INSERT INTO log VALUES ('a')")
		f.Miss("SELECT * FROM log").Is("a")
	})
}

func TestTheCacheTurnedOff(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		off := f.With("cache_store=off")
		for range 2 {
			off.Bypass(keying.CacheOff, harness.UserByID, 1)
		}
		f.Warm(harness.UserByID, 1)
		off.Bypass(keying.CacheOff, harness.UserByID, 1)
		off.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// For writes that went past the driver.
func TestInvalidate(t *testing.T) {
	harness.Scenario(t, harness.People+`CREATE TABLE colours (name text); CREATE VIEW names AS SELECT name FROM users;
		CREATE TABLE "Odd ""name" (x int); INSERT INTO "Odd ""name" VALUES (1)`, func(f *harness.Fixture) {
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Errorf("before anything is known: %v", err)
		}
		const names, colours, odd = "SELECT name FROM names ORDER BY name", "SELECT name FROM colours", `SELECT x FROM "Odd ""name"`
		warm := func() {
			f.Helper()
			f.Known(harness.UserByID, 1)
			f.Known(names)
			f.Known(colours)
			f.Known(odd)
		}
		invalidate := func(relations ...string) {
			f.Helper()
			if err := cachedpg.Invalidate(f.Ctx, f.DB, relations...); err != nil {
				f.Errorf("Invalidate %q: %v", relations, err)
			}
		}
		warm()
		f.Past("UPDATE users SET name = 'past'")
		f.Past("INSERT INTO colours VALUES ('red')")
		invalidate("users")
		f.Miss(harness.UserByID, 1)
		f.Miss(names)
		hitOld(f, colours, "")
		invalidate("colours", "users")
		f.Miss(colours).Is("red")
		f.Miss(names)

		warm()
		invalidate("Users", "names", `"Odd ""name"`) // folded as SQL is; a view is its tables
		f.Miss(names)
		f.Miss(odd)

		warm()
		var schema string
		if err := f.Plain.QueryRowContext(f.Ctx, "SELECT current_schema").Scan(&schema); err != nil {
			f.Fatal(err)
		}
		invalidate(schema + ".colours")
		f.Miss(colours)
		f.Hit(names)

		warm()
		f.Past("ALTER TABLE colours ADD COLUMN rgb int")
		invalidate()
		f.Fresh(harness.UserByID, 1)
		f.Known("SELECT name, rgb FROM colours")

		warm()
		for _, name := range []string{"nowhere", "", "users; DROP TABLE users", "a b", "users, colours", "pg_temp.users", "'users'"} {
			if err := cachedpg.Invalidate(f.Ctx, f.DB, name); err == nil {
				f.Errorf("Invalidate(%q): no error", name)
			}
		}
		f.Hit(harness.UserByID, 1)
		if err := cachedpg.Invalidate(f.Ctx, f.DB, "users", "nowhere"); err == nil {
			f.Error("one of two is unknown: no error")
		}
	})
}

// hitOld: a hit that plain pgx would not give, because something was written
// past the driver.
func hitOld(f *harness.Fixture, query, want string) {
	f.Helper()
	f.Expect("hit", false, query, nil).Is(want)
}

// The counters add up, whatever happens.
func TestStats(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		if s := cachedpg.StatsOf(f.DB); s.Lookups != 0 || s.Bypassed != 0 || s.Entries != 0 {
			f.Errorf("before anything: %+v", s)
		}
		f.Warm(harness.UserByID, 1)
		f.Warm(harness.UserByID, 2)
		f.Miss("SELECT name FROM users WHERE id = 1")
		f.Hit("SELECT name FROM users WHERE id = 1")
		f.Runs(keying.ClockKeyword, "SELECT current_timestamp")
		f.Exec("UPDATE users SET name = 'x' WHERE id = 1")
		f.Miss(harness.UserByID, 1)
		f.Fails("SELECT 1 / (id - 1) FROM users")
		s := cachedpg.StatsOf(f.DB)
		if s.Lookups != 8 || s.Hits != 3 || s.Misses != 5 || s.Stale != 1 || s.Fills != 4 || f.InMemory() && s.Entries != 3 {
			f.Errorf("got %d lookups, %d hits, %d misses, %d stale, %d fills, %d entries, want 8, 3, 5, 1, 4, 3",
				s.Lookups, s.Hits, s.Misses, s.Stale, s.Fills, s.Entries)
		}
		if s.Lookups != s.Hits+s.Misses || s.Misses < s.Fills+s.Joined {
			f.Errorf("counters that do not add up: %+v", s)
		}
		var bypassed uint64
		for reason, n := range s.Bypasses {
			if bypassed += n; reason != keying.ClockKeyword.String() || n != 1 {
				f.Errorf("%d times bypassed for %q", n, reason)
			}
		}
		if ratio := s.HitRatio(); s.Others != 1 || ratio != 3.0/9 {
			f.Errorf("%d others, hit ratio %v, want 1 and a third", s.Others, ratio)
		}
		f.Runs(keying.NotRead, "INSERT INTO users VALUES (7, 'gil') RETURNING id") // by Query, and counted as by Exec
		if now := cachedpg.StatsOf(f.DB); now.Others != 2 || now.HitRatio() != s.HitRatio() {
			f.Errorf("%d others, hit ratio %v, want 2 and a third", now.Others, now.HitRatio())
		}
		if bypassed != s.Bypassed || s.Saved <= 0 || f.InMemory() && (s.Bytes <= 0 || s.Tags == 0) {
			f.Errorf("bypassed %d of %d, saved %v, %d bytes, %d tags", bypassed, s.Bypassed, s.Saved, s.Bytes, s.Tags)
		}
		found := false
		for _, st := range s.Statements {
			if strings.Contains(st.Text, "name from users where id") {
				found = true
				if st.Misses == 0 || st.Hits == 0 || strings.Contains(st.Text, "= 1") {
					f.Errorf("statement %+v", st)
				}
			}
		}
		if !found {
			f.Errorf("the statement is not among %+v", s.Statements)
		}
		if err := f.DB.Close(); err != nil {
			f.Fatal(err)
		}
		if s := cachedpg.StatsOf(f.DB); s.Hits != 3 || s.Entries != 0 {
			f.Errorf("after Close: %d hits, %d entries, want 3 and 0", s.Hits, s.Entries)
		}
	})
}
