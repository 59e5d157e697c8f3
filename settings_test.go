package cachedpg

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/keying"
)

// What an application may ask for, by context or by comment.
func TestHints(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		past := f.in(WithBypass)
		past.bypass(keying.ContextBypass, userByID, 1)
		past.bypass(keying.ContextBypass, userByID, 2)
		f.miss(userByID, 2) // a bypass has stored nothing
		past.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.miss(userByID, 1).is("1 anna Oslo") // a write invalidates as always

		f.bypass(keying.HintBypass, "/* cachedpg: bypass */ "+userByID, 1)
		f.bypass(keying.HintBypass, userByID+" /* cachedpg: bypass */", 1)
		f.hit("/* of the tracer: id=7 */ "+userByID, 1)
		f.hit("/* cachedpg: ttl=1h */ "+userByID, 1)
		f.hit(userByID+" -- cachedpg is not meant here\n", 1)

		short := f.in(func(ctx context.Context) context.Context { return WithTTL(ctx, time.Millisecond) })
		short.miss(userByID, 3)
		time.Sleep(2 * time.Millisecond)
		f.miss(userByID, 3)
		f.hit(userByID, 3)
		f.miss("/* cachedpg: ttl=1ms */ SELECT name FROM users ORDER BY id")
		time.Sleep(2 * time.Millisecond)
		f.miss("SELECT name FROM users ORDER BY id")
		f.hit("SELECT name FROM users ORDER BY id")
		for _, ttl := range []time.Duration{0, -1} {
			f.in(func(ctx context.Context) context.Context { return WithTTL(ctx, ttl) }).bypass(keying.ContextBypass, userByID, 3)
		}

		// A hint that cannot be read bypasses: it meant something.
		for _, hint := range []string{"ttl=soon", "ttl=-1s", "no-such-hint", "ttl"} {
			f.bypass(keying.HintBypass, "/* cachedpg: "+hint+" */ "+userByID, 1)
		}
		// What looks like a hint inside a value is a value.
		f.warm("SELECT '/* cachedpg: bypass */' FROM users WHERE id = 1")
		f.exec("/* cachedpg: bypass */ UPDATE users SET name = 'x' WHERE id = 1")
		f.miss(userByID, 1).is("1 x Oslo")
	})
}

func TestEntriesExpire(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		short := f.with("cache_ttl=1ms")
		short.miss(userByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.miss(userByID, 1)
		// The age of an entry counts, and not who asks.
		time.Sleep(2 * time.Millisecond)
		f.warm(userByID, 1)
		time.Sleep(2 * time.Millisecond)
		short.hit(userByID, 1)
		if f.inMemory() && StatsOf(f.db).Expirations == 0 {
			f.Error("no expiration was counted")
		}
	})
}

func TestPolicies(t *testing.T) {
	scenario(t, people+"CREATE TABLE log (line text); CREATE TABLE news (line text); CREATE VIEW lines AS SELECT line FROM log", func(f *fixture) {
		v := f.with("cache_policy=log:off,news:cache-aside:1ms,nowhere:off")
		v.warm(userByID, 1)
		v.bypass(keying.PolicyOff, "SELECT * FROM log")
		v.bypass(keying.PolicyOff, "SELECT * FROM lines")
		v.bypass(keying.PolicyOff, "SELECT 1 FROM users, log")
		v.bypass(keying.PolicyOff, "SELECT 1 FROM users WHERE EXISTS (SELECT FROM log)")
		for range 2 {
			v.miss("SELECT 1 FROM users, news")
			time.Sleep(2 * time.Millisecond)
		}
		// Of one DB; the write of such a table still tells the others.
		f.warm("SELECT * FROM log")
		v.exec("INSERT INTO log VALUES ('a')")
		f.miss("SELECT * FROM log").is("a")
	})
}

func TestTheCacheTurnedOff(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		off := f.with("cache_store=off")
		for range 2 {
			off.bypass(keying.CacheOff, userByID, 1)
		}
		f.warm(userByID, 1)
		off.bypass(keying.CacheOff, userByID, 1)
		off.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.miss(userByID, 1).is("1 anna Oslo")
	})
}

