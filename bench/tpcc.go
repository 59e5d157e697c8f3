package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg"
)

const tpccName = "TPC-C"

// TPCC measures a workload that gains nothing of a cache: the five transactions of
// TPC-C in their usual mix, as programs for database/sql write them. Nearly every
// row that is read was changed since it was last read, or is read FOR UPDATE, and
// lists of random items have no key twice. Each worker has a warehouse of its
// own, so that none waits for another, and the systems do the very same transactions.
//
// Then the round trips of a transaction are counted.
func TPCC(ctx context.Context, out io.Writer, o Options, redis string, database func() (string, error)) (err error) {
	var in []*contender
	var runs []*tpcc
	defer func() {
		for _, c := range in {
			err = errors.Join(err, c.client.Close())
		}
	}()
	systems := tpccSystems()
	for _, s := range systems {
		dsn, err := database()
		if err != nil {
			return err
		}
		if err := loadTPCC(ctx, dsn); err != nil {
			return err
		}
		client, err := s.Open(Env{DSN: dsn, Redis: redis})
		if err != nil {
			return err
		}
		in = append(in, &contender{System: s, client: client})
		runs = append(runs, newTPCC(client.(*sqlClient).db))
	}
	n := o.Transactions
	for round := range o.Rounds {
		for i := range in {
			at := (i + round) % len(in)
			sample, err := runs[at].sample(ctx, n)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", tpccName, in[at].Name, err)
			}
			in[at].samples = append(in[at].samples, sample)
		}
	}
	printTable(out, Workload{Name: tpccName, Baseline: "pgx"}, in)
	for i, c := range in {
		sum, err := runs[i].sum(ctx)
		if err != nil {
			return err
		}
		if want, err := runs[0].sum(ctx); err != nil || sum != want {
			return errors.Join(fmt.Errorf("%s: %s ends with %s, pgx with %s", tpccName, c.Name, sum, want), err)
		}
		if c.Cached {
			s := cachedpg.StatsOf(runs[i].db)
			fmt.Fprintf(out, "  %-20s %d hits of %d lookups, bypassed: %v\n", c.Name, s.Hits, s.Lookups, s.Bypasses)
		}
	}
	fmt.Fprintf(out, "  %-20s %13s %10s\n", "trips, a transaction", "P", "R")
	for _, s := range systems {
		if err := tpccTrips(ctx, out, s, n, redis, database); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	return nil
}

func tpccTrips(ctx context.Context, out io.Writer, s System, n int, redis string, database func() (string, error)) (err error) {
	dsn, err := database()
	if err != nil {
		return err
	}
	if err := loadTPCC(ctx, dsn); err != nil {
		return err
	}
	client, log, closeAll, err := openWired(s, dsn, redis)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	run := newTPCC(client.db)
	for range 2 { // the first is to learn in
		log.forget()
		if _, err := run.sample(ctx, n); err != nil {
			return fmt.Errorf("%s of %s: %w", tpccName, s.Name, err)
		}
	}
	trips := log.String()
	fmt.Fprintf(out, "  %-20s %13.2f %10.2f\n", s.Name,
		float64(strings.Count(trips, "P"))/float64(n), float64(strings.Count(trips, "R"))/float64(n))
	return nil
}

// tpccSystems open when they are ready to cache.
func tpccSystems() []System {
	system := func(name, driver string, open func(Env) (dsn string, err error)) System {
		return System{Name: name, Cached: driver != "pgx", SQL: true, Open: func(e Env) (Client, error) {
			dsn, err := open(e)
			if err != nil {
				return nil, err
			}
			db, err := openDB(driver, dsn)
			if err != nil || driver == "pgx" {
				return &sqlClient{db: db}, err
			}
			err = until(context.Background(), "a hit", func() (bool, error) {
				var tax string
				err := db.QueryRow("SELECT w_tax FROM warehouse WHERE w_id = 1").Scan(&tax)
				return hits(db) > 0, err
			})
			return &sqlClient{db: db}, err
		}}
	}
	own := func(e Env) (string, error) { return e.DSN, nil }
	return []System{system("pgx", "pgx", own), system("cachedpg", "cachedpg", own),
		system("cachedpg+redis", "cachedpg", func(e Env) (string, error) { return withSettings(e.DSN, "cache_store="+e.Redis) })}
}

// tpcc is a run of the workload on one system.
type tpcc struct {
	db      *sql.DB
	workers [tpccWarehouses]*tpccWorker
}

func newTPCC(db *sql.DB) *tpcc {
	t := &tpcc{db: db}
	for i := range t.workers {
		t.workers[i] = &tpccWorker{db: db, warehouse: i + 1, rand: rand.New(rand.NewPCG(uint64(i), 0))}
	}
	return t
}

// sample runs n transactions.
func (t *tpcc) sample(ctx context.Context, n int) (Sample, error) {
	ctx = context.WithoutCancel(ctx)
	var before, after runtime.MemStats
	// The garbage of the system before must not be paid by this one.
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	errs := make([]error, len(t.workers))
	var wg sync.WaitGroup
	for i, w := range t.workers {
		wg.Go(func() {
			for range n / len(t.workers) {
				if errs[i] = w.transaction(ctx); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	runtime.ReadMemStats(&after)
	return Sample{
		NsPerOp:     float64(elapsed.Nanoseconds()) / float64(n),
		AllocsPerOp: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, errors.Join(errs...)
}

// sum is what all that was done has left in the tables.
func (t *tpcc) sum(ctx context.Context) (sum string, err error) {
	err = t.db.QueryRowContext(ctx, `SELECT concat_ws(' ', (SELECT sum(w_ytd) FROM warehouse), (SELECT sum(d_ytd + d_next_o_id) FROM district),
		(SELECT sum(c_balance) FROM customer), (SELECT count(*) FROM history), (SELECT count(o_carrier_id) FROM orders),
		(SELECT count(*) FROM new_order), (SELECT sum(s_quantity) FROM stock), (SELECT sum(ol_amount) FROM order_line))`).Scan(&sum)
	return sum, err
}
