package outages

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

// A store that cannot be used as configured: Ping says what is wrong, and
// everything else works without it.
func TestAStoreThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	secured := redistest.Start(t, "--requirepass", "opensesame")
	plain := redistest.Start(t)
	replica := redistest.Replica(t, plain)
	encrypted := redistest.TLS(t)
	if err := plain.Client().Do(t.Context(), "ACL", "SETUSER", "weak", "on", ">opensesame", "~*", "+get", "+info", "+ping").Err(); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()

	for _, tc := range []struct {
		name, url string
		want      []string // in the error of Ping
	}{
		{"no password", "redis://" + secured.Addr(), []string{"cache_store", "NOAUTH"}},
		{"a wrong password", "redis://:wrongsesame@" + secured.Addr(), []string{"cache_store", "WRONGPASS"}},
		{"a user who may not", "redis://weak:opensesame@" + plain.Addr(), []string{"cache_store", "NOPERM"}},
		{"nobody there", "redis://" + nobody.Addr().String(), []string{"cache_store", "refused"}},
		{"no such host", "redis://nowhere.invalid:6379", []string{"cache_store", "nowhere.invalid"}},
		{"a replica", "redis://" + replica.Addr(), []string{"cache_store", "want a master"}},
		{"plain where TLS is spoken", "redis://" + encrypted.Addr(), []string{"cache_store"}},
		{"TLS where none is spoken", "rediss://" + plain.Addr(), []string{"cache_store"}},
		{"a certificate that nobody knows", "rediss://" + encrypted.Addr(), []string{"cache_store", "certificate"}},
		{"no cluster", "redis+cluster://" + plain.Addr(), []string{"cache_store", "cluster"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if u, err := url.Parse(tc.url); err != nil || u.Host == "" {
				t.Fatal(tc.url, err)
			}
			ctx := t.Context()
			f := &harness.Fixture{T: t, DSN: database, Ctx: ctx}
			c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKey(database, "cache_store", tc.url))
			if err != nil {
				t.Fatal(err)
			}
			inside.Process(c, tc.name)
			db := harness.OpenDB(f, c)
			err = db.PingContext(ctx)
			if err == nil {
				t.Fatal("Ping finds nothing wrong")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Ping says %q, want it to name %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("Ping shows a password: %v", err)
			}
			var n int
			for range 3 {
				if err := db.QueryRowContext(ctx, "SELECT 1").Scan(&n); err != nil || n != 1 {
					t.Errorf("got %d, %v", n, err)
				}
			}
			s := cachedpg.StatsOf(db)
			down, failed, cold := s.Bypasses[keying.StoreDown.String()], s.Bypasses[keying.StoreError.String()], s.Bypasses[keying.Warming.String()]
			if s.Hits+s.Misses != 0 || down+failed+cold != 3 {
				t.Errorf("hits %d, misses %d, bypasses %v", s.Hits, s.Misses, s.Bypasses)
			}
		})
	}
}

// A pool with one connection has none for a notice: the transaction that is
// about to commit posts it itself.
func TestAWriterCutOffFromTheStoreWithoutAnotherConnection(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		p := r.Proxy()
		config := f.PoolConfig()
		config.MaxConns = 1
		pool, err := pgxpool.NewWithConfig(f.Ctx, config)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(pool.Close)
		c, err := cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), cachedpg.Config{Store: r.URLThrough(p)})
		if err != nil {
			f.Fatal(err)
		}
		inside.Process(c, "pool")
		db := harness.OpenDB(f, c)
		db.SetMaxIdleConns(0)
		p.Cut()
		for _, name := range []string{"anna", "ann"} {
			if _, err := db.ExecContext(f.Ctx, "UPDATE users SET name = $1 WHERE id = 1", name); err != nil {
				f.Fatal(err)
			}
			f.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
		}
		p.Restore()
		f.Again(harness.UserByID, 1).Is("1 ann Oslo")
	})
}
