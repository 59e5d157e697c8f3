package session

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// sessionPattern is one request of a program that sets something for it. read reads five
// rows by key.
type sessionPattern struct {
	name    string
	pool    bool // of pgx is under the DB
	first   int  // how many requests meet something for the first time; some dozens if it is 0
	request func(b *testing.B, db *sql.DB, n int, read func(harness.Asker))
}

const manyTenants = 300 // more than a pool has connections, and than any bound that is meant for few

var sessionPatterns = []sessionPattern{
	{name: "search_path", request: func(b *testing.B, db *sql.DB, n int, read func(harness.Asker)) {
		betweenSettings(b, db, read, fmt.Sprintf("SET search_path = t%d", n%4), "RESET search_path")
	}},
	{name: "local", request: func(b *testing.B, db *sql.DB, _ int, read func(harness.Asker)) {
		tx, err := db.Begin()
		if err == nil {
			_, err = tx.Exec("SET LOCAL app.tenant = '7'")
		}
		if err != nil {
			b.Fatal(err)
		}
		read(tx)
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}},
	{name: "zone-plans", request: func(b *testing.B, db *sql.DB, n int, read func(harness.Asker)) {
		betweenSettings(b, db, read, "SET TIME ZONE '"+zones[n%len(zones)]+"'", "DISCARD PLANS")
	}},
	{name: "zone-reset", request: func(b *testing.B, db *sql.DB, n int, read func(harness.Asker)) {
		betweenSettings(b, db, read, "SET TIME ZONE '"+zones[n%len(zones)]+"'", "RESET ALL")
	}},
	{name: "pool", pool: true, request: func(_ *testing.B, db *sql.DB, _ int, read func(harness.Asker)) { read(db) }},
	{name: "tenants", first: 2 * manyTenants, request: func(b *testing.B, db *sql.DB, n int, read func(harness.Asker)) {
		betweenSettings(b, db, read, fmt.Sprintf("SET search_path = t%d", n%manyTenants), "RESET search_path")
	}},
}

var zones = []string{"Asia/Tokyo", "Europe/Oslo", "UTC", "America/Lima"}

func betweenSettings(b *testing.B, db *sql.DB, read func(harness.Asker), before, after string) {
	conn, err := db.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(b.Context(), before); err != nil {
		b.Fatal(err)
	}
	read(conn)
	if _, err := conn.ExecContext(b.Context(), after); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSessionPatterns gives what requests of each pattern take with every read a hit and with every read a
// miss, as multiples of plain pgx's in the same run. With Redis a hit by one client alone is a round trip
// as a SELECT by key is, to a server on the same machine; mget is what that takes by go-redis.
func BenchmarkSessionPatterns(b *testing.B) {
	for _, store := range []string{"memory", "redis"} {
		for _, clients := range []int{1, 8} {
			for _, p := range sessionPatterns {
				b.Run(fmt.Sprintf("%s/%d/%s", store, clients, p.name), func(b *testing.B) { p.run(b, store, clients) })
			}
		}
	}
}

// sessionDatabase has a table for who sets no path, and one for each tenant.
func sessionDatabase(tb testing.TB) string {
	database := pgtest.Database(tb)
	var setup strings.Builder
	setup.WriteString("CREATE TABLE public.items (id int PRIMARY KEY, name text, at timestamptz);")
	for i := range manyTenants {
		fmt.Fprintf(&setup, "CREATE SCHEMA t%d; CREATE TABLE t%d.items (id int PRIMARY KEY, name text, at timestamptz); INSERT INTO t%[1]d.items SELECT i, 't%[1]d', now() FROM generate_series(1, 20) i;", i, i)
	}
	pgtest.Exec(tb, database, setup.String()+"INSERT INTO public.items SELECT i, 'x', now() FROM generate_series(1, 20) i")
	return database
}

func (p *sessionPattern) run(b *testing.B, store string, clients int) {
	database := sessionDatabase(b)
	var keys []string
	var client *goredis.Client
	if store == "redis" {
		keys = append(keys, "cache_store="+pgtest.Redis(b))
		options, err := goredis.ParseURL(pgtest.Redis(b))
		if err != nil {
			b.Fatal(err)
		}
		client = goredis.NewClient(options)
		defer client.Close()
	}
	dbs := map[string]*sql.DB{"pgx": p.open(b, database, nil), "ours": p.open(b, database, append(keys, "cache_ttl=1h"))}
	harness.AwaitCaching(b, dbs["ours"])
	took := make(map[string][]time.Duration)
	var absent atomic.Int64
	requests := func(who, moment string, n int) {
		begin := time.Now()
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				if who == "mget" {
					for range 5 {
						client.MGet(b.Context(), "a", "b", "c", "d", "e", "f")
					}
					return
				}
				first, query := int64(1), "SELECT name, at FROM items WHERE id = $1"
				if moment == "miss" { // a text of its own: what is never asked for again is not looked up for long
					first, query = absent.Add(5)+1000, "SELECT at, name FROM items WHERE id = $1"
				}
				p.request(b, dbs[who], n+i, func(x harness.Asker) {
					for id := first; id < first+5; id++ {
						rows, err := x.QueryContext(context.Background(), query, id)
						if err != nil {
							b.Error(err)
							return
						}
						for rows.Next() {
						}
						if err := rows.Close(); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
		all.Wait()
		took[who+"-"+moment] = append(took[who+"-"+moment], time.Since(begin))
	}
	for n := range max(p.first, 60) { // what everybody does the first time
		for _, moment := range []string{"hit", "miss"} {
			requests("ours", moment, n)
			requests("pgx", moment, n)
		}
	}
	clear(took)
	n := 0
	for b.Loop() {
		n++
		for _, moment := range []string{"hit", "miss"} {
			for _, who := range []string{"pgx", "ours", "pgx"}[n%2 : n%2+2] {
				requests(who, moment, n)
			}
		}
		if client != nil {
			requests("mget", "hit", n)
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2])
	}
	for _, moment := range []string{"hit", "miss"} {
		b.ReportMetric(median("ours-"+moment)/median("pgx-"+moment), moment+"/pgx")
	}
	if client != nil {
		b.ReportMetric(median("mget-hit")/median("pgx-hit"), "mget/pgx")
	}
	b.ReportMetric(median("pgx-hit")/1000, "pgx-µs")
	b.ReportMetric(0, "ns/op")
}

// open gives pgx for nil keys.
func (p *sessionPattern) open(b *testing.B, database string, keys []string) *sql.DB {
	if !p.pool {
		if keys == nil {
			return open(b, "pgx", database)
		}
		return open(b, "cachedpg", harness.WithKeys(database, keys))
	}
	config, err := pgxpool.ParseConfig(database)
	if err != nil {
		b.Fatal(err)
	}
	t := cachedpg.NewTracer()
	if config.MaxConns = 8; keys != nil {
		config.ConnConfig.Tracer = t
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	connector := stdlib.GetPoolConnector(pool)
	if keys != nil {
		_, own, err := cachedpg.ParseConfig(harness.WithKeys(database, keys))
		if err != nil {
			b.Fatal(err)
		}
		if connector, err = cachedpg.WrapConnector(connector, own, t); err != nil {
			b.Fatal(err)
		}
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(0)
	b.Cleanup(func() { db.Close() })
	return db
}
