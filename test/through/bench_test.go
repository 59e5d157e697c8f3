package through

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkRefill measures an UPDATE of one row by key with so many warm results
// that depend on it, and the first read after it, with both strategies.
func BenchmarkRefill(b *testing.B) {
	for _, name := range []string{"memory", "redis"} {
		for _, warm := range []int{0, 1, 10} {
			b.Run(fmt.Sprintf("%s/%d", name, warm), func(b *testing.B) {
				database := pgtest.Database(b)
				pgtest.Exec(b, database, harness.People+"CREATE TABLE others AS TABLE users; ALTER TABLE others ADD PRIMARY KEY (id)")
				if name == "redis" {
					database = harness.WithKey(database, "cache_store", pgtest.Redis(b))
				}
				db, err := sql.Open("cachedpg", harness.WithKey(database, "cache_policy", "users:write-through"))
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				db.SetMaxOpenConns(1)
				harness.AwaitCaching(b, db)
				writes, reads := map[string][]time.Duration{}, map[string][]time.Duration{}
				timed := func(into map[string][]time.Duration, table string, f func() error) {
					begin := time.Now()
					err := f()
					if err != nil {
						b.Fatal(err)
					}
					into[table] = append(into[table], time.Since(begin))
				}
				n := 0
				for b.Loop() {
					n++
					for _, table := range []string{"users", "others"} {
						read := func(i int) func() error {
							return func() error {
								var city sql.NullString
								return db.QueryRow(fmt.Sprintf("SELECT city FROM %s WHERE id = $1 AND 1 <= $2", table), 1, 1+i).Scan(&city)
							}
						}
						for i := range warm {
							if err := read(i)(); err != nil {
								b.Fatal(err)
							}
						}
						timed(writes, table, func() error {
							_, err := db.Exec(fmt.Sprintf("UPDATE %s SET city = $1 WHERE id = 1", table), fmt.Sprint(n))
							return err
						})
						if warm > 0 {
							timed(reads, table, read(0))
						}
					}
				}
				for table, strategy := range map[string]string{"users": "through", "others": "aside"} {
					for what, all := range map[string][]time.Duration{"write": writes[table], "read": reads[table]} {
						if len(all) > 0 {
							slices.Sort(all)
							b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, strategy+"-"+what+"-µs")
						}
					}
				}
				if s := cachedpg.StatsOf(db); warm > 0 && s.Refilled < uint64(warm*(n-1)) {
					b.Errorf("refilled %d, skipped %d, failed %d of %d writes", s.Refilled, s.RefillSkipped, s.RefillFailed, n)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
