package connections

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// small is a schema of 20 tables.
func small() string {
	var setup strings.Builder
	setup.WriteString(harness.People)
	for i := range 19 {
		fmt.Fprintf(&setup, "CREATE TABLE t%d (id int PRIMARY KEY, user_id int REFERENCES users, name text NOT NULL, at timestamptz DEFAULT now()); CREATE INDEX ON t%[1]d (user_id);", i)
	}
	return setup.String()
}

// BenchmarkStart gives the medians of what the first query of a DB takes, the first one of a further connection beyond that
// of pgx, and how long it is from opening to the first hit.
func BenchmarkStart(b *testing.B) {
	for _, store := range []string{"memory", "redis"} {
		b.Run(store, func(b *testing.B) {
			database := pgtest.Database(b)
			pgtest.Exec(b, database, small())
			ours := database
			if store == "redis" {
				ours = harness.WithKeys(database, []string{"cache_store=" + pgtest.Redis(b)})
			}
			took := make(map[string][]time.Duration)
			for b.Loop() {
				for _, who := range [][2]string{{"pgx", database}, {"cachedpg", ours}} {
					db, err := sql.Open(who[0], who[1])
					if err != nil {
						b.Fatal(err)
					}
					began := time.Now()
					note := func(what string) {
						took[who[0]+what] = append(took[who[0]+what], time.Since(began))
					}
					read := func(x harness.Asker) {
						rows, err := x.QueryContext(b.Context(), "SELECT name FROM users WHERE id = $1", 1)
						if err != nil {
							b.Fatal(err)
						}
						for rows.Next() {
						}
						if err := rows.Close(); err != nil {
							b.Fatal(err)
						}
					}
					read(db)
					note("-first")
					if who[0] == "cachedpg" {
						for cachedpg.StatsOf(db).Hits == 0 {
							time.Sleep(time.Millisecond) // the machine has something else to do
							read(db)
						}
						note("-hit")
					}
					first, err := db.Conn(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					began = time.Now()
					second, err := db.Conn(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					if _, err := second.ExecContext(b.Context(), "SELECT 'ours'"); err != nil {
						b.Fatal(err)
					}
					note("-further")
					_ = second.Close()
					_ = first.Close()
					if err := db.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			for what, all := range took {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2])/float64(time.Millisecond), what+"-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
