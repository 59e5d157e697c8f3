package harness

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/store"
)

// Until asks until the answer is yes. It is for what only PostgreSQL or a
// counter can tell.
func (f *Fixture) Until(what string, ok func() bool) {
	f.Helper()
	for !ok() {
		if f.Ctx.Err() != nil {
			f.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Meanwhile has something run until stop is called or the test ends. It ends with its context.
func (v Via) Meanwhile(what string, run func(ctx context.Context) error) (stop func()) {
	v.F.Helper()
	ctx, cancel := context.WithCancel(v.F.Ctx)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			v.F.Errorf("%s ended with %v", what, err)
		}
	})
	v.F.Cleanup(stop)
	return stop
}

// OutboxSize is the number of rows that wait in the outbox.
func (f *Fixture) OutboxSize() int {
	f.Helper()
	return f.Count("SELECT count(*) FROM cachedpg.outbox WHERE problem IS NULL")
}

// Released returns when what has been committed is released.
func (v Via) Released() {
	v.F.Helper()
	if _, shared := inside.Pending(v.DB); shared {
		v.F.Until("the release", func() bool {
			releases, _ := inside.Pending(v.DB)
			return releases == 0
		})
	}
}

// Drained returns when the queue of strategy write-behind is this server's, and empty.
func (v Via) Drained() {
	v.F.Helper()
	v.F.Until("the queue to be ready", func() bool {
		if err := inside.Queue(v.DB).Check(v.F.Ctx); err != nil {
			v.F.Fatal(err)
		}
		return inside.Queue(v.DB).Standing() == behind.Owns
	})
	if err := inside.Queue(v.DB).Drain(v.F.Ctx, false); err != nil {
		v.F.Fatal(err)
	}
}

// Again returns when the query is answered from the cache. Every answer on the
// way is compared with PostgreSQL's.
func (v Via) Again(query string, args ...any) Result {
	v.F.Helper()
	var r Result
	v.F.Until("the cache to answer again", func() bool {
		before := inside.Counted(v.DB).Hits
		r = v.Fresh(query, args...)
		return inside.Counted(v.DB).Hits > before
	})
	return r
}

// Caches asks until a result comes from the cache again.
func (v Via) Caches(query string, args ...any) Result {
	v.F.Helper()
	v.F.Until("a hit", func() bool {
		before := inside.Counted(v.DB).Hits
		v.Fresh(query, args...)
		return inside.Counted(v.DB).Hits > before
	})
	return v.Hit(query, args...)
}

// Stays asks again and again for a time.
func (v Via) Stays(d time.Duration, ask func()) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		ask()
	}
}

// Settled asks once for pgx to forget a statement that no longer fits its
// table, which it does after an error, and compares then.
func (f *Fixture) Settled(query string, args ...any) {
	f.Helper()
	for _, x := range []Asker{f.Ask, f.Truth} {
		if err := f.Read(x, query, args).Err; err != nil {
			f.Logf("the first time after the DDL: %v", err)
		}
	}
	f.Fresh(query, args...)
}

// AwaitCaching returns when db's cache has begun: it waits for the statements
// that PostgreSQL was running when it was opened, those of other tests too.
func AwaitCaching(tb testing.TB, db *sql.DB) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		rows, err := db.Query("SELECT FROM generate_series(1, 0)")
		if err != nil {
			tb.Fatal(err)
		}
		rows.Close()
		if inside.Warm(db) {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal("the cache does not begin")
		}
	}
}

// Gated is people with a function that waits in the middle of a SELECT, after
// its snapshot was taken, while a test holds the gate.
const Gated = People + `
	CREATE FUNCTION gate(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF name IN ('ann', 'bob') THEN EXECUTE 'SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)'; END IF;
		RETURN name;
	END $$;`

// GatedByID asks for one of Gated.
const GatedByID = "SELECT gate(name) FROM users WHERE id = $1"

// Gate is held by a session that the SELECTs of GatedByID wait for.
type Gate struct {
	F    *Fixture
	Conn *sql.Conn
}

// CloseGate has SELECTs of GatedByID wait.
func (f *Fixture) CloseGate() Gate {
	f.Helper()
	conn := f.Conn(f.Plain)
	if _, err := conn.ExecContext(f.Ctx, "SELECT pg_advisory_lock(1)"); err != nil {
		f.Fatal(err)
	}
	return Gate{f, conn}
}

// Open lets them go on.
func (g Gate) Open() {
	g.F.Helper()
	if _, err := g.Conn.ExecContext(g.F.Ctx, "SELECT pg_advisory_unlock(1)"); err != nil {
		g.F.Fatal(err)
	}
}

// Await waits until so many sessions wait at the gate.
func (g Gate) Await(waiting int) {
	g.F.Helper()
	g.F.Until("sessions to wait at the gate", func() bool {
		var n int
		err := g.Conn.QueryRowContext(g.F.Ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
		if err != nil {
			g.F.Fatal(err)
		}
		return n == waiting
	})
}

// Answer is what a query in another goroutine came to.
type Answer struct {
	Value string
	Err   error
}

// AskAside runs a query with one value as its answer in another goroutine.
func (f *Fixture) AskAside(ctx context.Context, query string, args ...any) <-chan Answer {
	done := make(chan Answer, 1)
	go func() {
		var a Answer
		a.Err = f.DB.QueryRowContext(ctx, query, args...).Scan(&a.Value)
		done <- a
	}()
	return done
}

// Wants checks the answer to AskAside.
func (f *Fixture) Wants(got <-chan Answer, want string) {
	f.Helper()
	select {
	case a := <-got:
		if a.Err != nil || a.Value != want {
			f.Errorf("got %q, %v, want %q", a.Value, a.Err, want)
		}
	case <-f.Ctx.Done():
		f.Error("no answer")
	}
}

// IsHit reports that a query is answered from the cache. Its answer is compared with PostgreSQL's.
func (f *Fixture) IsHit(query string, args ...any) bool {
	f.Helper()
	before := inside.Counted(f.DB).Hits
	f.Fresh(query, args...)
	return inside.Counted(f.DB).Hits > before
}

// TagsOf returns the tags of what a query reads, without the schema's, once the driver can plan it.
func (f *Fixture) TagsOf(query string, args ...any) (tags []store.Tag) {
	f.Helper()
	var values []driver.NamedValue
	for i, arg := range args {
		if n, ok := arg.(int); ok {
			arg = int64(n)
		}
		values = append(values, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	f.Until("a catalog", func() bool { tags = inside.Tags(f.DB, query, values); return tags != nil })
	return tags
}
