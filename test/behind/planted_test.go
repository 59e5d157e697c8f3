package behind

import (
	"database/sql"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// The last possible id leaves none for the writes that come after: neither in the stream
// nor, once PostgreSQL had recorded it as applied, in any stream of later.
func TestAnIdOfTheFarFutureDoesNotEndTheQueue(t *testing.T) {
	for _, id := range []string{"18446744073709551615-18446744073709551615", "18446744073709551615-5", "99999999999999999-9007199254740993"} {
		t.Run(id, func(t *testing.T) {
			inBothQueues(t, func(f *harness.Fixture, r *redistest.Server) {
				f.Exec(countHit, 1)
				f.Drained()
				name := inside.Queue(f.Via.DB).Store().QueueName()
				for _, taken := range []bool{false, true} {
					plant := &goredis.XAddArgs{Stream: name, ID: id, Values: []any{"w", planted(f, "UPDATE hits SET n = 7 WHERE id = 1", nil), "n", 2, "s", "x"}}
					if err := r.Client().XAdd(f.Ctx, plant).Err(); err != nil {
						f.Fatal(err)
					}
					if taken { // a stream knows it all the same
						r.Client().XDel(f.Ctx, name, id)
					}
					for range 3 {
						f.Exec(countHit, 2)
					}
					f.Drained()
				}
				f.Fresh(readHit, 1).Is("1")
				f.Fresh(readHit, 2).Is("6")
				if err := cachedpg.DeadLetters(f.Ctx, f.Via.DB, func(d cachedpg.DeadLetter) bool { return d.ID == id }); err != nil {
					f.Error(err)
				}
				if n := r.Client().XLen(f.Ctx, name+":dead").Val(); n != 1 {
					f.Errorf("%d dead letters, want the one", n)
				}
				if q := cachedpg.StatsOf(f.Via.DB).Queue; q.Lost != 0 {
					f.Errorf("%+v", q)
				}
			})
		})
	}
}

func TestDeadLettersOfTheFarFutureDoNotEndTheQueue(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		name := inside.Queue(f.Via.DB).Store().QueueName()
		plant := &goredis.XAddArgs{Stream: name + ":dead", ID: "18446744073709551615-18446744073709551615", Values: []any{"id", "1-1"}}
		if err := r.Client().XAdd(f.Ctx, plant).Err(); err != nil {
			f.Fatal(err)
		}
		plantIn(f, r, "x")
		f.Exec(countHit, 1)
		f.Drained()
		f.Fresh(readHit, 1).Is("2")
		if n := r.Client().XLen(f.Ctx, name+":dead").Val(); n != 1 {
			f.Errorf("%d dead letters, want the one that was refused", n)
		}
	})
}

// Numbers have no end, whatever Redis says was given out last.
func TestANumberOfTheFarFutureIsNotBelieved(t *testing.T) {
	inBothQueues(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		defer bounded(f)()
		for _, given := range []string{"9007199254740992", "9223372036854775807", "1e300", "nan", "-1", "x"} {
			r.Client().HSet(f.Ctx, inside.Queue(f.Via.DB).Store().QueueName()+":owner", "given", given)
			for range 3 {
				f.Exec(countHit, 2)
			}
			f.Drained()
		}
		f.Fresh(readHit, 2).Is("18")
		if q := cachedpg.StatsOf(f.DB).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
	})
}

func TestATurnThatNeverEndsIsNotWaitedFor(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		defer bounded(f)()
		r.Client().Set(f.Ctx, inside.Queue(f.Via.DB).Store().QueueName()+":turn", "x", 0)
		f.Exec(countHit, 1)
		r.Client().Set(f.Ctx, inside.Queue(f.Via.DB).Store().QueueName()+":turn", "x", time.Hour)
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("3")
	})
}

// A reader waits for a write that Redis loses meanwhile.
func TestAReaderDoesNotWaitForWhatIsNoLongerQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		held := heldQueue(f)
		f.Exec(countHit, 1)
		drains := cachedpg.StatsOf(f.DB).Queue.Drains
		defer bounded(f)()
		read := make(chan error)
		go func() {
			var n int
			read <- f.DB.QueryRowContext(f.Ctx, readHit, 1).Scan(&n)
		}()
		f.Until("the reader to wait", func() bool { return cachedpg.StatsOf(f.DB).Queue.Drains > drains })
		if err := r.Client().FlushDB(f.Ctx).Err(); err != nil {
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
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		queue := inside.Queue(f.Via.DB).Store()
		s.Crash()
		f.DB.Close()
		r, err := goredis.ParseURL(f.Keys[0][len("cache_store="):])
		if err != nil {
			f.Fatal(err)
		}
		client := goredis.NewClient(r)
		defer client.Close()
		if err := client.HIncrBy(f.Ctx, queue.QueueName()+":owner", "beat", time.Hour.Milliseconds()).Err(); err != nil {
			f.Fatal(err)
		}
		s.Start()
		v := at(f, s, "restarted")
		stands(v, behind.Owns)
		v.Exec(countHit, 1)
		v.Fresh(readHit, 1).Is("2")
	})
}

// The queue may have become its own server's since a process found that it is another's.
func TestAProcessThatStoodAsideSeesWhatItsServerHasTakenOver(t *testing.T) {
	served(t, func(f *harness.Fixture, s *pgtest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		clone := s.Clone()
		aside, other := at(f, clone, "aside"), at(f, clone, "other")
		stands(aside, behind.Foreign)
		stands(other, behind.Foreign)
		s.Crash()
		f.DB.Close()
		f.Until("the owner to be silent", func() bool {
			_, err := cachedpg.TakeOverQueue(f.Ctx, other.DB)
			return err == nil
		})
		other.Drained()
		tx, err := aside.Truth.(*sql.DB).BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(f.Ctx, "SELECT FROM cachedpg.queue FOR UPDATE"); err != nil {
			f.Fatal(err)
		}
		if !queues(other, countHit, 1) {
			f.Error("it does not queue")
		}
		// As if its last round had been before the take-over.
		inside.Queue(aside.DB).StandAside("the server that is gone")
		drains, read := cachedpg.StatsOf(aside.DB).Queue.Drains, make(chan string, 1)
		go func() { read <- aside.Read(aside.DB, readHit, []any{1}).String() }()
		f.Until("the reader to wait, or not to", func() bool { return len(read) > 0 || cachedpg.StatsOf(aside.DB).Queue.Drains > drains })
		f.Rollback(tx)
		if got := <-read; got != "2" {
			f.Errorf("read %s, want 2", got)
		}
	})
}
