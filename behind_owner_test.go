//go:build unix

package cachedpg

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// served is a story of servers of its own and a queue of theirs.
func served(t *testing.T, story func(f *fixture, s *pgtest.Server)) {
	t.Helper()
	t.Parallel()
	s := pgtest.StartServer(t)
	r := redistest.Start(t)
	story(newFixture(t, s.DSN(), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind"), s)
}

// at is the application on another server, in a process of its own.
func (f *fixture) at(s *pgtest.Server, name string) via {
	f.Helper()
	dsn := withKey(withKey(s.DSN(), "search_path", "cache_statement"), "default_query_exec_mode", "cache_statement")
	c, err := (&Driver{}).OpenConnector(withKeys(dsn, f.keys))
	if err != nil {
		f.Fatal(err)
	}
	c.(*connector).process = name
	db := openDB(f, c)
	v := f.asking(db)
	v.truth = f.open("pgx", dsn)
	return v
}

// stands returns when the process knows how its server stands to the queue.
func (v via) stands(want standing) {
	v.f.Helper()
	v.f.until("the process to know whose the queue is", func() bool {
		_, _ = v.db.ExecContext(v.f.ctx, "SELECT")
		b := v.behind()
		return b != nil && standingOf(b.stopped()) == want && (want != 0 || b.ready.Load())
	})
}

func (v via) past(query string) string { return v.read(v.truth, query, nil).String() }

// What production has acknowledged arrives in production, and nothing of it in a copy that
// names the same Redis: whatever the copy does meanwhile.
func TestACloneDoesNotApplyTheQueueOfProduction(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		f.exec(countHit, 1)
		f.drained()
		clone := f.at(s.Clone(), "clone")
		const each = 50
		var group sync.WaitGroup
		for _, v := range []via{f.via, clone} {
			group.Go(func() {
				for range each {
					if _, err := v.db.ExecContext(f.ctx, countHit, 1); err != nil {
						f.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		f.drained()
		clone.stands(foreign)
		for _, v := range []via{f.via, clone} {
			if got := v.past(readHit[:len(readHit)-2] + "1"); got != fmt.Sprint(each+1) {
				f.Errorf("n is %s, want %d", got, each+1)
			}
			if got := v.read(v.db, readHit, []any{1}).String(); got != fmt.Sprint(each+1) {
				f.Errorf("read %s, want %d", got, each+1)
			}
		}
		if q := StatsOf(f.db).Queue; q.Queued != each+1 || q.Lost != 0 || q.Dead != 0 || q.Stopped != "" {
			f.Errorf("production: %+v", q)
		}
		q := StatsOf(clone.db).Queue
		if q.Queued != 0 || q.Applied != 0 || !strings.Contains(q.Stopped, "owns the queue") {
			f.Errorf("the clone: %+v", q)
		}
		if err := clone.db.PingContext(f.ctx); err == nil || !strings.Contains(err.Error(), "a Redis of its own") {
			f.Errorf("Ping: %v", err)
		}
		if x, err := Explain(f.ctx, clone.db, countHit); err != nil || !strings.Contains(strings.Join(x.Notes, " "), "not queued") {
			f.Errorf("explain: %+v, %v", x.Notes, err)
		}
	})
}

// Production's restart finds its queue as it was, though a copy that was as far as it
// came first.
func TestACloneWaitsForAPersonWhenProductionIsGone(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		clone := s.Clone()
		f.heldQueue() // until the crash
		for range 5 {
			f.exec(countHit, 1)
		}
		s.Crash()
		f.db.Close()
		c := f.at(clone, "clone")
		c.stands(doubtful)
		for _, query := range []string{"SELECT n FROM hits WHERE id = 1", "UPDATE hits SET n = 9 WHERE id = 1"} {
			if _, err := c.db.ExecContext(f.ctx, query); err == nil || !strings.Contains(err.Error(), "cachedpg queue take-over") {
				f.Errorf("%s: %v", query, err)
			}
		}
		s.Start()
		v := f.at(s, "restarted")
		v.stands(0)
		v.drained()
		if got := v.past("SELECT n FROM hits WHERE id = 1"); got != "5" {
			f.Errorf("production has %s, want 5", got)
		}
		if got := c.past("SELECT n FROM hits WHERE id = 1"); got != "0" {
			f.Errorf("the clone has %s, want 0", got)
		}
	})
}

// A standby that has all that the owner had goes on with the queue.
func TestAPromotedStandbyGoesOnWithTheQueue(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		standby := s.Standby()
		f.exec(countHit, 1)
		f.drained()
		f.heldQueue() // until the crash
		for range 5 {
			f.exec(countHit, 1)
		}
		s.Await(standby)
		s.Crash()
		standby.Promote()
		f.db.Close()
		v := f.at(standby, "promoted")
		v.stands(0)
		v.fresh("SELECT n FROM hits WHERE id = 1").is("6")
		f.live(v.db) // without a lease the schema is not loaded, and what is not understood is not queued
		if !v.queues(countHit, 1) {
			f.Error("it does not queue")
		}
		v.drained()
		if q := StatsOf(v.db).Queue; q.Lost != 0 || q.Dead != 0 {
			f.Errorf("%+v", q)
		}
	})
}

// I25: one that lacks what the owner has applied is not taken for its successor.
func TestAStandbyThatWasPromotedWithoutTheLastBatchWaitsForAPerson(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		standby := s.Standby()
		f.exec(countHit, 1)
		f.drained()
		s.Await(standby)
		standby.Stop()
		f.exec(countHit, 1)
		f.drained()
		f.heldQueue() // until the crash
		f.exec(countHit, 1)
		s.Crash()
		standby.Start()
		standby.Promote()
		f.db.Close()
		v := f.at(standby, "promoted")
		v.stands(doubtful)
		if _, err := v.db.ExecContext(f.ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "does not have") {
			f.Errorf("%v", err)
		}
		if got := v.past("SELECT n FROM hits WHERE id = 1"); got != "1" {
			f.Errorf("n is %s, want 1", got)
		}
	})
}

