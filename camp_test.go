package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

func (v via) peers() *peers { return connectorOf(v.db).space().peers }

// shown counts the locks that camps show themselves by.
func (f *fixture) shown() int {
	f.Helper()
	return f.count(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = '%d' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", lockCamps))
}

// withheldBy: nothing comes from the cache, and everything that can be asked says why.
func (v via) withheldBy(who, query string, args ...any) {
	v.f.Helper()
	v.f.until("the hits to be withheld", func() bool {
		before := StatsOf(v.db).Bypasses[keying.OtherWriter.String()]
		v.fresh(query, args...)
		return StatsOf(v.db).Bypasses[keying.OtherWriter.String()] > before
	})
	v.f.until("Ping to say why", func() bool {
		err := v.db.PingContext(v.f.ctx)
		return errors.Is(err, ErrWithheld) && strings.Contains(err.Error(), who) && strings.Contains(err.Error(), "cache_store")
	})
	if s := StatsOf(v.db).Peers.Withheld; !strings.Contains(s, who) {
		v.f.Errorf("Stats.Peers.Withheld is %q, want it to name %s", s, who)
	}
	if x := v.explain(query, args...); x.Cacheable || x.Reason != keying.OtherWriter.String() || x.Remedy == "" {
		v.f.Errorf("Explain says:\n%s", x)
	}
}

// I23: a process with its cache in memory that writes is seen by others, before
// its first commit is visible. One that only reads keeps nobody from caching.
func TestTwoProcessesInMemorySeeEachOther(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a, b := f.beside("a"), f.beside("b")
		a.warm(userByID, 1)
		b.warm(userByID, 1)
		a.hit(userByID, 1)

		a.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		b.fresh(userByID, 1).is("1 ann Bergen") // at once, not at the next round
		b.withheldBy("in its own memory", userByID, 1)
		a.warm(userByID, 1).is("1 ann Bergen")
		if err := a.db.PingContext(f.ctx); err != nil {
			f.Error(err)
		}

		b.exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		a.fresh(userByID, 1).is("1 ann Rome")
		a.withheldBy("in its own memory", userByID, 1)

		if err := b.db.Close(); err != nil {
			f.Fatal(err)
		}
		a.caches(userByID, 1).is("1 ann Rome")
		if err := a.db.PingContext(f.ctx); err != nil || StatsOf(a.db).Peers != (PeerStats{}) {
			f.Errorf("alone: %v, %+v", err, StatsOf(a.db).Peers)
		}
	})
}

// A lone process shows itself without waiting for anybody.
func TestTheFirstWriteOfALoneProcessWaitsForNobody(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		lone := f.beside(f.Name(), f.keys...)
		lone.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		p := lone.peers()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.writing.IsZero() || f.inMemory() && !p.due.IsZero() {
			f.Errorf("it shows that it writes since %v; commits wait until %v", p.writing, p.due)
		}
	})
}

// A write waits for the caches of others, no longer than its context.
func TestTheWaitForOtherCachesEndsWithTheContext(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a, b := f.beside("a"), f.beside("b")
		a.warm(userByID, 1)
		ctx, cancel := context.WithTimeout(f.ctx, campWait/4)
		defer cancel()
		tx, err := b.db.BeginTx(ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err = tx.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1"); err == nil {
			err = tx.Commit()
		}
		if ctx.Err() == nil || err == nil {
			f.Errorf("got %v before %v was over", err, campWait/4)
		}
		a.fresh(userByID, 1).is("1 ann Oslo")
		b.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.fresh(userByID, 1).is("1 ann Bergen")
	})
}

// With a process that cannot mark anything, and one that marks and does not read.
func TestAProcessWithItsCacheOffIsSeen(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a, off := f.beside("a"), f.beside("off", "cache_mode=off")
		a.warm(userByID, 1)
		off.bypass(keying.CacheOff, userByID, 1)
		a.hit(userByID, 1)
		off.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.fresh(userByID, 1).is("1 ann Bergen")
		a.withheldBy("cache_store=off", userByID, 1)
		if err := off.db.PingContext(f.ctx); err != nil {
			f.Error(err)
		}
		tx, err := off.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		off.on(tx).exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		a.fresh(userByID, 1)
		f.commit(tx)
		a.fresh(userByID, 1).is("1 ann Rome")
		off.db.Close()
		a.caches(userByID, 1)
	})
}

