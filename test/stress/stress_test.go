package stress

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/store"
)

// run works for d, on a slow machine until enough has happened, or until a
// violation is found.
func (s *stress) run(tb testing.TB, d time.Duration, enough func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), d+20*time.Second)
	defer cancel()
	s.stop = cancel
	timer := time.AfterFunc(d, func() {
		for !enough() && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	})
	defer timer.Stop()
	workers := make([]*worker, stressWorkers)
	for i := range workers { // before connections are terminated
		db := s.dbs[i%len(s.dbs)]
		byID, err := db.Prepare("SELECT slot, ver FROM account WHERE id = $1")
		if err != nil {
			tb.Fatal(err)
		}
		defer byID.Close()
		workers[i] = &worker{stress: s, rng: rand.New(rand.NewPCG(s.seed, uint64(i))), db: db, byID: byID}
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				w.step(ctx)
			}
		})
	}
	wg.Go(func() { s.terminate(ctx) })
	if s.kind.disk {
		wg.Go(func() { s.flush(ctx) })
	}
	wg.Wait()
	for _, db := range s.dbs {
		stats := cachedpg.StatsOf(db)
		tb.Logf("hits %d, misses %d, stale %d, joined %d, bypassed %v, evicted %d, expired %d, unknown %d",
			stats.Hits, stats.Misses, stats.Stale, stats.Joined, stats.Bypasses, stats.Evictions, stats.Expirations, stats.UnknownOutcome)
	}
	tb.Logf("%d reads, %d writes, %d failed", s.reads.Load(), s.writes.Load(), s.failures.Load())
}

// terminate kills a random connection now and then, from outside.
func (s *stress) terminate(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
		}
		_, _ = s.plain.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM
			(SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'stressed' ORDER BY random() LIMIT 1) s`)
	}
}

// flush commits something now and then, and waits for the disk.
func (s *stress) flush(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		_, _ = s.plain.ExecContext(ctx, "SELECT pg_logical_emit_message(true, '', '')")
	}
}

// replay is how to run the same again, as far as goroutines repeat themselves.
func (s *stress) replay(tb testing.TB) string {
	return fmt.Sprintf("again: go test -race -run '^%s$' -stress.seed=%d -stress.duration=%v ./test/stress", tb.Name(), s.seed, *stressDuration)
}

// settle waits until every outcome is known and no tag is marked any more.
func (s *stress) settle(tb testing.TB) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		unresolved, dirty := cachedpg.StatsOf(s.dbs[0]).Unresolved, inside.Store(s.dbs[0]).(interface{ Stats() store.MemoryStats }).Stats().DirtyTags
		if unresolved == 0 && dirty == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%d outcomes unknown and %d tags dirty long after the last write\n%s", unresolved, dirty, s.replay(tb))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// worker is one goroutine's view.
type worker struct {
	*stress
	rng  *rand.Rand
	db   *sql.DB
	byID *sql.Stmt
}

// step does one thing, now and then with a context that ends at any moment.
func (w *worker) step(ctx context.Context) {
	share := 40
	if w.kind.late {
		share = 8
	}
	if w.rng.IntN(share) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(w.rng.IntN(4000))*time.Microsecond)
		defer cancel()
	}
	read, write := w.read, w.write
	if w.kind.views {
		read, write = w.readSwing, w.writeSwing
	}
	var err error
	if w.rng.IntN(20) > 0 {
		w.reads.Add(1)
		err = read(ctx, w.db, nil)
	} else {
		w.writes.Add(1)
		err = write(ctx)
	}
	if err != nil {
		w.failures.Add(1)
		if !expected(err) {
			w.violate("unexpected error: %v", err)
		}
	}
}

// expected are errors that cancelled contexts and killed connections lead to.
func expected(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "57P01", "57014", "40P01": // terminated, cancelled, deadlock
			return true
		}
		return false
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrTxDone) ||
		errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) || pgconn.Timeout(err) ||
		strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "conn closed") ||
		strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "broken pipe")
}

func TestStress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		share  time.Duration // of ten
		kind   stressKind
		enough func(cachedpg.Stats) bool
	}{
		{"default", 3, stressKind{}, func(cachedpg.Stats) bool { return true }},
		{"late packets", 2, stressKind{late: true}, func(s cachedpg.Stats) bool { return s.UnknownOutcome > 0 }},
		{"swinging view", 2, stressKind{views: true}, func(cachedpg.Stats) bool { return true }},
		{"little memory", 1, stressKind{keys: []string{"cache_memory=16KiB", "cache_max_entry=4KiB"}}, func(s cachedpg.Stats) bool { return s.Evictions > 0 }},
		{"small entries", 1, stressKind{keys: []string{"cache_max_entry=64"}}, func(s cachedpg.Stats) bool { return s.TooLarge > 0 }},
		{"short life", 1, stressKind{keys: []string{"cache_ttl=2ms"}}, func(s cachedpg.Stats) bool { return s.Expirations > 0 }},
		{"commits that do not wait for the disk", 1, stressKind{keys: []string{"synchronous_commit=off"}, disk: true}, func(cachedpg.Stats) bool { return true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStress(t, tc.kind)
			s.run(t, *stressDuration*tc.share/10, func() bool { return s.used() && tc.enough(cachedpg.StatsOf(s.dbs[0])) })
			if v := s.violated(); v != "" {
				t.Fatalf("%s\n%s", v, s.replay(t))
			}
			s.settle(t)
			if stats := cachedpg.StatsOf(s.dbs[0]); !s.used() || !tc.enough(stats) {
				t.Errorf("little has been tried: %+v", stats)
			}
			s.sweep(t, tc.kind.keys == nil)
		})
	}
}

// used reports that there were entries, and that commits made some of them stale.
func (s *stress) used() bool {
	hits, stale := uint64(0), uint64(0)
	for _, db := range s.dbs {
		stats := cachedpg.StatsOf(db)
		hits += stats.Hits
		stale += stats.Stale
	}
	return hits > 100 && stale > 20
}

// sweep compares everything that was read with the truth, after the last write.
func (s *stress) sweep(t *testing.T, cached bool) {
	for _, db := range append(slices.Clone(s.dbs), s.plain) {
		// A session that was ended a moment ago may still be in the pool, and
		// says so to whoever uses it next.
		db.SetMaxIdleConns(0)
		db.SetMaxIdleConns(2)
	}
	for _, db := range s.dbs {
		// So may the one by which others see the process: then it is cold.
		if _, shared := inside.Store(db).(store.Shared); !shared {
			if _, err := inside.Peers(db).(*peers.Peers).Alone(); err != nil {
				t.Fatal(err)
			}
		}
		o := &harness.Oracle{Plain: s.plain, Cached: db, Dests: harness.FewDestinations}
		questions := s.everyRead()
		if s.kind.views {
			questions = swingReads
		}
		for _, q := range questions {
			met, until := o.Agree(t, q.text, q.args...), time.Now().Add(harness.Timeout)
			for cached && !strings.HasSuffix(met, "hit") { // the catalog may still have to be loaded
				if time.Now().After(until) {
					t.Fatalf("%s: got %q, want a hit in the end\n%s", q.text, met, s.replay(t))
				}
				met = o.Agree(t, q.text, q.args...)
			}
		}
	}
	if t.Failed() {
		t.Log(s.replay(t))
	}
}
