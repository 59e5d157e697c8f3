package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
)

// pattern is a way to keep what was read.
type pattern struct {
	name  string
	write func(id int, city string) error
	read  func(id int) (city string, err error)
}

// patterns are those of docs/patterns.md that a row by key goes through in the
// foreground, all on one table and one Redis, with a row each.
func patterns(b *testing.B) []pattern {
	database, redis := pgtest.Database(b), pgtest.Redis(b)
	pgtest.Exec(b, database, harness.People+"INSERT INTO users SELECT i, 'x', 'x' FROM generate_series(4, 100) i")
	if err := cachedpg.Setup(b.Context(), open(b, "pgx", database)); err != nil {
		b.Fatal(err)
	}
	plain := open(b, "pgx", database)
	of := func(db *sql.DB) (write func(int, string) error, read func(int) (string, error)) {
		return func(id int, city string) error {
				_, err := db.Exec("UPDATE users SET city = $2 WHERE id = $1", id, city)
				return err
			}, func(id int) (city string, err error) {
				err = db.QueryRow("SELECT city FROM users WHERE id = $1", id).Scan(&city)
				return city, err
			}
	}
	write, read := of(plain)
	all := []pattern{{"pgx", write, read}}

	options, err := goredis.ParseURL(redis)
	if err != nil {
		b.Fatal(err)
	}
	client := goredis.NewClient(options)
	b.Cleanup(func() { client.Close() })
	key := func(id int) string { return fmt.Sprintf("%s:users:%d", b.Name(), id) }
	all = append(all, pattern{"by-hand", func(id int, city string) error {
		if err := write(id, city); err != nil {
			return err
		}
		return client.Del(b.Context(), key(id)).Err()
	}, func(id int) (string, error) {
		city, err := client.Get(b.Context(), key(id)).Result()
		if !errors.Is(err, goredis.Nil) {
			return city, err
		}
		if city, err = read(id); err != nil {
			return "", err
		}
		return city, client.Set(b.Context(), key(id), city, time.Hour).Err()
	}})
	for _, p := range []struct {
		name string
		keys []string
	}{
		{"strict", nil},
		{"eventual", []string{"cache_consistency=eventual"}},
		{"ttl", []string{"cache_policy=users:ttl:1h"}},
		{"write-through", []string{"cache_policy=users:write-through"}},
		{"outbox", []string{"cache_outbox=always"}},
	} {
		db := open(b, "cachedpg", harness.WithKeys(database, append(p.keys, "cache_store="+redis)))
		harness.AwaitCaching(b, db)
		write, read := of(db)
		all = append(all, pattern{p.name, write, read})
	}
	return all
}

func open(b *testing.B, driver, dsn string) *sql.DB {
	b.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxIdleConns(32)
	b.Cleanup(func() { db.Close() })
	return db
}

// BenchmarkPatterns gives the median of a write by key, of the read right after it
// and of one that comes from the cache, as multiples of plain pgx's in the same run.
func BenchmarkPatterns(b *testing.B) {
	all := patterns(b)
	moments := []string{"write", "read", "settle", "hit"}
	took := make(map[string][]time.Duration)
	n := 0
	for b.Loop() {
		n++
		for i := range all {
			p := &all[(i+n)%len(all)] // nobody is always behind the same one
			id := 10 + (i+n)%len(all)
			city := fmt.Sprint(n)
			for _, moment := range moments {
				var got string
				var err error
				begin := time.Now()
				switch moment {
				case "write":
					err = p.write(id, city)
				case "settle": // the marks are released, and the entry is there
					_, _ = p.read(id)
					got, err = p.read(id)
				default:
					got, err = p.read(id)
				}
				took[p.name+"-"+moment] = append(took[p.name+"-"+moment], time.Since(begin))
				if err != nil || moment != "write" && got != city && p.name != "ttl" && p.name != "eventual" {
					b.Fatalf("%s, %s: got %s, %v, want %s", p.name, moment, got, err, city)
				}
			}
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2])
	}
	for _, p := range all {
		for _, moment := range []string{"write", "read", "hit"} {
			unit := p.name + "-" + moment
			if p.name == "pgx" {
				b.ReportMetric(median(unit)/1000, unit+"-µs")
			} else {
				b.ReportMetric(median(unit)/median("pgx-"+moment), unit)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRelayLag is the time from the return of a commit until a relay's sink has
// its event.
func BenchmarkRelayLag(b *testing.B) {
	database := pgtest.Database(b)
	pgtest.Exec(b, database, harness.People+cachedpg.SetupSQL())
	db := open(b, "cachedpg", harness.WithKeys(database, []string{"cache_outbox=always", "cache_store=" + pgtest.Redis(b)}))
	harness.AwaitCaching(b, db)
	got := make(chan time.Time, 100)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- cachedpg.Relay(ctx, db, cachedpg.RelayOptions{Sink: invalidation.SinkFunc(func(_ context.Context, events []invalidation.Event) error {
			for range events {
				got <- time.Now()
			}
			return nil
		})})
	}()
	var lags []time.Duration
	for b.Loop() {
		if _, err := db.Exec("UPDATE users SET city = city || 'x' WHERE id = 1"); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		lags = append(lags, (<-got).Sub(committed))
	}
	cancel()
	if err := <-done; !strings.Contains(fmt.Sprint(err), "canceled") {
		b.Error(err)
	}
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op")
}