func TestAProcessThatOnlyWritesLetsOthersCache(t *testing.T) {
	for _, mode := range []string{"cache_mode=write-only", "cache_mode=off"} {
		t.Run(mode, func(t *testing.T) {
			shared(t, people, func(f *fixture) {
				writer := f.process("writer", mode)
				f.warm(userByID, 1)
				writer.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
				writer.released()
				f.caches(userByID, 1).is("1 ann Bergen")
				reason := keying.WriteOnly
				if strings.HasSuffix(mode, "off") {
					reason = keying.CacheOff
				}
				writer.bypass(reason, userByID, 1)
				if x := writer.explain(userByID, 1); x.Cacheable || x.Reason != reason.String() {
					f.Errorf("Explain says:\n%s", x)
				}
				if err := writer.db.PingContext(f.ctx); err != nil {
					f.Error(err)
				}
				memory := f.beside("memory")
				memory.fresh(userByID, 1)
				memory.withheldBy("another Redis", userByID, 1)
				f.hit(userByID, 1)
			})
		})
	}
}

// Two URLs of one database of one Redis are the same cache; two databases are two.
func TestProcessesWithAnotherRedisSeeEachOther(t *testing.T) {
	shared(t, people, func(f *fixture) {
		server := redistest.Start(f.T)
		same := f.process("same", "cache_store="+withKey(pgtest.Redis(f.T), "client_name", "another"))
		same.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		f.released()
		same.caches(userByID, 1).is("1 ann Rome")
		f.caches(userByID, 1)

		other := f.beside("other", "cache_store="+server.URL())
		other.exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
		f.fresh(userByID, 1).is("1 ann Oslo")
		f.withheldBy("another Redis", userByID, 1)
		same.withheldBy("another Redis", userByID, 1)
		other.withheldBy("another Redis", userByID, 1)
		other.exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		f.fresh(userByID, 1).is("1 ann Rome")
		other.db.Close()
		f.caches(userByID, 1).is("1 ann Rome")

		memory := f.beside("memory")
		memory.exec("UPDATE users SET city = 'Turin' WHERE id = 1")
		same.fresh(userByID, 1).is("1 ann Turin")
		same.withheldBy("in its own memory", userByID, 1)
		memory.withheldBy("another Redis", userByID, 1)
	})
}

func TestBuildsOfAnotherFormatDoNotShare(t *testing.T) {
	shared(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		next := f.beside("next", f.keys...)
		connectorOf(next.db).build = "next"
		next.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.fresh(userByID, 1).is("1 ann Bergen")
		f.withheldBy("another format", userByID, 1)
		next.db.Close()
		f.caches(userByID, 1).is("1 ann Bergen")
	})
}

func TestPoliciesThatDifferAreTold(t *testing.T) {
	shared(t, people, func(f *fixture) {
		f.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		if s := StatsOf(f.db).Peers.Differs; s != "" {
			f.Errorf("alone: %s", s)
		}
		other := f.process("other", "cache_policy=users:write-behind")
		other.exec("UPDATE users SET city = 'Rome' WHERE id > 1")
		for _, v := range []via{f.via, other} {
			f.until("the policies to differ", func() bool {
				if err := v.db.PingContext(f.ctx); err != nil {
					f.Fatal(err)
				}
				return strings.Contains(StatsOf(v.db).Peers.Differs, "cache_policy")
			})
		}
	})
}

// I24: who could not be seen for a while may have missed a writer that came and
// went. What was cached before is none of the answers after.
func TestACacheThatWasHiddenBeginsAnew(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a := f.beside("a")
		a.warm(userByID, 1)
		p := a.peers()
		p.turn.Lock() // it asks nothing, as if it were stopped
		f.past("SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND classid = " + fmt.Sprint(lockCamps) +
			" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
		b := f.beside("b")
		b.exec("UPDATE users SET city = 'Bergen' WHERE id = 1") // it sees nobody, and does not wait
		b.db.Close()
		p.turn.Unlock()
		f.until("it to be seen again", func() bool { return f.shown() > 0 })
		f.until("an answer", func() bool { return p.round(func() bool { return false }) == nil && p.hits.Load() > 0 })
		a.fresh(userByID, 1).is("1 ann Bergen")
	})
}

// What a process has sent may become visible when its locks are gone.
func TestACacheReturnsWhenTheLastCommitOfTheOtherIsOver(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a, b := f.beside("a"), f.beside("b")
		a.warm(userByID, 1)
		b.exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		a.withheldBy("in its own memory", userByID, 1)
		tx, err := f.plain.BeginTx(f.ctx, nil) // b's, which was killed
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(f.ctx, "UPDATE users SET city = 'Bergen' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		b.db.Close()
		f.until("the writer to be forgotten", func() bool {
			if err := a.db.PingContext(f.ctx); err != nil {
				return false
			}
			return a.peers().hits.Load() > 0
		})
		for range 20 {
			a.bypass(keying.Warming, userByID, 1).is("1 ann Oslo")
		}
		f.commit(tx)
		a.caches(userByID, 1).is("1 ann Bergen")
	})
}

