package writes

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var ddlTables = flag.Int("ddl.tables", 50, "how many tables BenchmarkReadsBesideDDL makes; with 10000 it takes minutes, and shows what the size of a schema costs")

// BenchmarkReadsBesideDDL compares how many rows eight readers get a second while somebody changes the schema of another
// table every 200 ms, through the same driver: with pgx, in memory and with Redis, each in turns, by ratio of medians.
// An iteration is a second of each.
func BenchmarkReadsBesideDDL(b *testing.B) {
	b.Run(fmt.Sprintf("tables=%d", *ddlTables), func(b *testing.B) {
		var sides []*besideDDL
		for _, name := range []string{"pgx", "memory", "redis"} {
			sides = append(sides, newBesideDDL(b, name, *ddlTables))
		}
		for name, ddl := range map[string][2]string{ // in turns
			"alter":  {"ALTER TABLE other ADD COLUMN more int", "ALTER TABLE other DROP COLUMN more"},
			"create": {"CREATE TABLE made (id int PRIMARY KEY, name text)", "DROP TABLE made"},
		} {
			b.Run(name, func(b *testing.B) { benchmarkReadsBeside(b, sides, ddl) })
		}
	})
}

func benchmarkReadsBeside(b *testing.B, sides []*besideDDL, ddl [2]string) {
	rates := make([][]float64, len(sides))
	for i := range b.N * len(sides) {
		s := (i + i/len(sides)) % len(sides)
		rates[s] = append(rates[s], sides[s].run(b, ddl, time.Second))
	}
	median := func(s int) float64 {
		slices.Sort(rates[s])
		return rates[s][len(rates[s])/2]
	}
	for s, side := range sides {
		b.ReportMetric(median(s), side.name+"-reads/s")
		if s > 0 {
			b.ReportMetric(median(s)/median(0), side.name+"/pgx")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// besideDDL is a database of its own, for DDL of one would be foreign to the others.
type besideDDL struct {
	name string
	db   *sql.DB
	done map[[2]string]int // how many of which DDL
}

const besideTables, besideRows = 4, 100

func newBesideDDL(b *testing.B, name string, tables int) *besideDDL {
	b.Helper()
	database := pgtest.Database(b)
	var setup strings.Builder
	setup.WriteString("CREATE TABLE other (id int PRIMARY KEY);\n")
	for i := range tables {
		fmt.Fprintf(&setup, "CREATE TABLE t%d (id int PRIMARY KEY, name text);\n", i)
		if i < besideTables {
			fmt.Fprintf(&setup, "INSERT INTO t%d SELECT i, 'bob' FROM generate_series(1, %d) i;\n", i, besideRows)
		}
		if i%500 == 499 || i == tables-1 { // the locks of one transaction are bounded
			pgtest.Exec(b, database, setup.String())
			setup.Reset()
		}
	}
	pgtest.Exec(b, database, "VACUUM ANALYZE")
	driver, dsn := "cachedpg", database
	switch name {
	case "pgx":
		driver = "pgx"
	case "redis":
		dsn = harness.WithKey(dsn, "cache_store", pgtest.Redis(b))
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxIdleConns(16)
	d := &besideDDL{name: name, db: db, done: make(map[[2]string]int)}
	if name != "pgx" {
		harness.AwaitCaching(b, db)
	}
	d.read(b, 200*time.Millisecond)
	return d
}

// read has eight readers read for a while, and returns how many rows they got.
func (d *besideDDL) read(b *testing.B, duration time.Duration) int64 {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var texts [besideTables]string
	for i := range texts {
		texts[i] = fmt.Sprintf("SELECT name FROM t%d WHERE id = $1", i)
	}
	var reads atomic.Int64
	var all sync.WaitGroup
	for r := range 8 {
		all.Go(func() {
			for i := r * 13; ctx.Err() == nil; i++ {
				var name string
				if err := d.db.QueryRow(texts[i%besideTables], 1+i/besideTables%besideRows).Scan(&name); err != nil {
					b.Error(err)
					return
				}
				reads.Add(1)
			}
		})
	}
	time.Sleep(duration)
	cancel()
	all.Wait()
	return reads.Load()
}

// run is read beside DDL.
func (d *besideDDL) run(b *testing.B, ddl [2]string, duration time.Duration) (rate float64) {
	b.Helper()
	begun := time.Now()
	var changes sync.WaitGroup
	stop := make(chan struct{})
	changes.Go(func() {
		for tick := time.Tick(200 * time.Millisecond); ; {
			select {
			case <-tick:
			case <-stop:
				return
			}
			if _, err := d.db.Exec(ddl[d.done[ddl]%2]); err != nil {
				b.Error(err)
				return
			}
			d.done[ddl]++
		}
	})
	reads := d.read(b, duration)
	rate = float64(reads) / time.Since(begun).Seconds()
	close(stop)
	changes.Wait()
	return rate
}
