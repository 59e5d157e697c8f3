package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

func peersOf(v harness.Via) *peers.Peers { return dbOf(v.DB).space().Peers }

// shown counts the locks that camps show themselves by.
func shown(f *harness.Fixture) int {
	f.Helper()
	return f.Count(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = '%d' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", guard.LockCamps))
}

// withheldBy: nothing comes from the cache, and everything that can be asked says why.
func withheldBy(v harness.Via, who, query string, args ...any) {
	v.F.Helper()
	v.F.Until("the hits to be withheld", func() bool {
		before := statsOf(v.DB).Bypasses[keying.OtherWriter.String()]
		v.Fresh(query, args...)
		return statsOf(v.DB).Bypasses[keying.OtherWriter.String()] > before
	})
	v.F.Until("Ping to say why", func() bool {
		err := v.DB.PingContext(v.F.Ctx)
		return errors.Is(err, peers.ErrWithheld) && strings.Contains(err.Error(), who) && strings.Contains(err.Error(), "cache_store")
	})
	if s := statsOf(v.DB).Peers.Withheld; !strings.Contains(s, who) {
		v.F.Errorf("Stats.Peers.Withheld is %q, want it to name %s", s, who)
	}
	if x := explain(v, query, args...); x.Cacheable || x.Reason != keying.OtherWriter.String() || x.Remedy == "" {
		v.F.Errorf("Explain says:\n%+v", x)
	}
}

// A lone process shows itself without waiting for anybody.
func TestTheFirstWriteOfALoneProcessWaitsForNobody(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		lone := f.Beside(f.Name(), f.Keys...)
		lone.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		p := peersOf(lone)
		if writing, due := p.Shown(); writing.IsZero() || f.InMemory() && !due.IsZero() {
			f.Errorf("it shows that it writes since %v; commits wait until %v", writing, due)
		}
	})
}

// A write waits for the caches of others, no longer than its context.
func TestTheWaitForOtherCachesEndsWithTheContext(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, b := f.Beside("a"), f.Beside("b")
		a.Warm(harness.UserByID, 1)
		ctx, cancel := context.WithTimeout(f.Ctx, peers.Wait()/4)
		defer cancel()
		tx, err := b.DB.BeginTx(ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err = tx.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1"); err == nil {
			err = tx.Commit()
		}
		if ctx.Err() == nil || err == nil {
			f.Errorf("got %v before %v was over", err, peers.Wait()/4)
		}
		a.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

func TestBuildsOfAnotherFormatDoNotShare(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		next := f.Beside("next", f.Keys...)
		dbOf(next.DB).Build = "next"
		next.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
		withheldBy(f.Via, "another format", harness.UserByID, 1)
		next.DB.Close()
		f.Caches(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

// I24: who could not be seen for a while may have missed a writer that came and
// went. What was cached before is none of the answers after.
func TestACacheThatWasHiddenBeginsAnew(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a := f.Beside("a")
		a.Warm(harness.UserByID, 1)
		p := peersOf(a)
		p.Turn.Lock() // it asks nothing, as if it were stopped
		f.Past("SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND classid = " + fmt.Sprint(guard.LockCamps) +
			" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
		b := f.Beside("b")
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1") // it sees nobody, and does not wait
		b.DB.Close()
		p.Turn.Unlock()
		f.Until("it to be seen again", func() bool { return shown(f) > 0 })
		f.Until("an answer", func() bool { return p.Round(func() bool { return false }) == nil && p.Hits() })
		a.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

// What a process has sent may become visible when its locks are gone.
func TestACacheReturnsWhenTheLastCommitOfTheOtherIsOver(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		a, b := f.Beside("a"), f.Beside("b")
		a.Warm(harness.UserByID, 1)
		b.Exec("UPDATE users SET city = 'Bergen' WHERE id = 2")
		withheldBy(a, "in its own memory", harness.UserByID, 1)
		tx, err := f.Plain.BeginTx(f.Ctx, nil) // b's, which was killed
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET city = 'Bergen' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		b.DB.Close()
		f.Until("the writer to be forgotten", func() bool {
			if err := a.DB.PingContext(f.Ctx); err != nil {
				return false
			}
			return peersOf(a).Hits()
		})
		for range 20 {
			a.Bypass(keying.Warming, harness.UserByID, 1).Is("1 ann Oslo")
		}
		f.Commit(tx)
		a.Caches(harness.UserByID, 1).Is("1 ann Bergen")
	})
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
		withheldBy(v, "in its own memory", harness.UserByID, 1)
	}
	f.Until("few connections to be held", func() bool { return shown(f) <= 3 })
	for _, v := range all[1:] {
		v.DB.Close()
	}
	all[0].Caches(harness.UserByID, 1).Is("1 ann city 4")
	all[0].DB.Close()
	f.Until("the locks to go", func() bool { return shown(f) == 0 })
}

// Who asks what a statement would do is nobody that others have to wait for.
func TestExplainShowsNothingToOthers(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		v := f.Beside("explains")
		explain(v, harness.UserByID, 1)
		explain(v, "UPDATE users SET city = 'Rome' WHERE id = 1")
		if n := shown(f); n != 0 || peersOf(v).Asking() {
			f.Errorf("%d locks are held", n)
		}
		v.Caches(harness.UserByID, 1)
		if n := shown(f); n != 1 {
			f.Errorf("%d locks are held, want that of the cache", n)
		}
	})
}