// Behind a pooler no lock is left on sessions that others get, and few connections are taken.
func TestProcessesBehindAPoolerSeeEachOther(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	f := newFixture(t, database, "exec", people)
	f.past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = exec', current_database()); END $$")
	pooled := *f
	pooled.dsn = withKey(pgtest.PgbouncerTo(t, database, "transaction"), "default_query_exec_mode", "exec")
	var all []via
	for i := range 5 {
		v := pooled.beside(fmt.Sprint("pooled ", i))
		v.caches(userByID, 1)
		all = append(all, v)
	}
	for i, v := range all {
		v.exec("UPDATE users SET city = $1 WHERE id = 1", fmt.Sprint("city ", i))
		for _, reader := range all {
			reader.fresh(userByID, 1).is(fmt.Sprint("1 ann city ", i))
		}
	}
	for _, v := range all {
		v.withheldBy("in its own memory", userByID, 1)
	}
	f.until("few connections to be held", func() bool { return f.shown() <= 3 })
	for _, v := range all[1:] {
		v.db.Close()
	}
	all[0].caches(userByID, 1).is("1 ann city 4")
	all[0].db.Close()
	f.until("the locks to go", func() bool { return f.shown() == 0 })
}

// Without a second connection nothing can be asked beside the statements: reads are
// not cached and say so, and a commit shows itself on its own connection.
func TestAProcessWithoutAnotherConnectionIsSeen(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		a := f.beside("a")
		a.warm(userByID, 1)
		role := "one_" + strings.ToLower(f.schemaless())
		f.past("CREATE ROLE " + role + " LOGIN CONNECTION LIMIT 1")
		f.Cleanup(func() { f.past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		f.past("GRANT USAGE ON SCHEMA cache_statement TO " + role + "; GRANT ALL ON users TO " + role)
		limited := *f
		limited.dsn = withKey(f.dsn, "user", role)
		b := limited.beside("b")
		b.db.SetMaxOpenConns(1)
		f.until("hits, or the reason why there are none", func() bool {
			b.fresh(userByID, 1)
			s := StatsOf(b.db)
			return s.Hits > 0 || s.Peers.Withheld != ""
		})
		b.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.fresh(userByID, 1).is("1 ann Bergen")
		a.withheldBy("in its own memory", userByID, 1)
		b.db.Close()
		a.caches(userByID, 1)
	})
}

// schemaless is a name that no other test uses.
func (f *fixture) schemaless() string {
	f.Helper()
	var name string
	if err := f.plain.QueryRowContext(f.ctx, "SELECT current_database()").Scan(&name); err != nil {
		f.Fatal(err)
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

// Who asks what a statement would do is nobody that others have to wait for.
func TestExplainShowsNothingToOthers(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		v := f.beside("explains")
		v.explain(userByID, 1)
		v.explain("UPDATE users SET city = 'Rome' WHERE id = 1")
		if n := f.shown(); n != 0 || v.peers().done != nil {
			f.Errorf("%d locks are held", n)
		}
		v.caches(userByID, 1)
		if n := f.shown(); n != 1 {
			f.Errorf("%d locks are held, want that of the cache", n)
		}
	})
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
		_, _, err := ParseConfig("postgres://h/d?" + keys)
		if got := strings.TrimPrefix(fmt.Sprint(err), "cachedpg: "); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%s: got %v, want %q", keys, err, want)
		}
	}
}

func TestCampsAreReadFromLocks(t *testing.T) {
	for _, kind := range []campKind{campMemory, campShared, campOff} {
		c := newCamp(kind, t.Name(), "a")
		if c == newCamp(kind, t.Name()+"a", "") {
			t.Errorf("%v: facts run into each other", c)
		}
		got, writes := campOf(c.writeLock())
		if got != c || !writes || c.writeLock() < 0 || c.writeLock() > 1<<31-1 {
			t.Errorf("the lock %x of a writer of %+v is read as %+v, %v", c.writeLock(), c, got, writes)
		}
		if got, writes := campOf(c.cacheLock()); got != c || writes {
			t.Errorf("the lock %x of a cache of %+v is read as %+v, %v", c.cacheLock(), c, got, writes)
		}
	}
	s, err := parseCensus(fmt.Sprintf("true|%d:%d,%d:%d,%d:%d", lockCamps, newCamp(campOff).writeLock(), lockClass, lockNotice, lockPolicies, 7))
	if err != nil || !s.young || !s.notice || len(s.writers) != 1 || len(s.caches) != 0 || len(s.policies) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := parseCensus("true"); err == nil {
		t.Error("half an answer is taken for one")
	}
}
