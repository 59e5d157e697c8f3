package cachedpg

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// halfway is a writer that has marked what it wrote and not committed.
func (f *fixture) halfway(name string) (commit func()) {
	f.Helper()
	mark, commit := f.unmarked(name)
	mark()
	return commit
}

// unmarked is a writer that has not marked what it wrote.
func (f *fixture) unmarked(name string) (mark, commit func()) {
	f.Helper()
	conn := pgtest.Connect(f.T, f.dsn)
	tx, err := conn.Begin(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	var xid uint64
	if err := tx.QueryRow(f.ctx, "UPDATE users SET name = $1 WHERE id = 1 RETURNING pg_current_xact_id()::text::int8", name).Scan(&xid); err != nil {
		f.Fatal(err)
	}
	tags := slices.DeleteFunc(f.tagsOf(userByID, 1), func(tag store.Tag) bool { return tag.Kind != store.TagRow })
	mark = func() {
		f.Helper()
		if err := f.keeper().store.Intend(f.ctx, store.NewTransactionWriter(xid), tags); err != nil {
			f.Fatal(err)
		}
	}
	return mark, func() {
		f.Helper()
		if err := tx.Commit(f.ctx); err != nil {
			f.Fatal(err)
		}
	}
}

// lapse ends the lease of a store, and nothing else of it.
func (f *fixture) lapse(r *redistest.Server) {
	f.Helper()
	names, err := r.Client().Keys(f.ctx, "cachedpg:*:l").Result()
	if err != nil || len(names) != 1 {
		f.Fatal(names, err)
	}
	if err := r.Client().Del(f.ctx, names...).Err(); err != nil {
		f.Fatal(err)
	}
}

// I14: a lease that ran out has lost no mark, so that nobody who has marked, or
// will, is waited for.
func TestALeaseThatRanOutWaitsForNoTransaction(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		other := f.process("other")
		other.again(userByID, 2)
		f.again(userByID, 1)
		mark, later := f.unmarked("anna")
		f.lapse(r)
		other.again(userByID, 2)
		mark()
		f.bypass(keying.DirtyTag, userByID, 1)
		f.lapse(r)
		other.again(userByID, 2)
		f.fresh(userByID, 1).is("1 ann Oslo")
		later()
		f.again(userByID, 1).is("1 anna Oslo")
	})
}

// I14: nor is a writer whose marks are in the store that has lost those of others.
func TestAStoreThatForgotIntentsWaitsForNoneThatItHas(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		other := f.process("other")
		other.again(userByID, 2)
		f.again(userByID, 1)
		mark, commit := f.unmarked("anna")
		if err := r.Client().FlushAll(f.ctx).Err(); err != nil {
			f.Fatal(err)
		}
		hits := StatsOf(other.db).Hits
		f.stays(store.Lease, func() { other.fresh(userByID, 2) })
		if StatsOf(other.db).Hits != hits {
			f.Error("hits while a writer is under way whose marks may be lost")
		}
		mark()
		other.again(userByID, 2)
		f.fresh(userByID, 1).is("1 ann Oslo")
		commit()
		f.again(userByID, 1).is("1 anna Oslo")
	})
}

// I12, I14: a store that has lost intents is cold until every write is over
// whose intents it may have lost.
func TestAStoreThatForgotIntentsWaitsForTheirWriters(t *testing.T) {
	for name, lose := range map[string]func(f *fixture, r *redistest.Server){
		"flushed": func(f *fixture, r *redistest.Server) {
			if err := r.Client().FlushAll(f.ctx).Err(); err != nil {
				f.Fatal(err)
			}
		},
		"the intents evicted": func(f *fixture, r *redistest.Server) {
			names, err := r.Client().Keys(f.ctx, "cachedpg:*:d").Result()
			if err != nil || len(names) != 1 {
				f.Fatal(names, err)
			}
			if err := r.Client().Del(f.ctx, names...).Err(); err != nil {
				f.Fatal(err)
			}
		},
		"restarted": func(_ *fixture, r *redistest.Server) { r.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			outage(t, func(f *fixture, r *redistest.Server) {
				other := f.process("other")
				f.again(userByID, 1)
				commit := f.halfway("anna")
				f.bypass(keying.DirtyTag, userByID, 1)
				lose(f, r)
				hits := StatsOf(f.db).Hits + StatsOf(other.db).Hits
				f.stays(2*store.Lease, func() {
					f.fresh(userByID, 1).is("1 ann Oslo")
					other.fresh(userByID, 1).is("1 ann Oslo")
				})
				if StatsOf(f.db).Hits+StatsOf(other.db).Hits != hits {
					f.Error("hits while the store was cold")
				}
				commit()
				other.again(userByID, 1).is("1 anna Oslo")
				f.again(userByID, 1).is("1 anna Oslo")
			})
		})
	}
}

