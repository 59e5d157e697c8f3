package outages

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// A Redis that was restarted with what it had on disk long ago is cold.
func TestAStoreRestartedFromAnOldSnapshot(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		r.Save()
		snapshot := r.CopyRDB()
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Again(harness.UserByID, 1).Is("1 anna Oslo")
		r.RestoreRDB(snapshot)
		f.Again(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// I13, I15: a writer that alone cannot reach the store waits once, until nobody
// can have an old result, and commits.
func TestAWriterCutOffFromTheStoreCommitsPastIt(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p))
		writer.Again(harness.UserByID, 1)
		f.Again(harness.UserByID, 1)
		f.Again(harness.UserByID, 2)

		p.Cut()
		writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		begin := time.Now()
		for _, name := range []string{"anne", "annette"} {
			writer.Exec("UPDATE users SET name = $1 WHERE id = 1", name)
			f.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
			writer.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
		}
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET name = 'ann' WHERE id = 1")
		f.Commit(tx)
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		if d := time.Since(begin); d >= 3*patience.Lease {
			f.Errorf("three later writes took %v: each has waited as the first one did", d)
		}
		if n := cachedpg.StatsOf(writer.DB).Unmarked; n != 4 {
			f.Errorf("%d writes were counted as not marked, want 4", n)
		}
		// As long as the notice is there nobody caches.
		f.Stays(patience.Lease/2, func() { f.Bypass(keying.Warming, harness.UserByID, 2) })

		p.Restore()
		f.Again(harness.UserByID, 1).Is("1 ann Oslo")
		writer.Again(harness.UserByID, 1)
		writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		f.Hit(harness.UserByID, 1)
	})
}

// A write that cannot be marked fails, if that was chosen, and changes nothing.
func TestAWriterCutOffFromTheStoreFails(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p), "cache_on_store_down=fail")
		f.Again(harness.UserByID, 1)
		p.Cut()
		refused := func(err error) {
			f.T.Helper()
			if err == nil || !errors.Is(err, store.ErrDown) || !strings.Contains(err.Error(), "cache_on_store_down=fail") {
				f.Errorf("got %v, want an error that names cache_on_store_down", err)
			}
		}
		_, err := writer.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
		refused(err)
		refused(writer.DB.QueryRowContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1 RETURNING id").Scan(new(int)))
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		refused(tx.Commit())
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		writer.Fresh(harness.UserByID, 1)
		p.Restore()
		writer.Again(harness.UserByID, 1)
		writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// A store that hangs or is gone costs one short wait, and nothing is stale when
// it is back.
func TestAStoreThatDoesNotAnswer(t *testing.T) {
	for name, fault := range map[string]struct{ begin, end func(r *redistest.Server) }{
		"hangs":   {(*redistest.Server).Pause, (*redistest.Server).Resume},
		"is gone": {(*redistest.Server).Kill, (*redistest.Server).Restart},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				other := f.Process("other")
				f.Again(harness.UserByID, 1)
				other.Again(harness.UserByID, 1)
				fault.begin(r)
				f.Fresh(harness.UserByID, 1)
				before := cachedpg.StatsOf(f.DB).Shared
				for range 50 {
					f.Fresh(harness.UserByID, 1)
				}
				if failed := cachedpg.StatsOf(f.DB).Shared.Errors - before.Errors; failed >= 50 {
					f.Errorf("50 reads led to %d questions that failed", failed)
				}
				f.Bypass(keying.StoreDown, harness.UserByID, 1)
				f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
				fault.end(r)
				for range 50 {
					other.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
					f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
				}
				other.Again(harness.UserByID, 1).Is("1 anna Oslo")
				f.Again(harness.UserByID, 1).Is("1 anna Oslo")
				if s := cachedpg.StatsOf(f.DB); s.Shared.Errors == 0 || s.Bypasses[keying.StoreDown.String()] == 0 {
					f.Errorf("the outage was not counted: %+v", s.Shared)
				}
			})
		})
	}
}

