package connections

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkHitsWhileEveryPlaceIsTaken compares the p99 of hits while sixteen statements sleep, with
// cache_max_conns=16 and without any limit, by ratio of medians. Each iteration is a hit of each of 64 goroutines.
func BenchmarkHitsWhileEveryPlaceIsTaken(b *testing.B) {
	const goroutines, slow, rounds = 64, 16, 40
	const nameByID = "SELECT name FROM users WHERE id = $1"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	database := pgtest.Database(b)
	pgtest.Exec(b, database, harness.People)
	var sleeping sync.WaitGroup
	defer sleeping.Wait()
	defer cancel()
	plain, err := sql.Open("pgx", database)
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	var dbs []*sql.DB
	for _, dsn := range []string{harness.WithKey(database, "cache_max_conns", "16"), database} {
		db, err := sql.Open("cachedpg", dsn)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		db.SetMaxIdleConns(goroutines + slow)
		var name string
		for cachedpg.StatsOf(db).Hits == 0 {
			if err := db.QueryRowContext(ctx, nameByID, 1).Scan(&name); err != nil {
				b.Fatal(err)
			}
		}
		for range slow {
			sleeping.Go(func() { _, _ = db.ExecContext(ctx, "SELECT pg_sleep(3600)") })
		}
		for asleep := 0; asleep < slow; {
			const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"
			if err := plain.QueryRowContext(ctx, query).Scan(&asleep); err != nil {
				b.Fatal(err)
			}
			asleep -= slow * len(dbs)
		}
		dbs = append(dbs, db)
	}
	each := max(20, b.N/rounds)
	var p50, p99 [2][]time.Duration
	round := func(db *sql.DB) []time.Duration {
		took := make([][]time.Duration, goroutines)
		var all sync.WaitGroup
		for g := range took {
			all.Go(func() {
				for range each {
					var name string
					begin := time.Now()
					if err := db.QueryRowContext(ctx, nameByID, 1).Scan(&name); err != nil {
						b.Error(err)
					}
					took[g] = append(took[g], time.Since(begin))
				}
			})
		}
		all.Wait()
		together := slices.Concat(took...)
		slices.Sort(together)
		return together
	}
	for i := range 2 * rounds {
		s := (i + i/2) % 2 // in turns, and each of them first
		took := round(dbs[s])
		p50[s], p99[s] = append(p50[s], took[len(took)/2]), append(p99[s], took[len(took)*99/100])
	}
	for s, name := range []string{"limit", "none"} {
		slices.Sort(p50[s])
		slices.Sort(p99[s])
		b.ReportMetric(float64(p50[s][rounds/2])/1e3, name+"-p50-µs")
		b.ReportMetric(float64(p99[s][rounds/2])/1e3, name+"-p99-µs")
	}
	b.ReportMetric(float64(p99[0][rounds/2])/float64(p99[1][rounds/2]), "×p99")
	b.ReportMetric(0, "ns/op")
}
