package cachedpg

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/inside"
)

// until asks until the answer is yes. It is for what only PostgreSQL or a
// counter can tell.
func (f *fixture) until(what string, ok func() bool) {
	f.Helper()
	for !ok() {
		if f.ctx.Err() != nil {
			f.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// released returns when what has been committed is released.
func (v via) released() {
	v.f.Helper()
	if _, shared := inside.Pending(v.db); shared {
		v.f.until("the release", func() bool {
			releases, _ := inside.Pending(v.db)
			return releases == 0
		})
	}
}

// again returns when the query is answered from the cache. Every answer on the
// way is compared with PostgreSQL's.
func (v via) again(query string, args ...any) result {
	v.f.Helper()
	var r result
	v.f.until("the cache to answer again", func() bool {
		before := inside.Counted(v.db).Hits
		r = v.fresh(query, args...)
		return inside.Counted(v.db).Hits > before
	})
	return r
}

// caches asks until a result comes from the cache again.
func (v via) caches(query string, args ...any) result {
	v.f.Helper()
	v.f.until("a hit", func() bool {
		before := inside.Counted(v.db).Hits
		v.fresh(query, args...)
		return inside.Counted(v.db).Hits > before
	})
	return v.hit(query, args...)
}

// stays asks again and again for a time.
func (v via) stays(d time.Duration, ask func()) {
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		ask()
	}
}

// settled asks once for pgx to forget a statement that no longer fits its
// table, which it does after an error, and compares then.
func (f *fixture) settled(query string, args ...any) {
	f.Helper()
	for _, x := range []asker{f.ask, f.truth} {
		if err := f.read(x, query, args).err; err != nil {
			f.Logf("the first time after the DDL: %v", err)
		}
	}
	f.fresh(query, args...)
}

// awaitCaching returns when db's cache has begun: it waits for the statements
// that PostgreSQL was running when it was opened, those of other tests too.
func awaitCaching(tb testing.TB, db *sql.DB) {
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

// gated is people with a function that waits in the middle of a SELECT, after
// its snapshot was taken, while a test holds the gate.
const gated = people + `
	CREATE FUNCTION gate(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF name IN ('ann', 'bob') THEN EXECUTE 'SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)'; END IF;
		RETURN name;
	END $$;`

const gatedByID = "SELECT gate(name) FROM users WHERE id = $1"

// gate is held by a session that the SELECTs of gatedByID wait for.
type gate struct {
	f    *fixture
	conn *sql.Conn
}

func (f *fixture) closeGate() gate {
	f.Helper()
	conn := f.conn(f.plain)
	if _, err := conn.ExecContext(f.ctx, "SELECT pg_advisory_lock(1)"); err != nil {
		f.Fatal(err)
	}
	return gate{f, conn}
}

func (g gate) open() {
	g.f.Helper()
	if _, err := g.conn.ExecContext(g.f.ctx, "SELECT pg_advisory_unlock(1)"); err != nil {
		g.f.Fatal(err)
	}
}

// await waits until so many sessions wait at the gate.
func (g gate) await(waiting int) {
	g.f.Helper()
	g.f.until("sessions to wait at the gate", func() bool {
		var n int
		err := g.conn.QueryRowContext(g.f.ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
		if err != nil {
			g.f.Fatal(err)
		}
		return n == waiting
	})
}

// answer is what a query in another goroutine came to.
type answer struct {
	value string
	err   error
}

// askAside runs a query with one value as its answer in another goroutine.
func (f *fixture) askAside(ctx context.Context, query string, args ...any) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.err = f.db.QueryRowContext(ctx, query, args...).Scan(&a.value)
		done <- a
	}()
	return done
}

func (f *fixture) wants(got <-chan answer, want string) {
	f.Helper()
	select {
	case a := <-got:
		if a.err != nil || a.value != want {
			f.Errorf("got %q, %v, want %q", a.value, a.err, want)
		}
	case <-f.ctx.Done():
		f.Error("no answer")
	}
}