// For writes that went past the driver.
func TestInvalidate(t *testing.T) {
	scenario(t, people+`CREATE TABLE colours (name text); CREATE VIEW names AS SELECT name FROM users;
		CREATE TABLE "Odd ""name" (x int); INSERT INTO "Odd ""name" VALUES (1)`, func(f *fixture) {
		if err := Invalidate(f.ctx, f.db); err != nil {
			f.Errorf("before anything is known: %v", err)
		}
		const names, colours, odd = "SELECT name FROM names ORDER BY name", "SELECT name FROM colours", `SELECT x FROM "Odd ""name"`
		warm := func() {
			f.Helper()
			f.known(userByID, 1)
			f.known(names)
			f.known(colours)
			f.known(odd)
		}
		invalidate := func(relations ...string) {
			f.Helper()
			if err := Invalidate(f.ctx, f.db, relations...); err != nil {
				f.Errorf("Invalidate %q: %v", relations, err)
			}
		}
		warm()
		f.past("UPDATE users SET name = 'past'")
		f.past("INSERT INTO colours VALUES ('red')")
		invalidate("users")
		f.miss(userByID, 1)
		f.miss(names)
		f.hitOld(colours, "")
		invalidate("colours", "users")
		f.miss(colours).is("red")
		f.miss(names)

		warm()
		invalidate("Users", "names", `"Odd ""name"`) // folded as SQL is; a view is its tables
		f.miss(names)
		f.miss(odd)

		warm()
		var schema string
		if err := f.plain.QueryRowContext(f.ctx, "SELECT current_schema").Scan(&schema); err != nil {
			f.Fatal(err)
		}
		invalidate(schema + ".colours")
		f.miss(colours)
		f.hit(names)

		warm()
		f.past("ALTER TABLE colours ADD COLUMN rgb int")
		invalidate()
		f.fresh(userByID, 1)
		f.known("SELECT name, rgb FROM colours")

		warm()
		for _, name := range []string{"nowhere", "", "users; DROP TABLE users", "a b", "users, colours", "pg_temp.users", "'users'"} {
			if err := Invalidate(f.ctx, f.db, name); err == nil {
				f.Errorf("Invalidate(%q): no error", name)
			}
		}
		f.hit(userByID, 1)
		if err := Invalidate(f.ctx, f.db, "users", "nowhere"); err == nil {
			f.Error("one of two is unknown: no error")
		}
	})
}

// hitOld: a hit that plain pgx would not give, because something was written
// past the driver.
func (f *fixture) hitOld(query, want string) {
	f.Helper()
	f.expect("hit", false, query, nil).is(want)
}

// The counters add up, whatever happens.
func TestStats(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		if s := StatsOf(f.db); s.Lookups != 0 || s.Bypassed != 0 || s.Entries != 0 {
			f.Errorf("before anything: %+v", s)
		}
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		f.miss("SELECT name FROM users WHERE id = 1")
		f.hit("SELECT name FROM users WHERE id = 1")
		f.runs(keying.ClockKeyword, "SELECT current_timestamp")
		f.exec("UPDATE users SET name = 'x' WHERE id = 1")
		f.miss(userByID, 1)
		f.fails("SELECT 1 / (id - 1) FROM users")
		s := StatsOf(f.db)
		if s.Lookups != 8 || s.Hits != 3 || s.Misses != 5 || s.Stale != 1 || s.Fills != 4 || f.inMemory() && s.Entries != 3 {
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
		f.runs(keying.NotRead, "INSERT INTO users VALUES (7, 'gil') RETURNING id") // by Query, and counted as by Exec
		if now := StatsOf(f.db); now.Others != 2 || now.HitRatio() != s.HitRatio() {
			f.Errorf("%d others, hit ratio %v, want 2 and a third", now.Others, now.HitRatio())
		}
		if bypassed != s.Bypassed || s.Saved <= 0 || f.inMemory() && (s.Bytes <= 0 || s.Tags == 0) {
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
		if err := f.db.Close(); err != nil {
			f.Fatal(err)
		}
		if s := StatsOf(f.db); s.Hits != 3 || s.Entries != 0 {
			f.Errorf("after Close: %d hits, %d entries, want 3 and 0", s.Hits, s.Entries)
		}
	})
}