// A Redis that was restarted with what it had on disk long ago is cold.
func TestAStoreRestartedFromAnOldSnapshot(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.again(userByID, 1)
		r.Save()
		snapshot := r.CopyRDB()
		f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.again(userByID, 1).is("1 anna Oslo")
		r.RestoreRDB(snapshot)
		f.again(userByID, 1).is("1 anna Oslo")
	})
}

// I13, I15: a writer that alone cannot reach the store waits once, until nobody
// can have an old result, and commits.
func TestAWriterCutOffFromTheStoreCommitsPastIt(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.process("writer", "cache_store="+r.URLThrough(p))
		writer.again(userByID, 1)
		f.again(userByID, 1)
		f.again(userByID, 2)

		p.Cut()
		writer.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.fresh(userByID, 1).is("1 anna Oslo")
		begin := time.Now()
		for _, name := range []string{"anne", "annette"} {
			writer.exec("UPDATE users SET name = $1 WHERE id = 1", name)
			f.fresh(userByID, 1).is("1 " + name + " Oslo")
			writer.fresh(userByID, 1).is("1 " + name + " Oslo")
		}
		tx, err := writer.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.on(tx).exec("UPDATE users SET name = 'ann' WHERE id = 1")
		f.commit(tx)
		f.fresh(userByID, 1).is("1 ann Oslo")
		if d := time.Since(begin); d >= 3*store.Lease {
			f.Errorf("three later writes took %v: each has waited as the first one did", d)
		}
		if n := StatsOf(writer.db).Unmarked; n != 4 {
			f.Errorf("%d writes were counted as not marked, want 4", n)
		}
		// As long as the notice is there nobody caches.
		f.stays(store.Lease/2, func() { f.bypass(keying.Warming, userByID, 2) })

		p.Restore()
		f.again(userByID, 1).is("1 ann Oslo")
		writer.again(userByID, 1)
		writer.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		writer.released()
		f.miss(userByID, 1).is("1 anna Oslo")
		f.hit(userByID, 1)
	})
}