// What the owner has applied, and this server does not have, is counted when a person
// says that this one goes on.
func TestARestoredServerTakesTheQueueOverWhenItIsTold(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		f.exec(countHit, 1)
		f.drained()
		restored := f.at(s.Clone(), "restored")
		for range 3 {
			f.exec(countHit, 1)
		}
		f.drained()
		restored.stands(foreign)
		if _, err := TakeOverQueue(f.ctx, restored.db); err == nil || !strings.Contains(err.Error(), "stop its processes") {
			f.Errorf("while the owner is alive: %v", err)
		}
		f.heldQueue() // until the crash
		for range 2 {
			f.exec(countHit, 1)
		}
		s.Crash()
		f.db.Close()
		var missing int64
		f.until("the owner to be silent", func() (ok bool) {
			var err error
			missing, err = TakeOverQueue(f.ctx, restored.db)
			return err == nil
		})
		if missing != 3 {
			f.Errorf("%d are missing, want 3", missing)
		}
		restored.fresh("SELECT n FROM hits WHERE id = 1").is("3")
		if q := StatsOf(restored.db).Queue; q.Lost != 3 || q.Stopped != "" {
			f.Errorf("%+v", q)
		}
		s.Start()
		production := f.at(s, "production")
		production.stands(foreign)
		if got := production.past("SELECT n FROM hits WHERE id = 1"); got != "4" {
			f.Errorf("the server that was replaced has %s, want 4", got)
		}
	})
}

// A write for a server that does not own the queue is not put into it.
func TestAWriteIsQueuedForTheOwnerOnly(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		f.drained()
		if err := r.Client().HSet(f.ctx, f.behind().queue.QueueName()+":owner", "server", "1000000000.0", "beat", "99999999999999").Err(); err != nil {
			f.Fatal(err)
		}
		before := StatsOf(f.db).Queue.Queued
		f.exec(countHit, 1)
		if got := StatsOf(f.db).Queue.Queued; got != before {
			f.Error("it was queued for another server")
		}
		if got := f.inPostgres(readHit, 1); got != "2" {
			f.Errorf("PostgreSQL has %s, want 2", got)
		}
	})
}

// A table of before is a reason to run setup again, which mends it.
func TestSetupMendsAnOlderQueueTable(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		f.past("ALTER TABLE cachedpg.queue DROP COLUMN fence, DROP COLUMN sequence, DROP COLUMN known")
		v := f.process("b")
		if _, err := v.db.ExecContext(f.ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "run \"cachedpg setup\" again") {
			f.Errorf("%v", err)
		}
		if err := Setup(f.ctx, f.plain); err != nil {
			f.Fatal(err)
		}
		v.exec(countHit, 1)
		v.fresh(readHit, 1).is("1")
	})
}

// A Redis that has forgotten whose queue it is hears it again, and what it had lost is counted.
func TestWhatRedisHasForgottenIsCounted(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		held := f.heldQueue()
		for range 3 {
			f.exec(countHit, 1)
		}
		if err := r.Client().FlushDB(f.ctx).Err(); err != nil {
			f.Fatal(err)
		}
		held()
		f.exec(countHit, 1)
		f.fresh(readHit, 1).is("2")
		f.drained()
		if got := StatsOf(f.db).Queue.Lost; got < 3 {
			f.Errorf("%d are lost, want the 3 that were acknowledged at least", got)
		}
	})
}

// A write that is queued while a batch has begun is one of the next numbers, and not a forgery.
func TestAWriteThatIsQueuedDuringABatchIsApplied(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		f.drained()
		writers := make(chan error)
		for id := 1; id <= 3; id++ {
			go func() {
				for range 300 {
					if _, err := f.db.ExecContext(f.ctx, countHit, id); err != nil {
						writers <- err
						return
					}
				}
				writers <- nil
			}()
		}
		for range 3 {
			if err := <-writers; err != nil {
				f.Error(err)
			}
		}
		f.fresh("SELECT n FROM hits ORDER BY id").is("300, 300, 300")
		if q := StatsOf(f.db).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
	})
}