// I16: while a lease of the server that was replaced may stand, commits wait.
func TestAReplicaIsPromotedAndTheMasterComesBack(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Replica(t, master)
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+master.URL())
	p := master.Proxy()
	writer := f.Process("writer", "cache_store="+master.URLThrough(p))
	for i, to := range []*redistest.Server{replica, master} {
		f.T.Log("promotion", i)
		from := map[*redistest.Server]*redistest.Server{replica: master, master: replica}[to]
		f.Again(harness.UserByID, 1)
		writer.Again(harness.UserByID, 1)
		promote := to.Client().ReplicaOf(f.Ctx, "no", "one").Err()
		host, port, _ := strings.Cut(to.Addr(), ":")
		demote := from.Client().ReplicaOf(f.Ctx, host, port).Err()
		if err := errors.Join(promote, demote); err != nil {
			f.Fatal(err)
		}
		p.SwitchTo(to.Addr())
		for _, name := range []string{"anna", "ann"} {
			writer.Exec("UPDATE users SET name = $1 WHERE id = 1", name)
			f.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo") // by way of the old master, or not at all
			writer.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
		}
		writer.Again(harness.UserByID, 1)
		if to == replica {
			f.Fresh(harness.UserByID, 1)
			if s := cachedpg.StatsOf(f.DB).Shared; !s.Down {
				f.Error("a replica is used as a store")
			}
			f.DB.Close()
			f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, []string{"cache_store=" + to.URL()}))
			f.Via.DB, f.Via.Ask = f.DB, f.DB
			f.Live(f.DB)
		}
	}
}

// What is in Redis is not trusted.
func TestGarbageInTheStoreIsAMiss(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		for _, garbage := range []string{"", "x", "\x01\xff\xff", strings.Repeat("\x01", 200)} {
			f.Again(harness.UserByID, 1)
			names, err := r.Client().Keys(f.Ctx, "cachedpg:*").Result()
			if err != nil {
				f.Fatal(err)
			}
			for _, name := range names {
				if kind := r.Client().Type(f.Ctx, name).Val(); kind == "string" && !strings.HasSuffix(name, ":l") {
					if err := r.Client().Set(f.Ctx, name, garbage, 0).Err(); err != nil {
						f.Fatal(err)
					}
				}
			}
			f.Fresh(harness.UserByID, 1)
			f.Fresh(harness.UserByID, 2)
		}
		if cachedpg.StatsOf(f.DB).Shared.Garbage == 0 {
			f.Error("no garbage was counted")
		}
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Again(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

func TestEntriesAreEncrypted(t *testing.T) {
	key := func(id, fill string) string {
		return id + ":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, 32)))
	}
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		const query = "SELECT 'a secret ' || name FROM users WHERE id = 1"
		f.Again(query)
		for _, name := range r.Client().Keys(f.Ctx, "cachedpg:*").Val() {
			if v, _ := r.Client().Get(f.Ctx, name).Result(); strings.Contains(v, "secret") {
				f.Errorf("the value is readable: %q", v)
			}
		}
		rotated := f.Process("rotated", "cache_encryption="+key("2", "b")+","+key("1", "a"))
		rotated.Hit(query)
		wrong := f.Process("wrong", "cache_encryption="+key("1", "x"))
		wrong.Fresh(query)
		if cachedpg.StatsOf(wrong.DB).Hits != 0 || cachedpg.StatsOf(wrong.DB).Shared.Garbage == 0 {
			f.Errorf("an entry of another key was read or not counted: %+v", cachedpg.StatsOf(wrong.DB).Shared)
		}
		without := f.Process("without", "cache_encryption=")
		without.Fresh(query)
		if cachedpg.StatsOf(without.DB).Hits != 0 {
			f.Error("an encrypted entry was read without a key")
		}
	}, "cache_encryption="+key("1", "a"))
}

// A full Redis stores nothing more and is still told of every write.
func TestAFullStoreTakesIntents(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		full := func(maxmemory string) {
			if err := r.Client().ConfigSet(f.Ctx, "maxmemory", maxmemory).Err(); err != nil {
				f.Fatal(err)
			}
		}
		full("1mb")
		for range 3 {
			f.Exec("UPDATE users SET name = name || 'a' WHERE id = 1")
			f.Released()
			f.Fresh(harness.UserByID, 1)
		}
		if n := cachedpg.StatsOf(f.DB).Unmarked; n != 0 {
			f.Errorf("%d writes were not marked", n)
		}
		full("0")
		f.Again(harness.UserByID, 1).Is("1 annaaa Oslo")
	})
}

// Evicted stamps and entries are misses; intents are never evicted alone.
func TestAStoreUnderEvictionPressure(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		c := r.Client()
		for key, value := range map[string]string{"maxmemory-policy": "allkeys-lru", "maxmemory": "3mb"} {
			if err := c.ConfigSet(f.Ctx, key, value).Err(); err != nil {
				f.Fatal(err)
			}
		}
		evicted := func() bool {
			stats, err := c.Info(f.Ctx, "stats").Result()
			if err != nil {
				f.Fatal(err)
			}
			return !strings.Contains(stats, "evicted_keys:0\r")
		}
		for i := 0; i < 300 || !evicted(); i++ {
			f.Exec("UPDATE users SET name = $1 WHERE id = 1", strings.Repeat("x", i%7))
			f.Fresh(harness.UserByID, 1)
			f.Fresh("SELECT repeat(name, 1000), $1::int FROM users", i%500)
		}
	}, "cache_admission=all") // little of it is read again
}
