package cachedpg

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkFeedLag measures how long after the COMMIT of a plain pgx connection
// has returned the cache still answers with what was before: half of the
// commits are heard sooner than "p50-µs".
func BenchmarkFeedLag(b *testing.B) {
	for _, name := range []string{"memory", "redis"} {
		b.Run(name, func(b *testing.B) {
			database := pgtest.Database(b)
			pgtest.Exec(b, database, WALSetupSQL)
			pgtest.Exec(b, database, people)
			dsn := withKey(database, "cache_external", "wal")
			if name == "redis" {
				dsn = withKey(dsn, "cache_store", pgtest.Redis(b))
			}
			db, err := sql.Open("cachedpg", dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			conn := pgtest.Connect(b, database)
			n := 0
			read := func() (got int) {
				if err := db.QueryRow("SELECT length(city) FROM users WHERE id = 1").Scan(&got); err != nil {
					b.Fatal(err)
				}
				return got
			}
			cached := func() {
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
					hits := StatsOf(db).Hits
					if n = read(); StatsOf(db).Hits > hits {
						return
					}
					if time.Now().After(deadline) {
						b.Fatal("it is never cached")
					}
				}
			}
			var lags []time.Duration
			for b.Loop() {
				cached()
				if _, err := conn.Exec(b.Context(), "UPDATE users SET city = city || 'x' WHERE id = 1"); err != nil {
					b.Fatal(err)
				}
				committed := time.Now()
				for read() == n {
					time.Sleep(20 * time.Microsecond) // the feed needs a processor too
				}
				lags = append(lags, time.Since(committed))
			}
			slices.Sort(lags)
			b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
		})
	}
}
