package outages

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// openWrapped is another process whose connector is a wrapped one, so that a
// hand-out of the pgx connection is opaque.
func openWrapped(f *harness.Fixture, name string, config cachedpg.Config) harness.Via {
	f.Helper()
	pg, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	c, err := cachedpg.WrapConnector(stdlib.GetConnector(*pg), config)
	if err != nil {
		f.Fatal(err)
	}
	inside.Process(c, name)
	db := harness.OpenDB(f, c)
	f.Live(db)
	return f.Asking(db)
}

// Marked before it runs, the mark lost before it runs: nobody waits for it.
func TestAnEpochEndsBeforeAnAloneStatementRuns(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		w := openWrapped(f, "wrapped", cachedpg.Config{Store: r.URL()})
		handedOut(f, w, func() {
			if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
				f.Fatal(err)
			}
		})
	})
}

// handedOut lends w's pgx connection and takes away what keeps others from
// hits meanwhile. If somebody gets one all the same, it must not outlive a write.
func handedOut(f *harness.Fixture, w harness.Via, takeAway func()) {
	f.Helper()
	err := cachedpg.PgxConn(f.Ctx, f.Conn(w.DB), func(conn *pgx.Conn) error {
		takeAway()
		deadline := time.Now().Add(5 * time.Second)
		for before := cachedpg.StatsOf(f.DB).Hits; cachedpg.StatsOf(f.DB).Hits == before; f.Fresh(harness.UserByID, 1) {
			if time.Now().After(deadline) {
				return nil // not cached while the hand-out lasts: right
			}
		}
		if _, err := conn.Exec(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
			return err
		}
		f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
}

// The same for what is running, but looks like a read.
func TestAnEpochEndsWhileAWritingSelectRuns(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Past(`CREATE FUNCTION slow_write() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM pg_advisory_lock_shared(1); UPDATE users SET name = 'anna' WHERE id = 1; PERFORM pg_advisory_unlock_shared(1); RETURN 1; END $$`)
		other := f.Process("other")
		other.Again(harness.UserByID, 1)
		g := f.CloseGate()
		done := make(chan error, 1)
		stale := ""
		go func() {
			done <- cachedpg.PgxConn(f.Ctx, f.Conn(f.DB), func(conn *pgx.Conn) error {
				_, err := conn.Exec(f.Ctx, "SELECT slow_write()", pgx.QueryExecModeExec)
				return err
			})
		}()
		g.Await(1)
		if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
			f.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second)
		cached := false
		for before := cachedpg.StatsOf(other.DB).Hits; time.Now().Before(deadline) && !cached; cached = cachedpg.StatsOf(other.DB).Hits > before {
			other.Fresh(harness.UserByID, 1)
		}
		if cached {
			stale = "cached while a statement runs whose mark was lost"
		}
		g.Open()
		if err := <-done; err != nil {
			f.Fatal(err)
		}
		if stale != "" {
			f.Error(stale)
		}
	})
}

