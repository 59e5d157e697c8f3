package outages

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

// I23: a process with its cache in memory that writes is seen by others, before
// its first commit is visible. One that only reads keeps nobody from caching.
func TestTwoProcessesInMemorySeeEachOther(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, b := f.Beside("a"), f.Beside("b")
		a.Warm(harness.UserByID, 1)
		b.Warm(harness.UserByID, 1)
		a.Hit(harness.UserByID, 1)

		a.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		b.Fresh(harness.UserByID, 1).Is("1 ann Bergen") // at once, not at the next round
		outside.Withheld(b, "in its own memory", harness.UserByID, 1)
		a.Warm(harness.UserByID, 1).Is("1 ann Bergen")
		if err := a.DB.PingContext(f.Ctx); err != nil {
			f.Error(err)
		}

		b.Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		a.Fresh(harness.UserByID, 1).Is("1 ann Rome")
		outside.Withheld(a, "in its own memory", harness.UserByID, 1)

		if err := b.DB.Close(); err != nil {
			f.Fatal(err)
		}
		a.Caches(harness.UserByID, 1).Is("1 ann Rome")
		if err := a.DB.PingContext(f.Ctx); err != nil || cachedpg.StatsOf(a.DB).Peers != (cachedpg.PeerStats{}) {
			f.Errorf("alone: %v, %+v", err, cachedpg.StatsOf(a.DB).Peers)
		}
	})
}

// With a process that cannot mark anything, and one that marks and does not read.
func TestAProcessWithItsCacheOffIsSeen(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, off := f.Beside("a"), f.Beside("off", "cache_mode=off")
		a.Warm(harness.UserByID, 1)
		off.Bypass(keying.CacheOff, harness.UserByID, 1)
		a.Hit(harness.UserByID, 1)
		off.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
		outside.Withheld(a, "cache_store=off", harness.UserByID, 1)
		if err := off.DB.PingContext(f.Ctx); err != nil {
			f.Error(err)
		}
		tx, err := off.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		off.On(tx).Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		a.Fresh(harness.UserByID, 1)
		f.Commit(tx)
		a.Fresh(harness.UserByID, 1).Is("1 ann Rome")
		off.DB.Close()
		a.Caches(harness.UserByID, 1)
	})
}

func TestAProcessThatOnlyWritesLetsOthersCache(t *testing.T) {
	for _, mode := range []string{"cache_mode=write-only", "cache_mode=off"} {
		t.Run(mode, func(t *testing.T) {
			harness.Shared(t, harness.People, func(f *harness.Fixture) {
				writer := f.Process("writer", mode)
				f.Warm(harness.UserByID, 1)
				writer.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
				writer.Released()
				f.Caches(harness.UserByID, 1).Is("1 ann Bergen")
				reason := keying.WriteOnly
				if strings.HasSuffix(mode, "off") {
					reason = keying.CacheOff
				}
				writer.Bypass(reason, harness.UserByID, 1)
				if x := outside.Explain(writer, harness.UserByID, 1); x.Cacheable || x.Reason != reason.String() {
					f.Errorf("Explain says:\n%s", x)
				}
				if err := writer.DB.PingContext(f.Ctx); err != nil {
					f.Error(err)
				}
				memory := f.Beside("memory")
				memory.Fresh(harness.UserByID, 1)
				outside.Withheld(memory, "another Redis", harness.UserByID, 1)
				f.Hit(harness.UserByID, 1)
			})
		})
	}
}

// Two URLs of one database of one Redis are the same cache; two databases are two.
func TestProcessesWithAnotherRedisSeeEachOther(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		server := redistest.Start(f.T)
		same := f.Process("same", "cache_store="+harness.WithKey(pgtest.Redis(f.T), "client_name", "another"))
		same.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		f.Released()
		same.Caches(harness.UserByID, 1).Is("1 ann Rome")
		f.Caches(harness.UserByID, 1)

		other := f.Beside("other", "cache_store="+server.URL())
		other.Exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		outside.Withheld(f.Via, "another Redis", harness.UserByID, 1)
		outside.Withheld(same, "another Redis", harness.UserByID, 1)
		outside.Withheld(other, "another Redis", harness.UserByID, 1)
		other.Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		f.Fresh(harness.UserByID, 1).Is("1 ann Rome")
		other.DB.Close()
		f.Caches(harness.UserByID, 1).Is("1 ann Rome")

		memory := f.Beside("memory")
		memory.Exec("UPDATE users SET city = 'Turin' WHERE id = 1")
		same.Fresh(harness.UserByID, 1).Is("1 ann Turin")
		outside.Withheld(same, "in its own memory", harness.UserByID, 1)
		outside.Withheld(memory, "another Redis", harness.UserByID, 1)
	})
}

