//go:build unix

package behind

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// served is a story of servers of its own and a queue of theirs.
func served(t *testing.T, story func(f *harness.Fixture, s *pgtest.Server)) {
	t.Helper()
	t.Parallel()
	s := pgtest.StartServer(t)
	r := redistest.Start(t)
	story(harness.New(t, s.DSN(), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind"), s)
}

// at is the application on another server, in a process of its own.
func at(f *harness.Fixture, s *pgtest.Server, name string) harness.Via {
	f.Helper()
	dsn := harness.WithKey(harness.WithKey(s.DSN(), "search_path", "cache_statement"), "default_query_exec_mode", "cache_statement")
	c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(dsn, f.Keys))
	if err != nil {
		f.Fatal(err)
	}
	inside.Process(c, name)
	db := harness.OpenDB(f, c)
	v := f.Asking(db)
	v.Truth = f.Open("pgx", dsn)
	return v
}

// stands returns when the process knows how its server stands to the queue.
func stands(v harness.Via, want behind.Standing) {
	v.F.Helper()
	v.F.Until("the process to know whose the queue is", func() bool {
		_, _ = v.DB.ExecContext(v.F.Ctx, "SELECT")
		b := inside.Queue(v.DB)
		return b != nil && b.Standing() == want
	})
}

func askPast(v harness.Via, query string) string { return v.Read(v.Truth, query, nil).String() }

// What production has acknowledged arrives in production, and nothing of it in a copy that
// names the same Redis: whatever the copy does meanwhile.
func TestACloneDoesNotApplyTheQueueOfProduction(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		clone := at(f, s.Clone(), "clone")
		const each = 50
		var group sync.WaitGroup
		for _, v := range []harness.Via{f.Via, clone} {
			group.Go(func() {
				for range each {
					if _, err := v.DB.ExecContext(f.Ctx, countHit, 1); err != nil {
						f.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		f.Drained()
		stands(clone, behind.Foreign)
		for _, v := range []harness.Via{f.Via, clone} {
			if got := askPast(v, readHit[:len(readHit)-2]+"1"); got != fmt.Sprint(each+1) {
				f.Errorf("n is %s, want %d", got, each+1)
			}
			if got := v.Read(v.DB, readHit, []any{1}).String(); got != fmt.Sprint(each+1) {
				f.Errorf("read %s, want %d", got, each+1)
			}
		}
		if q := cachedpg.StatsOf(f.DB).Queue; q.Queued != each+1 || q.Lost != 0 || q.Dead != 0 || q.Stopped != "" {
			f.Errorf("production: %+v", q)
		}
		q := cachedpg.StatsOf(clone.DB).Queue
		if q.Queued != 0 || q.Applied != 0 || !strings.Contains(q.Stopped, "owns the queue") {
			f.Errorf("the clone: %+v", q)
		}
		if err := clone.DB.PingContext(f.Ctx); err == nil || !strings.Contains(err.Error(), "a Redis of its own") {
			f.Errorf("Ping: %v", err)
		}
		if x, err := cachedpg.Explain(f.Ctx, clone.DB, countHit); err != nil || !strings.Contains(strings.Join(x.Notes, " "), "not queued") {
			f.Errorf("explain: %+v, %v", x.Notes, err)
		}
	})
}

// Production's restart finds its queue as it was, though a copy that was as far as it
// came first.
func TestACloneWaitsForAPersonWhenProductionIsGone(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		clone := s.Clone()
		heldQueue(f) // until the crash
		for range 5 {
			f.Exec(countHit, 1)
		}
		s.Crash()
		f.DB.Close()
		c := at(f, clone, "clone")
		stands(c, behind.Doubtful)
		for _, query := range []string{"SELECT n FROM hits WHERE id = 1", "UPDATE hits SET n = 9 WHERE id = 1"} {
			if _, err := c.DB.ExecContext(f.Ctx, query); err == nil || !strings.Contains(err.Error(), "cachedpg queue take-over") {
				f.Errorf("%s: %v", query, err)
			}
		}
		s.Start()
		v := at(f, s, "restarted")
		stands(v, behind.Owns)
		v.Drained()
		if got := askPast(v, "SELECT n FROM hits WHERE id = 1"); got != "5" {
			f.Errorf("production has %s, want 5", got)
		}
		if got := askPast(c, "SELECT n FROM hits WHERE id = 1"); got != "0" {
			f.Errorf("the clone has %s, want 0", got)
		}
	})
}

// A standby that has all that the owner had goes on with the queue.
func TestAPromotedStandbyGoesOnWithTheQueue(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		standby := s.Standby()
		f.Exec(countHit, 1)
		f.Drained()
		heldQueue(f) // until the crash
		for range 5 {
			f.Exec(countHit, 1)
		}
		s.Await(standby)
		s.Crash()
		standby.Promote()
		f.DB.Close()
		v := at(f, standby, "promoted")
		stands(v, behind.Owns)
		v.Fresh("SELECT n FROM hits WHERE id = 1").Is("6")
		f.Live(v.DB) // without a lease the schema is not loaded, and what is not understood is not queued
		if !queues(v, countHit, 1) {
			f.Error("it does not queue")
		}
		v.Drained()
		if q := cachedpg.StatsOf(v.DB).Queue; q.Lost != 0 || q.Dead != 0 {
			f.Errorf("%+v", q)
		}
	})
}

