package behind

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

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// promotedInner is a connection to a PostgreSQL that was promoted meanwhile, perhaps.
type promotedInner struct {
	backend.Conn
	promoted *atomic.Bool
}

func (p *promotedInner) Learn(ctx context.Context) (*backend.Session, uint32, error) {
	s, pid, err := p.Conn.Learn(ctx)
	if err == nil && p.promoted.Load() {
		s.ID.Timeline = "FFFFFFFF"
		for mode := range s.Digests {
			s.Digests[mode][0]++
		}
	}
	return s, pid, err
}

// Ask has the questions for the promoted one answered.
func (p *promotedInner) Ask(ctx context.Context, sql string) (string, error) {
	s, _, err := p.Conn.Learn(ctx)
	if err != nil {
		return "", err
	}
	if p.promoted.Load() {
		sql = strings.ReplaceAll(sql, "/FFFFFFFF/", "/"+s.ID.Timeline+"/")
	}
	return p.Conn.Ask(ctx, sql)
}

// A promotion begins a new namespace, and what is queued then kills the stamps of that.
func TestAPromotedPostgreSQLHasTheSameQueue(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Drained()
		pg, err := pgx.ParseConfig(f.DSN)
		if err != nil {
			f.Fatal(err)
		}
		_, config, err := cachedpg.ParseConfig(harness.WithKeys(f.DSN, f.Keys))
		if err != nil {
			f.Fatal(err)
		}
		made, err := cachedpg.NewConnector(*pg, config)
		if err != nil {
			f.Fatal(err)
		}
		inside.Process(made, "promoted")
		var promoted atomic.Bool
		inside.Dialled(made, func(in backend.Conn) backend.Conn { return &promotedInner{in, &promoted} })
		v := f.Asking(harness.OpenDB(f, made))
		v.DB.SetMaxIdleConns(0)
		f.Live(v.DB)
		v.Again(readHit, 1)
		v.Exec(countHit, 1)
		v.Drained()
		promoted.Store(true)
		v.Exec("UPDATE others SET n = 1 WHERE id = 1") // dials, and learns of it
		f.Live(v.DB)
		v.Again(readHit, 1).Is("1")
		if got := inside.Identity(v.DB).Timeline; got != "FFFFFFFF" {
			f.Fatalf("the timeline is %s", got)
		}
		if !queues(v, countHit, 1) {
			f.Fatal("not queued")
		}
		v.Fresh(readHit, 1).Is("2")
	})
}

// While a process hits, and finds nothing in the queue, on a server that was replaced,
// nobody is told that a write is queued on its successor.
func TestAQueueThatIsPromoted(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Replica(t, master)
	f := harness.New(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+master.URL(), "cache_policy=hits:write-behind")
	p := master.Proxy()
	writer := f.Process("writer", "cache_store="+master.URLThrough(p))
	writer.Exec(countHit, 1)
	writer.Drained()
	f.Again(readHit, 1).Is("1")
	host, port, _ := strings.Cut(replica.Addr(), ":")
	promote := replica.Client().ReplicaOf(f.Ctx, "no", "one").Err()
	demote := master.Client().ReplicaOf(f.Ctx, host, port).Err()
	if err := errors.Join(promote, demote); err != nil {
		f.Fatal(err)
	}
	p.SwitchTo(replica.Addr())
	for n := 2; n < 5; n++ {
		until := time.Now().Add(10 * time.Second)
		for { // the connections to the old master break first
			_, err := writer.DB.ExecContext(f.Ctx, "UPDATE hits SET n = $2 WHERE id = $1", 1, n)
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
		if err := f.DB.QueryRowContext(f.Ctx, readHit, 1).Scan(&got); err == nil && got != n {
			f.Errorf("read %d after %d was queued", got, n)
		}
		writer.Fresh(readHit, 1)
	}
	writer.Drained()
}

// Who waits for the queue has the only place in the pool.
func TestAPoolOfOneConnectionIsEnoughForTheQueue(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		pg, err := pgxpool.ParseConfig(f.DSN)
		if err != nil {
			f.Fatal(err)
		}
		pg.MaxConns = 1
		pool, err := pgxpool.NewWithConfig(f.Ctx, pg)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(pool.Close)
		_, config, err := cachedpg.ParseConfig(harness.WithKeys(f.DSN, f.Keys))
		if err != nil {
			f.Fatal(err)
		}
		c, err := cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), config)
		if err != nil {
			f.Fatal(err)
		}
		inside.Process(c, "pool")
		db := sql.OpenDB(c)
		db.SetMaxIdleConns(0)
		f.Cleanup(func() { db.Close() })
		ctx, cancel := context.WithTimeout(f.Ctx, 10*time.Second)
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
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("ALTER TABLE hits ADD note text")
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		f.Again(readHit, 1) // the catalog is known again
		const update = "UPDATE hits SET note = $2 WHERE id = $1"
		if !queues(f.Via, update, 1, "small") {
			f.Error("a small one is not")
		}
		if queues(f.Via, update, 1, strings.Repeat("x", behind.MaxEntry)) {
			f.Error("a large one is")
		}
		f.Fresh("SELECT length(note) FROM hits WHERE id = 1").Is("65536")
	})
}

// Two appliers take turns, whatever transactions see by default.
func TestTheDefaultIsolationIsNotThatOfTheQueue(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$")
		a, b := f.Process("a"), f.Process("b")
		var group sync.WaitGroup
		for _, v := range []harness.Via{a, b} {
			group.Go(func() {
				for range 50 {
					_, err := v.DB.ExecContext(f.Ctx, countHit, 1)
					if got := v.Read(v.DB, readHit, []any{1}); err != nil || got.Err != nil {
						f.Errorf("%v, %v", err, got.Err)
						return
					}
				}
			})
		}
		group.Wait()
		a.Fresh(readHit, 1).Is("100")
	})
}