// PostgreSQL ends idle transactions earlier than a lease does.
func TestANoticeOutlastsIdleTimeouts(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = ''1s''', current_database()); END $$")
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p))
		writer.Again(harness.UserByID, 1)
		p.Cut()
		for i := range 2 {
			if _, err := writer.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
				f.Errorf("write %d: %v", i, err)
			}
		}
	})
}

// Behind a pooler, a cancelled statement that runs alone.
func TestAnUnknownOutcomeBehindAPooler(t *testing.T) {
	const setup = `CREATE TABLE public.users (id int PRIMARY KEY, name text); INSERT INTO public.users VALUES (1, 'ann')`
	t.Parallel()
	r := redistest.Start(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", setup, "cache_store="+r.URL())
	const byID = "SELECT name FROM public.users WHERE id = $1"
	through := harness.WithKey(pgtest.PgbouncerTo(f.T, f.DSN, "transaction"), "default_query_exec_mode", "exec")
	pooled := *f
	pooled.DSN = through
	pooled.Plain = f.Open("pgx", through)
	v := pooled.Process("pooled")
	f.Again(byID, 1)
	ctx, cancel := context.WithTimeout(f.Ctx, 300*time.Millisecond)
	_, err := v.DB.ExecContext(ctx, "UPDATE public.users SET name = 'x'; SELECT pg_sleep(2)")
	cancel()
	f.Log(err)
	v.DB.Close()
	before := cachedpg.StatsOf(f.DB).Hits
	f.Until("a hit", func() bool {
		f.Fresh(byID, 1)
		return cachedpg.StatsOf(f.DB).Hits > before
	})
}

// A process that dies in Invalidate.
func TestAProcessThatDiesInInvalidate(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		other := f.Process("other")
		f.Again(harness.UserByID, 1)
		leave := inside.Enter(other.DB) // a slow statement of an older generation
		defer leave()
		if err := cachedpg.Invalidate(f.Ctx, other.DB); err != nil {
			f.Fatal(err)
		}
		// Here other dies: nothing of it is ever sent again.
		before := cachedpg.StatsOf(f.DB).Hits
		f.Until("a hit", func() bool {
			f.Fresh(harness.UserByID, 1)
			return cachedpg.StatsOf(f.DB).Hits > before
		})
	})
}

// A pool with one connection, of which the keeper takes one.
func TestAPoolThatIsSmall(t *testing.T) {
	for _, max := range []int32{1, 2} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				p := r.Proxy()
				config := f.PoolConfig()
				config.MaxConns = max
				pool, err := pgxpool.NewWithConfig(f.Ctx, config)
				if err != nil {
					f.Fatal(err)
				}
				f.Cleanup(func() {
					closed := make(chan struct{})
					go func() { pool.Close(); close(closed) }()
					select {
					case <-closed:
					case <-time.After(harness.Timeout):
						t.Error("the pool cannot be closed")
					}
				})
				c, err := cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), cachedpg.Config{Store: r.URLThrough(p)})
				if err != nil {
					f.Fatal(err)
				}
				inside.Process(c, "pool")
				db := sql.OpenDB(c)
				db.SetMaxIdleConns(0)
				f.Cleanup(func() { db.Close() })
				for i := range 10 {
					if _, err := db.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
						f.Errorf("write %d: %v", i, err)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
				p.Cut()
				if _, err := db.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
					f.Errorf("write with the store cut off: %v", err)
				}
			})
		})
	}
}

// Another role's statement is hidden in pg_stat_activity.
func TestANewEpochWaitsForStatementsOfOtherRoles(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		role := "low_" + fmt.Sprint(time.Now().UnixNano())
		f.Past("CREATE ROLE " + role + " LOGIN; GRANT ALL ON SCHEMA cache_statement TO " + role + "; GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
		f.Cleanup(func() { f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		g := f.CloseGate()
		low := strings.Replace(f.DSN, "postgres@", role+"@", 1)
		c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(low, f.Keys))
		if err != nil {
			f.Fatal(err)
		}
		inside.Process(c, "low")
		db := harness.OpenDB(f, c)
		f.Live(db)
		ctx, cancel := context.WithCancel(f.Ctx)
		done := make(chan error, 1)
		go func() {
			_, err := f.DB.ExecContext(ctx, "SELECT pg_advisory_lock_shared(1); UPDATE users SET name = 'anna' WHERE id = 1; SELECT pg_advisory_unlock_shared(1)")
			done <- err
		}()
		g.Await(1)
		inside.Abandon(f.DB) // the superuser's process does not renew
		if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
			f.Fatal(err)
		}
		for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			var name string
			if err := db.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = 1").Scan(&name); err != nil {
				f.Fatal(err)
			}
			if cachedpg.StatsOf(db).Hits > 0 {
				f.Errorf("cached while a statement runs whose mark was lost; live %v", inside.Live(db))
				break
			}
		}
		g.Open()
		<-done
		cancel()
	})
}

// A store that answers reads and refuses writes.
func TestAStoreThatRefusesWrites(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(harness.UserByID, 1)
		if err := r.Client().ConfigSet(f.Ctx, "min-replicas-to-write", "1").Err(); err != nil {
			f.Fatal(err)
		}
		for i := range 4 {
			begin := time.Now()
			f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
			d := time.Since(begin)
			f.Log(i, d)
			if i > 0 && d > patience.Lease/2 {
				f.Errorf("write %d took %v", i, d)
			}
			time.Sleep(700 * time.Millisecond)
		}
	})
}

// The order of opening decides whether it works.
func TestADBThatCachesNothingKeepsNobodyFromIt(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, harness.People)
	off, err := sql.Open("cachedpg", harness.WithKey(database, "cache_store", "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	if err := off.Ping(); err != nil {
		t.Fatal(err)
	}
	on, err := sql.Open("cachedpg", harness.WithKey(database, "cache_store", pgtest.Redis(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer on.Close()
	if err := on.Ping(); err != nil {
		t.Errorf("a DB with cache_store=off keeps one with Redis from working: %v", err)
	}
}

// Read-only and serializable by default.
func TestAutocommitUnderOtherDefaults(t *testing.T) {
	for _, setting := range []string{"default_transaction_read_only = on", "default_transaction_isolation = serializable"} {
		t.Run(setting, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				f.Past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET " + setting + "', current_database()); END $$")
				other := f.Process("other")
				other.Again(harness.UserByID, 1)
				_, got := other.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
				plain := f.Open("pgx", f.DSN)
				_, want := plain.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
				if fmt.Sprint(got) != fmt.Sprint(want) {
					f.Errorf("got %v, want %v", got, want)
				}
				p := r.Proxy()
				cut := f.Process("cut", "cache_store="+r.URLThrough(p))
				p.Cut()
				if want == nil {
					if _, err := cut.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err != nil {
						f.Error(err)
					}
				}
			})
		})
	}
}
