package bench

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Workload is one operation, done over and over.
type Workload struct {
	Name       string
	Baseline   string // the system to which ratios are given
	Goroutines int
	// Relaxed: commits do not wait for the disk, which hides everything else.
	Relaxed bool
	// Do is one operation; i differs in every call of a process.
	Do func(ctx context.Context, c Client, i int64) error
	// For says which systems it is for.
	For func(System) bool
}

// Workloads lists what is measured.
func Workloads() []Workload {
	near := func(s System) bool { return !s.Remote }
	far := func(s System) bool { return s.Remote || s.Name == "pgx" }
	database := func(s System) bool { return !s.Bare }
	queries := func(s System) bool { return s.SQL }
	hit := func(name, baseline string, goroutines int, which func(System) bool) Workload {
		return Workload{Name: name, Baseline: baseline, Goroutines: goroutines, For: which,
			Do: func(ctx context.Context, c Client, i int64) error {
				_, err := c.Item(ctx, 1+i%hot)
				return err
			}}
	}
	update := func(name string, relaxed bool, which func(System) bool) Workload {
		return Workload{Name: name, Baseline: "pgx", Goroutines: 1, Relaxed: relaxed, For: which,
			Do: func(ctx context.Context, c Client, i int64) error {
				return c.SetStock(ctx, 1+i%hot, i)
			}}
	}
	transaction := func(name string, relaxed bool) Workload {
		return Workload{Name: name, Baseline: "pgx", Goroutines: 1, Relaxed: relaxed, For: queries,
			Do: func(ctx context.Context, c Client, i int64) error {
				return c.(querier).SetStockInTx(ctx, 1+i%hot, i)
			}}
	}
	return []Workload{
		hit("hit by key", "pgx", 1, near),
		hit("hit by key, 8 goroutines", "pgx", 8, near),
		hit("hit by key, 64 goroutines", "pgx", 64, near),
		hit("hit by key in Redis", "MGET", 1, far),
		hit("hit by key in Redis, 8 goroutines", "MGET", 8, far),
		hit("hit by key in Redis, 64 goroutines", "MGET", 64, far),
		{Name: "miss by key", Baseline: "pgx", Goroutines: 1, For: queries,
			Do: func(ctx context.Context, c Client, i int64) error {
				_, err := c.(querier).Fresh(ctx, 1+i%hot, i)
				return err
			}},
		{Name: "bypassed query", Baseline: "pgx", Goroutines: 1, For: queries,
			Do: func(ctx context.Context, c Client, i int64) error {
				_, err := c.(querier).Volatile(ctx, 1+i%hot)
				return err
			}},
		update("update by key", false, database),
		transaction("update by key in a transaction", false),
		{Name: "99 reads, 1 update, 8 goroutines", Baseline: "pgx", Goroutines: 8, For: database,
			Do: func(ctx context.Context, c Client, i int64) error {
				// Neighbours in i are far apart in the table, so that the rows
				// read are not just those updated.
				id := 1 + i*7919%hot
				if i%100 == 0 {
					return c.SetStock(ctx, id, i)
				}
				_, err := c.Item(ctx, id)
				return err
			}},
		update("update by key, synchronous_commit=off", true, queries),
		transaction("update by key in a transaction, synchronous_commit=off", true),
	}
}

// Sample is one measurement.
type Sample struct {
	NsPerOp     float64 // wall time by operation, over all goroutines
	AllocsPerOp float64 // of the whole process
}

// counter numbers the operations of the process.
var counter atomic.Int64

// run does n operations, spread over the workload's goroutines.
func run(ctx context.Context, w Workload, c Client, n int) (Sample, error) {
	// For a context that can be cancelled database/sql starts a goroutine in
	// every query, which would hide the difference between drivers.
	ctx = context.WithoutCancel(ctx)
	first := counter.Add(int64(n)) - int64(n)
	workers := min(w.Goroutines, n)
	errs := make(chan error, workers)
	var before, after runtime.MemStats
	// The garbage of the system before must not be paid by this one.
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < n; i += workers {
				if err := w.Do(ctx, c, first+int64(i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	runtime.ReadMemStats(&after)
	select {
	case err := <-errs:
		return Sample{}, fmt.Errorf("%s: %w", w.Name, err)
	default:
	}
	return Sample{
		NsPerOp:     float64(elapsed.Nanoseconds()) / float64(n),
		AllocsPerOp: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}

// calibrate finds how many operations take about d.
func calibrate(ctx context.Context, w Workload, c Client, d time.Duration) (int, error) {
	for n := 16; ; n *= 4 {
		s, err := run(ctx, w, c, n)
		if err != nil {
			return 0, err
		}
		if took := time.Duration(s.NsPerOp * float64(n)); took > d/8 || n > 1<<26 {
			return max(1, int(float64(d.Nanoseconds())/s.NsPerOp)), nil
		}
	}
}