func TestPoliciesThatDifferAreTold(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		if s := cachedpg.StatsOf(f.DB).Peers.Differs; s != "" {
			f.Errorf("alone: %s", s)
		}
		other := f.Process("other", "cache_policy=users:write-behind")
		other.Exec("UPDATE users SET city = 'Rome' WHERE id > 1")
		for _, v := range []harness.Via{f.Via, other} {
			f.Until("the policies to differ", func() bool {
				if err := v.DB.PingContext(f.Ctx); err != nil {
					f.Fatal(err)
				}
				return strings.Contains(cachedpg.StatsOf(v.DB).Peers.Differs, "cache_policy")
			})
		}
	})
}

// Without a second connection nothing can be asked beside the statements: reads are
// not cached and say so, and a commit shows itself on its own connection.
func TestAProcessWithoutAnotherConnectionIsSeen(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a := f.Beside("a")
		a.Warm(harness.UserByID, 1)
		role := "one_" + strings.ToLower(schemaless(f))
		f.Past("CREATE ROLE " + role + " LOGIN CONNECTION LIMIT 1")
		f.Cleanup(func() { f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		f.Past("GRANT USAGE ON SCHEMA cache_statement TO " + role + "; GRANT ALL ON users TO " + role)
		limited := *f
		limited.DSN = harness.WithKey(f.DSN, "user", role)
		b := limited.Beside("b")
		b.DB.SetMaxOpenConns(1)
		f.Until("hits, or the reason why there are none", func() bool {
			b.Fresh(harness.UserByID, 1)
			s := cachedpg.StatsOf(b.DB)
			return s.Hits > 0 || s.Peers.Withheld != ""
		})
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
		outside.Withheld(a, "in its own memory", harness.UserByID, 1)
		b.DB.Close()
		a.Caches(harness.UserByID, 1)
	})
}

// schemaless is a name that no other test uses.
func schemaless(f *harness.Fixture) string {
	f.Helper()
	var name string
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT current_database()").Scan(&name); err != nil {
		f.Fatal(err)
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

func TestModes(t *testing.T) {
	for keys, want := range map[string]string{
		"cache_mode=write-only":                       "cache_mode=write-only: cache_store=memory is not shared, so there is nothing to mark in; name a Redis",
		"cache_mode=write-only&cache_store=off":       "cache_mode=write-only: cache_store=off is not shared, so there is nothing to mark in; name a Redis",
		"cache_mode=read":                             "cache_mode=read: want read-write or write-only or off",
		"cache_mode=off":                              "",
		"cache_mode=off&cache_store=off":              "",
		"cache_mode=off&cache_store=redis://h":        "",
		"cache_mode=write-only&cache_store=redis://h": "",
		"cache_mode=read-write":                       "",
	} {
		_, _, err := cachedpg.ParseConfig("postgres://h/d?" + keys)
		if got := strings.TrimPrefix(fmt.Sprint(err), "cachedpg: "); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%s: got %v, want %q", keys, err, want)
		}
	}
}

func TestBuildsOfAnotherFormatDoNotShare(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		next := f.Beside("next", f.Keys...)
		inside.Build(next.DB, "next")
		next.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
		outside.Withheld(f.Via, "another format", harness.UserByID, 1)
		next.DB.Close()
		f.Caches(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

// shown counts the locks that camps show themselves by.
func shown(f *harness.Fixture) int {
	f.Helper()
	return f.Count(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = '%d' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", guard.LockCamps))
}

// Behind a pooler no lock is left on sessions that others get, and few connections are taken.
func TestProcessesBehindAPoolerSeeEachOther(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	f := harness.New(t, database, "exec", harness.People)
	f.Past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = exec', current_database()); END $$")
	pooled := *f
	pooled.DSN = harness.WithKey(pgtest.PgbouncerTo(t, database, "transaction"), "default_query_exec_mode", "exec")
	var all []harness.Via
	for i := range 5 {
		v := pooled.Beside(fmt.Sprint("pooled ", i))
		v.Caches(harness.UserByID, 1)
		all = append(all, v)
	}
	for i, v := range all {
		v.Exec("UPDATE users SET city = $1 WHERE id = 1", fmt.Sprint("city ", i))
		for _, reader := range all {
			reader.Fresh(harness.UserByID, 1).Is(fmt.Sprint("1 ann city ", i))
		}
	}
	for _, v := range all {
		outside.Withheld(v, "in its own memory", harness.UserByID, 1)
	}
	f.Until("few connections to be held", func() bool { return shown(f) <= 3 })
	for _, v := range all[1:] {
		v.DB.Close()
	}
	all[0].Caches(harness.UserByID, 1).Is("1 ann city 4")
	all[0].DB.Close()
	f.Until("the locks to go", func() bool { return shown(f) == 0 })
}
