package behind

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
)

const behindBenchRows = 1000

// queueBench opens a database with a queue, in a Redis that writes each
// command to disk at once, or once a second.
func queueBench(b *testing.B, fsync string) (cached, plain *sql.DB) {
	b.Helper()
	r := redistest.Start(b, "--appendonly", "yes", "--appendfsync", fsync)
	database := pgtest.Database(b)
	pgtest.Exec(b, database, fmt.Sprintf("CREATE SCHEMA cachedpg; %s; CREATE TABLE hits (id int PRIMARY KEY, n int NOT NULL);"+
		"INSERT INTO hits SELECT i, 0 FROM generate_series(0, %d) i", behind.TableSQL, behindBenchRows-1))
	open := func(driver, dsn string) *sql.DB {
		db, err := sql.Open(driver, dsn)
		if err != nil {
			b.Fatal(err)
		}
		db.SetMaxIdleConns(32)
		b.Cleanup(func() { db.Close() })
		return db
	}
	var writes *invalidation.Coordinator
	b.Cleanup(func() { // what Close has applied is released before the Redis is gone
		for writes != nil && writes.Stats().Pending+writes.Stats().Unresolved > 0 {
			time.Sleep(time.Millisecond)
		}
	})
	cached = open("cachedpg", harness.WithKeys(database, []string{"cache_store=" + r.URL(), "cache_policy=hits:write-behind"}))
	if err := cached.Ping(); err != nil {
		b.Fatal(err)
	}
	writes = inside.Writes(cached)
	return cached, open("pgx", database)
}

// BenchmarkWriteBehind is the rate of single UPDATEs by key: acknowledged, and
// until PostgreSQL has the last of them. PostgreSQL writes to disk as it is
// configured: fsync is on where scripts/services has started it.
func BenchmarkWriteBehind(b *testing.B) {
	for _, goroutines := range []int{1, 32} {
		for _, side := range []string{"pgx", "always", "everysec"} {
			b.Run(fmt.Sprintf("%s/%d", side, goroutines), func(b *testing.B) {
				fsync := side
				if side == "pgx" {
					fsync = "everysec"
				}
				cached, plain := queueBench(b, fsync)
				db := cached
				if side == "pgx" {
					db = plain
				}
				ctx := context.Background()
				write := func(i int) {
					if _, err := db.ExecContext(ctx, countHit, i%behindBenchRows); err != nil {
						b.Error(err)
					}
				}
				write(0)
				var next atomic.Int64
				var group sync.WaitGroup
				begin := time.Now()
				b.ResetTimer()
				for range goroutines {
					group.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							write(int(i))
						}
					})
				}
				group.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "writes/s")
				if side == "pgx" {
					return
				}
				if err := inside.Queue(cached).Drain(ctx, false); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "applied/s")
			})
		}
	}
}

// BenchmarkReadThatDrains is the time of a read by key that finds so many
// writes queued, beside one that misses with an empty queue.
func BenchmarkReadThatDrains(b *testing.B) {
	for _, queued := range []int{0, 1, 100} {
		b.Run(fmt.Sprint(queued), func(b *testing.B) {
			cached, _ := queueBench(b, "everysec")
			ctx := context.Background()
			read := func(i int) {
				var n int
				if err := cached.QueryRowContext(ctx, readHit, i%behindBenchRows).Scan(&n); err != nil {
					b.Fatal(err)
				}
			}
			read(0)
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				for k := range queued {
					if _, err := cached.ExecContext(ctx, countHit, (i+k)%behindBenchRows); err != nil {
						b.Fatal(err)
					}
				}
				if queued == 0 {
					if err := cachedpg.Invalidate(ctx, cached, "hits"); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				read(i)
			}
		})
	}
}