// A write that cannot be marked fails, if that was chosen, and changes nothing.
func TestAWriterCutOffFromTheStoreFails(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.process("writer", "cache_store="+r.URLThrough(p), "cache_on_store_down=fail")
		f.again(userByID, 1)
		p.Cut()
		refused := func(err error) {
			f.T.Helper()
			if err == nil || !errors.Is(err, store.ErrDown) || !strings.Contains(err.Error(), "cache_on_store_down=fail") {
				f.Errorf("got %v, want an error that names cache_on_store_down", err)
			}
		}
		_, err := writer.db.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
		refused(err)
		refused(writer.db.QueryRowContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1 RETURNING id").Scan(new(int)))
		tx, err := writer.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.on(tx).exec("UPDATE users SET name = 'anna' WHERE id = 1")
		refused(tx.Commit())
		f.hit(userByID, 1).is("1 ann Oslo")
		writer.fresh(userByID, 1)
		p.Restore()
		writer.again(userByID, 1)
		writer.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		writer.released()
		f.miss(userByID, 1).is("1 anna Oslo")
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
			outage(t, func(f *fixture, r *redistest.Server) {
				other := f.process("other")
				f.again(userByID, 1)
				other.again(userByID, 1)
				fault.begin(r)
				f.fresh(userByID, 1)
				before := StatsOf(f.db).Shared
				for range 50 {
					f.fresh(userByID, 1)
				}
				if failed := StatsOf(f.db).Shared.Errors - before.Errors; failed >= 50 {
					f.Errorf("50 reads led to %d questions that failed", failed)
				}
				f.bypass(keying.StoreDown, userByID, 1)
				f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
				fault.end(r)
				for range 50 {
					other.fresh(userByID, 1).is("1 anna Oslo")
					f.fresh(userByID, 1).is("1 anna Oslo")
				}
				other.again(userByID, 1).is("1 anna Oslo")
				f.again(userByID, 1).is("1 anna Oslo")
				if s := StatsOf(f.db); s.Shared.Errors == 0 || s.Bypasses[keying.StoreDown.String()] == 0 {
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
	f := newFixture(t, pgtest.Database(t), "cache_statement", people, "cache_store="+master.URL())
	p := master.Proxy()
	writer := f.process("writer", "cache_store="+master.URLThrough(p))
	for i, to := range []*redistest.Server{replica, master} {
		f.T.Log("promotion", i)
		from := map[*redistest.Server]*redistest.Server{replica: master, master: replica}[to]
		f.again(userByID, 1)
		writer.again(userByID, 1)
		promote := to.Client().ReplicaOf(f.ctx, "no", "one").Err()
		host, port, _ := strings.Cut(to.Addr(), ":")
		demote := from.Client().ReplicaOf(f.ctx, host, port).Err()
		if err := errors.Join(promote, demote); err != nil {
			f.Fatal(err)
		}
		p.SwitchTo(to.Addr())
		for _, name := range []string{"anna", "ann"} {
			writer.exec("UPDATE users SET name = $1 WHERE id = 1", name)
			f.fresh(userByID, 1).is("1 " + name + " Oslo") // by way of the old master, or not at all
			writer.fresh(userByID, 1).is("1 " + name + " Oslo")
		}
		writer.again(userByID, 1)
		if to == replica {
			f.fresh(userByID, 1)
			if s := StatsOf(f.db).Shared; !s.Down {
				f.Error("a replica is used as a store")
			}
			f.db.Close()
			f.db = f.open("cachedpg", withKeys(f.dsn, []string{"cache_store=" + to.URL()}))
			f.via.db, f.via.ask = f.db, f.db
			f.live(f.db)
		}
	}
}

// What is in Redis is not trusted.
func TestGarbageInTheStoreIsAMiss(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		for _, garbage := range []string{"", "x", "\x01\xff\xff", strings.Repeat("\x01", 200)} {
			f.again(userByID, 1)
			names, err := r.Client().Keys(f.ctx, "cachedpg:*").Result()
			if err != nil {
				f.Fatal(err)
			}
			for _, name := range names {
				if kind := r.Client().Type(f.ctx, name).Val(); kind == "string" && !strings.HasSuffix(name, ":l") {
					if err := r.Client().Set(f.ctx, name, garbage, 0).Err(); err != nil {
						f.Fatal(err)
					}
				}
			}
			f.fresh(userByID, 1)
			f.fresh(userByID, 2)
		}
		if StatsOf(f.db).Shared.Garbage == 0 {
			f.Error("no garbage was counted")
		}
		f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.again(userByID, 1).is("1 anna Oslo")
	})
}

func TestEntriesAreEncrypted(t *testing.T) {
	key := func(id, fill string) string {
		return id + ":" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, 32)))
	}
	outage(t, func(f *fixture, r *redistest.Server) {
		const query = "SELECT 'a secret ' || name FROM users WHERE id = 1"
		f.again(query)
		for _, name := range r.Client().Keys(f.ctx, "cachedpg:*").Val() {
			if v, _ := r.Client().Get(f.ctx, name).Result(); strings.Contains(v, "secret") {
				f.Errorf("the value is readable: %q", v)
			}
		}
		rotated := f.process("rotated", "cache_encryption="+key("2", "b")+","+key("1", "a"))
		rotated.hit(query)
		wrong := f.process("wrong", "cache_encryption="+key("1", "x"))
		wrong.fresh(query)
		if StatsOf(wrong.db).Hits != 0 || StatsOf(wrong.db).Shared.Garbage == 0 {
			f.Errorf("an entry of another key was read or not counted: %+v", StatsOf(wrong.db).Shared)
		}
		without := f.process("without", "cache_encryption=")
		without.fresh(query)
		if StatsOf(without.db).Hits != 0 {
			f.Error("an encrypted entry was read without a key")
		}
	}, "cache_encryption="+key("1", "a"))
}

// A full Redis stores nothing more and is still told of every write.
func TestAFullStoreTakesIntents(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.again(userByID, 1)
		full := func(maxmemory string) {
			if err := r.Client().ConfigSet(f.ctx, "maxmemory", maxmemory).Err(); err != nil {
				f.Fatal(err)
			}
		}
		full("1mb")
		for range 3 {
			f.exec("UPDATE users SET name = name || 'a' WHERE id = 1")
			f.released()
			f.fresh(userByID, 1)
		}
		if n := StatsOf(f.db).Unmarked; n != 0 {
			f.Errorf("%d writes were not marked", n)
		}
		full("0")
		f.again(userByID, 1).is("1 annaaa Oslo")
	})
}

// Evicted stamps and entries are misses; intents are never evicted alone.
func TestAStoreUnderEvictionPressure(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.again(userByID, 1)
		c := r.Client()
		for key, value := range map[string]string{"maxmemory-policy": "allkeys-lru", "maxmemory": "3mb"} {
			if err := c.ConfigSet(f.ctx, key, value).Err(); err != nil {
				f.Fatal(err)
			}
		}
		evicted := func() bool {
			stats, err := c.Info(f.ctx, "stats").Result()
			if err != nil {
				f.Fatal(err)
			}
			return !strings.Contains(stats, "evicted_keys:0\r")
		}
		for i := 0; i < 300 || !evicted(); i++ {
			f.exec("UPDATE users SET name = $1 WHERE id = 1", strings.Repeat("x", i%7))
			f.fresh(userByID, 1)
			f.fresh("SELECT repeat(name, 1000), $1::int FROM users", i%500)
		}
	}, "cache_admission=all") // little of it is read again
}
