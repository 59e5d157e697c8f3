package feed

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkFeedLag measures how long after the COMMIT of a plain pgx connection
// has returned the cache still answers with what was before: half of the
// commits are heard sooner than "p50-µs".
func BenchmarkFeedLag(b *testing.B) {
	onFeeds(b, func(b *testing.B, f *feedLag) {
		var lags []time.Duration
		for b.Loop() {
			f.cached()
			lags = append(lags, f.lag())
		}
		b.ReportMetric(micros(lags, 50), "p50-µs")
		b.ReportMetric(micros(lags, 99), "p99-µs")
	})
}

// BenchmarkFeedLagAfterDDL measures the same of a commit that comes right after a
// change of the schema, for which tags have to be made with another catalog, in turns
// with one that does not. "ddl/plain" is the ratio of the medians.
func BenchmarkFeedLagAfterDDL(b *testing.B) {
	for _, ddl := range []struct {
		name string
		sql  [2]string // in turns
	}{
		{"alter", [2]string{"ALTER TABLE other ADD COLUMN more int", "ALTER TABLE other DROP COLUMN more"}},
		{"create", [2]string{"CREATE TABLE made (id int PRIMARY KEY)", "DROP TABLE made"}},
		{"function", [2]string{"CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION made()"}},
	} {
		b.Run(ddl.name, func(b *testing.B) {
			onFeeds(b, func(b *testing.B, f *feedLag) {
				var plain, after []time.Duration
				for i := 0; b.Loop(); i++ {
					f.cached()
					plain = append(plain, f.lag())
					f.cached()
					f.exec(ddl.sql[i%2])
					after = append(after, f.lag())
				}
				b.ReportMetric(micros(plain, 50), "plain-µs")
				b.ReportMetric(micros(after, 50), "ddl-µs")
				b.ReportMetric(micros(after, 50)/micros(plain, 50), "ddl/plain")
				b.ReportMetric(0, "ns/op") // of both together: it says nothing
			})
		})
	}
}

// micros is a percentile of lags.
func micros(lags []time.Duration, percent int) float64 {
	slices.Sort(lags)
	return float64(lags[len(lags)*percent/100].Nanoseconds()) / 1000
}

// feedLag is a cache that follows the log, and somebody who writes past it.
type feedLag struct {
	*testing.B
	db   *sql.DB
	conn *pgx.Conn
	city string // what was read last
}

// onFeeds runs a benchmark with each store.
func onFeeds(b *testing.B, run func(b *testing.B, f *feedLag)) {
	for _, name := range []string{"memory", "redis"} {
		b.Run(name, func(b *testing.B) {
			database := pgtest.Database(b)
			pgtest.Exec(b, database, cachedpg.WALSetupSQL)
			pgtest.Exec(b, database, harness.People+"CREATE TABLE other (id int PRIMARY KEY);")
			dsn := harness.WithKey(database, "cache_external", "wal")
			if name == "redis" {
				dsn = harness.WithKey(dsn, "cache_store", pgtest.Redis(b))
			}
			db, err := sql.Open("cachedpg", dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			run(b, &feedLag{B: b, db: db, conn: pgtest.Connect(b, database)})
		})
	}
}

func (f *feedLag) exec(sql string) {
	f.Helper()
	if _, err := f.conn.Exec(f.Context(), sql); err != nil {
		f.Fatal(err)
	}
}

func (f *feedLag) read() (city string) {
	f.Helper()
	if err := f.db.QueryRow("SELECT city FROM users WHERE id = 1").Scan(&city); err != nil {
		f.Fatal(err)
	}
	return city
}

// cached returns when what is read comes from the cache.
func (f *feedLag) cached() {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		hits := cachedpg.StatsOf(f.db).Hits
		if f.city = f.read(); cachedpg.StatsOf(f.db).Hits > hits {
			return
		}
		if time.Now().After(deadline) {
			f.Fatal("it is never cached")
		}
	}
}

// lag writes past the driver and returns when that is read.
func (f *feedLag) lag() time.Duration {
	f.Helper()
	f.exec("UPDATE users SET city = city || 'x' WHERE id = 1")
	committed := time.Now()
	for f.read() == f.city {
		time.Sleep(20 * time.Microsecond) // the feed needs a processor too
	}
	return time.Since(committed)
}