// I25: one that lacks what the owner has applied is not taken for its successor.
func TestAStandbyThatWasPromotedWithoutTheLastBatchWaitsForAPerson(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		standby := s.Standby()
		f.Exec(countHit, 1)
		f.Drained()
		s.Await(standby)
		standby.Stop()
		f.Exec(countHit, 1)
		f.Drained()
		heldQueue(f) // until the crash
		f.Exec(countHit, 1)
		s.Crash()
		standby.Start()
		standby.Promote()
		f.DB.Close()
		v := at(f, standby, "promoted")
		stands(v, behind.Doubtful)
		if _, err := v.DB.ExecContext(f.Ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "does not have") {
			f.Errorf("%v", err)
		}
		if got := askPast(v, "SELECT n FROM hits WHERE id = 1"); got != "1" {
			f.Errorf("n is %s, want 1", got)
		}
	})
}

// What the owner has applied, and this server does not have, is counted when a person
// says that this one goes on.
func TestARestoredServerTakesTheQueueOverWhenItIsTold(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		restored := at(f, s.Clone(), "restored")
		for range 3 {
			f.Exec(countHit, 1)
		}
		f.Drained()
		stands(restored, behind.Foreign)
		if _, err := cachedpg.TakeOverQueue(f.Ctx, restored.DB); err == nil || !strings.Contains(err.Error(), "stop its processes") {
			f.Errorf("while the owner is alive: %v", err)
		}
		heldQueue(f) // until the crash
		for range 2 {
			f.Exec(countHit, 1)
		}
		s.Crash()
		f.DB.Close()
		var missing int64
		f.Until("the owner to be silent", func() (ok bool) {
			var err error
			missing, err = cachedpg.TakeOverQueue(f.Ctx, restored.DB)
			return err == nil
		})
		if missing != 3 {
			f.Errorf("%d are missing, want 3", missing)
		}
		restored.Fresh("SELECT n FROM hits WHERE id = 1").Is("3")
		if q := cachedpg.StatsOf(restored.DB).Queue; q.Lost != 3 || q.Stopped != "" {
			f.Errorf("%+v", q)
		}
		s.Start()
		production := at(f, s, "production")
		stands(production, behind.Foreign)
		if got := askPast(production, "SELECT n FROM hits WHERE id = 1"); got != "4" {
			f.Errorf("the server that was replaced has %s, want 4", got)
		}
	})
}

// A write for a server that does not own the queue is not put into it.
func TestAWriteIsQueuedForTheOwnerOnly(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		if err := r.Client().HSet(f.Ctx, inside.Queue(f.Via.DB).Store().QueueName()+":owner", "server", "1000000000.0", "beat", "99999999999999").Err(); err != nil {
			f.Fatal(err)
		}
		before := cachedpg.StatsOf(f.DB).Queue.Queued
		f.Exec(countHit, 1)
		if got := cachedpg.StatsOf(f.DB).Queue.Queued; got != before {
			f.Error("it was queued for another server")
		}
		if got := inPostgres(f, readHit, 1); got != "2" {
			f.Errorf("PostgreSQL has %s, want 2", got)
		}
	})
}

// A table of before is a reason to run setup again, which mends it.
func TestSetupMendsAnOlderQueueTable(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("ALTER TABLE cachedpg.queue DROP COLUMN fence, DROP COLUMN sequence, DROP COLUMN known")
		v := f.Process("b")
		if _, err := v.DB.ExecContext(f.Ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "run \"cachedpg setup\" again") {
			f.Errorf("%v", err)
		}
		if err := cachedpg.Setup(f.Ctx, f.Plain); err != nil {
			f.Fatal(err)
		}
		v.Exec(countHit, 1)
		v.Fresh(readHit, 1).Is("1")
	})
}

// A Redis that has forgotten whose queue it is hears it again, and what it had lost is counted.
func TestWhatRedisHasForgottenIsCounted(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		held := heldQueue(f)
		for range 3 {
			f.Exec(countHit, 1)
		}
		if err := r.Client().FlushDB(f.Ctx).Err(); err != nil {
			f.Fatal(err)
		}
		held()
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("2")
		f.Drained()
		if got := cachedpg.StatsOf(f.DB).Queue.Lost; got < 3 {
			f.Errorf("%d are lost, want the 3 that were acknowledged at least", got)
		}
	})
}

// A write that is queued while a batch has begun is one of the next numbers, and not a forgery.
func TestAWriteThatIsQueuedDuringABatchIsApplied(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Drained()
		writers := make(chan error)
		for id := 1; id <= 3; id++ {
			go func() {
				for range 300 {
					if _, err := f.DB.ExecContext(f.Ctx, countHit, id); err != nil {
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
		f.Fresh("SELECT n FROM hits ORDER BY id").Is("300, 300, 300")
		if q := cachedpg.StatsOf(f.DB).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
	})
}
