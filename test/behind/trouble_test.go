package behind

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
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

func TestAStatementThatFailsGoesToTheDeadLetters(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		var mu sync.Mutex
		var letters []cachedpg.DeadLetter
		f.Via = told(f, func(l cachedpg.DeadLetter) {
			mu.Lock()
			defer mu.Unlock()
			letters = append(letters, l)
		})
		release := heldQueue(f)
		f.Exec(countHit, 1)
		f.Exec("INSERT INTO hits (id, n, seen) VALUES ($1, $2, $3)", 1, 1, nil) // there is one
		f.Exec(countHit, 1)
		f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 1, 2000000) // the check
		f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 2, "ten")   // no number
		f.Exec(countHit, 1)
		if _, err := r.Client().XAdd(f.Ctx, &goredis.XAddArgs{Stream: inside.Queue(f.Via.DB).Store().QueueName(), Values: []string{"w", "poison"}}).Result(); err != nil {
			f.Fatal(err)
		}
		f.Exec(countHit, 2)
		release()
		f.Fresh("SELECT id, n FROM hits WHERE id < 3 ORDER BY id").Is("1 3, 2 1")
		f.Drained()
		mu.Lock()
		defer mu.Unlock()
		s := cachedpg.StatsOf(f.Via.DB).Queue
		if s.Dead != 4 || s.Applied != 8 || len(letters) != 4 || s.Length != 0 {
			f.Fatalf("%+v, %d letters", s, len(letters))
		}
		if letters[0].SQLState != "23505" || letters[1].SQLState != "23514" || !strings.HasPrefix(letters[0].SQL, "INSERT") {
			f.Errorf("%+v", letters)
		}
		dead, err := r.Client().XRange(f.Ctx, s.DeadLetters, "-", "+").Result()
		if err != nil || len(dead) != 4 || dead[0].Values["sqlstate"] != "23505" || dead[0].Values["id"] != letters[0].ID {
			f.Errorf("%v, %v", dead, err)
		}
	})
}

func TestALongQueueMakesWritersWait(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		small := f.With("cache_queue_max=3")
		small.Known("SELECT n FROM others WHERE id = 1")
		small.Drained()
		release := heldQueue(f)
		for range 3 {
			small.Exec(countHit, 1)
		}
		ctx, cancel := context.WithTimeout(f.Ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := small.DB.ExecContext(ctx, countHit, 1); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cache_queue_max") {
			f.Errorf("%v", err)
		}
		done := make(chan error)
		go func() {
			_, err := small.DB.ExecContext(f.Ctx, countHit, 1)
			done <- err
		}()
		release()
		if err := <-done; err != nil {
			f.Error(err)
		}
		f.Fresh(readHit, 1).Is("4")
	})
}

func TestCloseAppliesWhatIsQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		other := f.With()
		other.Exec(countHit, 1)
		if err := other.DB.Close(); err != nil {
			f.Fatal(err)
		}
		if got := inPostgres(f, readHit, 1); got != "1" {
			f.Errorf("after Close PostgreSQL has %s, want 1", got)
		}
	})
}

func TestWithoutItsTableNothingIsQueued(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+r.URL(), "cache_policy=users:write-behind")
	if _, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id = 1"); !errors.Is(err, behind.ErrNoTable) {
		t.Errorf("%v", err)
	}
	f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
	f.Past("CREATE SCHEMA cachedpg; " + behind.TableSQL)
	f.Exec("UPDATE users SET city = 'x' WHERE id = 1")
	f.Fresh(harness.UserByID, 1).Is("1 ann x")
}

func TestAQueueThatCannotBeReachedIsAnError(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(readHit, 1)
		f.Drained()
		r.Kill()
		for _, query := range []string{"UPDATE hits SET n = 9 WHERE id = 1", "SELECT n FROM hits WHERE id = 1"} {
			if _, err := f.DB.ExecContext(f.Ctx, query); err == nil || !strings.Contains(err.Error(), "write-behind") {
				f.Errorf("%s: %v", query, err)
			}
		}
		f.Fresh("SELECT n FROM others WHERE id = 1") // it has nothing to do with the queue
		if got := inPostgres(f, readHit, 1); got != "0" {
			f.Errorf("%s", got)
		}
	})
}

// The stream outlives a Redis that keeps it on disk, the marks and the entries do not.
func TestAQueueSurvivesARestartOfRedis(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	f := harness.New(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind")
	f.Again(readHit, 1)
	release := heldQueue(f)
	for range 5 {
		f.Exec(countHit, 1)
	}
	if s := cachedpg.StatsOf(f.DB).Queue; s.Risk != "" {
		f.Errorf("risk: %s", s.Risk)
	}
	r.Kill()
	r.Restart()
	release()
	f.Until("the store", func() bool { return !cachedpg.StatsOf(f.DB).Shared.Down })
	f.Fresh(readHit, 1).Is("5")
	f.Drained()
}

func TestARedisThatHasLostTheQueueIsNoticed(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("1")
		f.Drained()
		f.Past("UPDATE cachedpg.queue SET position = '99999999999999-3'") // as if the clock had been put back
		r.Kill()
		r.Restart()
		f.Until("the store", func() bool { return !cachedpg.StatsOf(f.DB).Shared.Down })
		other := f.Process("b")
		f.Until("the loss to be seen", func() bool { return cachedpg.StatsOf(other.DB).Queue.Lost == 1 })
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("2")
	})
}

func TestWriteBehindNeedsARedisOfOnePiece(t *testing.T) {
	for store, want := range map[string]string{"memory": "queues writes in a Redis", "redis+cluster://127.0.0.1:1": "Cluster"} {
		_, _, err := cachedpg.ParseConfig("postgres://127.0.0.1/x?cache_policy=hits:write-behind&cache_store=" + url.QueryEscape(store))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", store, err)
		}
	}
}

func TestCloseTellsWhatIsNotApplied(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		other := f.With()
		other.Exec(countHit, 1)
		other.Drained()
		release := heldQueue(f)
		other.Exec(countHit, 1)
		if err := other.DB.Close(); err == nil || !strings.Contains(err.Error(), "write-behind") {
			f.Errorf("Close: %v", err)
		}
		release()
		f.Fresh(readHit, 1).Is("2")
	})
}

func TestAnEndedContextIsToldAsSuch(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Drained()
		r.Pause()
		defer r.Resume()
		ctx, cancel := context.WithTimeout(f.Ctx, 20*time.Millisecond)
		defer cancel()
		if _, err := f.DB.ExecContext(ctx, countHit, 1); !errors.Is(err, context.DeadlineExceeded) {
			f.Errorf("%v", err)
		}
	})
}
