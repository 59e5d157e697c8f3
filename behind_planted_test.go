package cachedpg

import (
	"context"
	"database/sql"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// inBothQueues is a story of a queue without encryption, and of one with it.
func inBothQueues(t *testing.T, story func(f *fixture, r *redistest.Server)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) { queueing(t, story) })
	t.Run("sealed", func(t *testing.T) { sealedQueue(t, newKey(1), story) })
}

// bounded ends what waits for ever.
func (f *fixture) bounded() (restore func()) {
	whole := f.ctx
	ctx, cancel := context.WithTimeout(whole, testTimeout/3)
	f.ctx = ctx
	return func() {
		cancel()
		f.ctx = whole
	}
}

// The last possible id leaves none for the writes that come after: neither in the stream
// nor, once PostgreSQL had recorded it as applied, in any stream of later.
func TestAnIdOfTheFarFutureDoesNotEndTheQueue(t *testing.T) {
	for _, id := range []string{"18446744073709551615-18446744073709551615", "18446744073709551615-5", "99999999999999999-9007199254740993"} {
		t.Run(id, func(t *testing.T) {
			inBothQueues(t, func(f *fixture, r *redistest.Server) {
				f.exec(countHit, 1)
				f.drained()
				name := f.behind().queue.QueueName()
				for _, taken := range []bool{false, true} {
					plant := &goredis.XAddArgs{Stream: name, ID: id, Values: []any{"w", f.planted("UPDATE hits SET n = 7 WHERE id = 1", nil), "n", 2, "s", "x"}}
					if err := r.Client().XAdd(f.ctx, plant).Err(); err != nil {
						f.Fatal(err)
					}
					if taken { // a stream knows it all the same
						r.Client().XDel(f.ctx, name, id)
					}
					for range 3 {
						f.exec(countHit, 2)
					}
					f.drained()
				}
				f.fresh(readHit, 1).is("1")
				f.fresh(readHit, 2).is("6")
				if err := DeadLetters(f.ctx, f.via.db, func(d DeadLetter) bool { return d.ID == id }); err != nil {
					f.Error(err)
				}
				if n := r.Client().XLen(f.ctx, name+":dead").Val(); n != 1 {
					f.Errorf("%d dead letters, want the one", n)
				}
				if q := StatsOf(f.via.db).Queue; q.Lost != 0 {
					f.Errorf("%+v", q)
				}
			})
		})
	}
}

func TestDeadLettersOfTheFarFutureDoNotEndTheQueue(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		f.drained()
		name := f.behind().queue.QueueName()
		plant := &goredis.XAddArgs{Stream: name + ":dead", ID: "18446744073709551615-18446744073709551615", Values: []any{"id", "1-1"}}
		if err := r.Client().XAdd(f.ctx, plant).Err(); err != nil {
			f.Fatal(err)
		}
		f.plant(r, "x")
		f.exec(countHit, 1)
		f.drained()
		f.fresh(readHit, 1).is("2")
		if n := r.Client().XLen(f.ctx, name+":dead").Val(); n != 1 {
			f.Errorf("%d dead letters, want the one that was refused", n)
		}
	})
}

// Numbers have no end, whatever Redis says was given out last.
func TestANumberOfTheFarFutureIsNotBelieved(t *testing.T) {
	inBothQueues(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		f.drained()
		defer f.bounded()()
		for _, given := range []string{"9007199254740992", "9223372036854775807", "1e300", "nan", "-1", "x"} {
			r.Client().HSet(f.ctx, f.behind().queue.QueueName()+":owner", "given", given)
			for range 3 {
				f.exec(countHit, 2)
			}
			f.drained()
		}
		f.fresh(readHit, 2).is("18")
		if q := StatsOf(f.db).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
	})
}

func TestATurnThatNeverEndsIsNotWaitedFor(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		f.drained()
		defer f.bounded()()
		r.Client().Set(f.ctx, f.behind().queue.QueueName()+":turn", "x", 0)
		f.exec(countHit, 1)
		r.Client().Set(f.ctx, f.behind().queue.QueueName()+":turn", "x", time.Hour)
		f.exec(countHit, 1)
		f.fresh(readHit, 1).is("3")
	})
}

// A reader waits for a write that Redis loses meanwhile.
func TestAReaderDoesNotWaitForWhatIsNoLongerQueued(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		held := f.heldQueue()
		f.exec(countHit, 1)
		drains := StatsOf(f.db).Queue.Drains
		defer f.bounded()()
		read := make(chan error)
		go func() {
			var n int
			read <- f.db.QueryRowContext(f.ctx, readHit, 1).Scan(&n)
		}()
		f.until("the reader to wait", func() bool { return StatsOf(f.db).Queue.Drains > drains })
		if err := r.Client().FlushDB(f.ctx).Err(); err != nil {
			f.Fatal(err)
		}
		held()
		if err := <-read; err != nil {
			f.Error(err)
		}
	})
}

// A beat of the future is no sign of life: Redis' clock may have been put back.
func TestAnOwnerIsSilentWhateverTheClockOfRedisSays(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		f.exec(countHit, 1)
		f.drained()
		queue := f.behind().queue
		s.Crash()
		f.db.Close()
		r, err := goredis.ParseURL(f.keys[0][len("cache_store="):])
		if err != nil {
			f.Fatal(err)
		}
		client := goredis.NewClient(r)
		defer client.Close()
		if err := client.HIncrBy(f.ctx, queue.QueueName()+":owner", "beat", time.Hour.Milliseconds()).Err(); err != nil {
			f.Fatal(err)
		}
		s.Start()
		v := f.at(s, "restarted")
		v.stands(0)
		v.exec(countHit, 1)
		v.fresh(readHit, 1).is("2")
	})
}

// The queue may have become its own server's since a process found that it is another's.
func TestAProcessThatStoodAsideSeesWhatItsServerHasTakenOver(t *testing.T) {
	served(t, func(f *fixture, s *pgtest.Server) {
		f.exec(countHit, 1)
		f.drained()
		clone := s.Clone()
		aside, other := f.at(clone, "aside"), f.at(clone, "other")
		aside.stands(foreign)
		other.stands(foreign)
		s.Crash()
		f.db.Close()
		f.until("the owner to be silent", func() bool {
			_, err := TakeOverQueue(f.ctx, other.db)
			return err == nil
		})
		other.drained()
		tx, err := aside.truth.(*sql.DB).BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(f.ctx, "SELECT FROM cachedpg.queue FOR UPDATE"); err != nil {
			f.Fatal(err)
		}
		if !other.queues(countHit, 1) {
			f.Error("it does not queue")
		}
		// As if its last round had been before the take-over.
		b := aside.behind()
		b.mu.Lock()
		b.barred = &notOwner{standing: foreign, owner: "the server that is gone"}
		b.mu.Unlock()
		drains, read := StatsOf(aside.db).Queue.Drains, make(chan string, 1)
		go func() { read <- aside.read(aside.db, readHit, []any{1}).String() }()
		f.until("the reader to wait, or not to", func() bool { return len(read) > 0 || StatsOf(aside.db).Queue.Drains > drains })
		f.rollback(tx)
		if got := <-read; got != "2" {
			f.Errorf("read %s, want 2", got)
		}
	})
}
