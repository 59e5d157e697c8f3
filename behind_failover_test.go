package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// promotedInner is a connection to a PostgreSQL that was promoted meanwhile, perhaps.
type promotedInner struct {
	inner
	promoted *atomic.Bool
}

func (p *promotedInner) learn(ctx context.Context) (*session, uint32, error) {
	s, pid, err := p.inner.learn(ctx)
	if err == nil && p.promoted.Load() {
		s.id.timeline = "FFFFFFFF"
		for mode := range s.digests {
			s.digests[mode][0]++
		}
	}
	return s, pid, err
}

// text has the questions for the promoted one answered.
func (p *promotedInner) text(ctx context.Context, sql string) (string, error) {
	s, _, err := p.inner.learn(ctx)
	if err != nil {
		return "", err
	}
	if p.promoted.Load() {
		sql = strings.ReplaceAll(sql, "/FFFFFFFF/", "/"+s.id.timeline+"/")
	}
	return p.inner.text(ctx, sql)
}

// A promotion begins a new namespace, and what is queued then kills the stamps of that.
func TestAPromotedPostgreSQLHasTheSameQueue(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		f.drained()
		pg, err := pgx.ParseConfig(f.dsn)
		if err != nil {
			f.Fatal(err)
		}
		_, config, err := ParseConfig(withKeys(f.dsn, f.keys))
		if err != nil {
			f.Fatal(err)
		}
		made, err := NewConnector(*pg, config)
		if err != nil {
			f.Fatal(err)
		}
		d := made.(*connector)
		d.process = "promoted"
		var promoted atomic.Bool
		connect := d.connect
		d.connect = func(ctx context.Context, c *link) (inner, error) {
			in, err := connect(ctx, c)
			if err != nil {
				return nil, err
			}
			return &promotedInner{in, &promoted}, nil
		}
		v := f.asking(openDB(f, made))
		v.db.SetMaxIdleConns(0)
		f.live(v.db)
		v.again(readHit, 1)
		v.exec(countHit, 1)
		v.drained()
		promoted.Store(true)
		v.exec("UPDATE others SET n = 1 WHERE id = 1") // dials, and learns of it
		f.live(v.db)
		v.again(readHit, 1).is("1")
		if got := connectorOf(v.db).space().key.timeline; got != "FFFFFFFF" {
			f.Fatalf("the timeline is %s", got)
		}
		if !v.queues(countHit, 1) {
			f.Fatal("not queued")
		}
		v.fresh(readHit, 1).is("2")
	})
}

// While a process hits, and finds nothing in the queue, on a server that was replaced,
// nobody is told that a write is queued on its successor.
func TestAQueueThatIsPromoted(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Replica(t, master)
	f := newFixture(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+master.URL(), "cache_policy=hits:write-behind")
	p := master.Proxy()
	writer := f.process("writer", "cache_store="+master.URLThrough(p))
	writer.exec(countHit, 1)
	writer.drained()
	f.again(readHit, 1).is("1")
	host, port, _ := strings.Cut(replica.Addr(), ":")
	promote := replica.Client().ReplicaOf(f.ctx, "no", "one").Err()
	demote := master.Client().ReplicaOf(f.ctx, host, port).Err()
	if err := errors.Join(promote, demote); err != nil {
		f.Fatal(err)
	}
	p.SwitchTo(replica.Addr())
	for n := 2; n < 5; n++ {
		until := time.Now().Add(10 * time.Second)
		for { // the connections to the old master break first
			_, err := writer.db.ExecContext(f.ctx, "UPDATE hits SET n = $2 WHERE id = $1", 1, n)
			if err == nil {
				break
			}
			if time.Now().After(until) {
				f.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// By way of the old master, which has nothing to say.
		var got int
		if err := f.db.QueryRowContext(f.ctx, readHit, 1).Scan(&got); err == nil && got != n {
			f.Errorf("read %d after %d was queued", got, n)
		}
		writer.fresh(readHit, 1)
	}
	writer.drained()
}

// Who waits for the queue has the only place in the pool.
func TestAPoolOfOneConnectionIsEnoughForTheQueue(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		pg, err := pgxpool.ParseConfig(f.dsn)
		if err != nil {
			f.Fatal(err)
		}
		pg.MaxConns = 1
		pool, err := pgxpool.NewWithConfig(f.ctx, pg)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(pool.Close)
		_, config, err := ParseConfig(withKeys(f.dsn, f.keys))
		if err != nil {
			f.Fatal(err)
		}
		c, err := WrapConnector(stdlib.GetPoolConnector(pool), config)
		if err != nil {
			f.Fatal(err)
		}
		c.(*connector).process = "pool"
		db := sql.OpenDB(c)
		db.SetMaxIdleConns(0)
		f.Cleanup(func() { db.Close() })
		ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
		defer cancel()
		for n := 1; n < 4; n++ {
			if _, err := db.ExecContext(ctx, countHit, 1); err != nil {
				f.Fatal(err)
			}
			var got int
			if err := db.QueryRowContext(ctx, readHit, 1).Scan(&got); err != nil || got != n {
				f.Fatalf("%d, %v, want %d", got, err, n)
			}
		}
	})
}

func TestALargeWriteIsNotQueued(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		f.past("ALTER TABLE hits ADD note text")
		if err := Invalidate(f.ctx, f.db); err != nil {
			f.Fatal(err)
		}
		f.again(readHit, 1) // the catalog is known again
		const update = "UPDATE hits SET note = $2 WHERE id = $1"
		if !f.queues(update, 1, "small") {
			f.Error("a small one is not")
		}
		if f.queues(update, 1, strings.Repeat("x", maxQueued)) {
			f.Error("a large one is")
		}
		f.fresh("SELECT length(note) FROM hits WHERE id = 1").is("65536")
	})
}

// Two appliers take turns, whatever transactions see by default.
func TestTheDefaultIsolationIsNotThatOfTheQueue(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		f.past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$")
		a, b := f.process("a"), f.process("b")
		var group sync.WaitGroup
		for _, v := range []via{a, b} {
			group.Go(func() {
				for range 50 {
					_, err := v.db.ExecContext(f.ctx, countHit, 1)
					if got := v.read(v.db, readHit, []any{1}); err != nil || got.err != nil {
						f.Errorf("%v, %v", err, got.err)
						return
					}
				}
			})
		}
		group.Wait()
		a.fresh(readHit, 1).is("100")
	})
}
