package cachedpg

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// A loop over the rows of UPDATE … RETURNING that writes the same rows on
// another connection hangs.
func TestReturnedRowsHoldNoLocks(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		rows, err := f.DB.QueryContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id < 3 RETURNING id")
		if err != nil {
			f.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				f.Fatal(err)
			}
			_, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET city = 'y' WHERE id = $1", id)
			if err != nil {
				f.Fatalf("id %d: %v", id, err)
			}
		}
		if err := rows.Err(); err != nil {
			f.Fatal(err)
		}
	})
}

// Errors with and without arguments, in all modes.
func TestErrorsOfAutocommitStatementsAreThoseOfPgx(t *testing.T) {
	const setup = harness.People + `CREATE TABLE parents (id int PRIMARY KEY);
		CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for _, tc := range []struct {
			sql  string
			args []any
		}{
			{"INSERT INTO users VALUES ($1, 'x', NULL)", []any{1}},
			{"INSERT INTO children VALUES ($1, 7)", []any{1}},
			{"UPDATE users SET nothing = $1", []any{1}},
			{"UPDATE nowhere SET nothing = $1", []any{1}},
			{"UPDATE users SET name = $1", nil},
			{"UPDATE users SET name = $1", []any{1, 2}},
			{"UPDATE users SET name = $1 WHERE id = $2", []any{"x"}},
			{"UPDATE users SET id = $1", []any{"abc"}},
			{"UPDATE users SET id = $1", []any{struct{ X int }{1}}},
			{"UPDATE users SET id = 1/0 WHERE id = $1", []any{1}},
			{"UPDATE users SET id = $1::int / 0", []any{1}},
			{"LOCK TABLE users", nil},
			{"DECLARE c CURSOR FOR SELECT 1", nil},
			{"CREATE TABLE users (id int)", nil},
			{"SAVEPOINT a", nil},
			{"INSERT INTO users VALUES (9, 'x'); INSERT INTO users VALUES (1, 'x')", nil},
			{"VACUUM nowhere", nil},
			{"CREATE INDEX CONCURRENTLY i ON nowhere (a)", nil},
		} {
			_, got := f.DB.ExecContext(f.Ctx, tc.sql, tc.args...)
			_, want := f.Plain.ExecContext(f.Ctx, tc.sql, tc.args...)
			if fmt.Sprint(got) != fmt.Sprint(want) || reflect.TypeOf(got) != reflect.TypeOf(want) {
				f.Errorf("Exec %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, got, got, want, want)
			}
			a := f.Read(f.DB, tc.sql, tc.args)
			b := f.Read(f.Plain, tc.sql, tc.args)
			if fmt.Sprint(a.Err) != fmt.Sprint(b.Err) || reflect.TypeOf(a.Err) != reflect.TypeOf(b.Err) {
				f.Errorf("Query %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, a.Err, a.Err, b.Err, b.Err)
			}
		}
	})
}

// openWrapped is another process whose connector is a wrapped one, so that a
// hand-out of the pgx connection is opaque.
func openWrapped(f *harness.Fixture, name string, config Config) harness.Via {
	f.Helper()
	pg, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	c, err := WrapConnector(stdlib.GetConnector(*pg), config)
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
		w := openWrapped(f, "wrapped", Config{Store: r.URL()})
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
	err := PgxConn(f.Ctx, f.Conn(w.DB), func(conn *pgx.Conn) error {
		takeAway()
		deadline := time.Now().Add(5 * time.Second)
		for before := StatsOf(f.DB).Hits; StatsOf(f.DB).Hits == before; f.Fresh(harness.UserByID, 1) {
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
			done <- PgxConn(f.Ctx, f.Conn(f.DB), func(conn *pgx.Conn) error {
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
		for before := StatsOf(other.DB).Hits; time.Now().Before(deadline) && !cached; cached = StatsOf(other.DB).Hits > before {
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
	before := StatsOf(f.DB).Hits
	f.Until("a hit", func() bool {
		f.Fresh(byID, 1)
		return StatsOf(f.DB).Hits > before
	})
}

// A process that dies in Invalidate.
func TestAProcessThatDiesInInvalidate(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		other := f.Process("other")
		f.Again(harness.UserByID, 1)
		sp := connectorOf(other.DB).space()
		leave := sp.gens.Enter() // a slow statement of an older generation
		defer leave()
		if err := sp.invalidateAll(f.Ctx); err != nil {
			f.Fatal(err)
		}
		// Here other dies: nothing of it is ever sent again.
		before := StatsOf(f.DB).Hits
		f.Until("a hit", func() bool {
			f.Fresh(harness.UserByID, 1)
			return StatsOf(f.DB).Hits > before
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
				c, err := WrapConnector(stdlib.GetPoolConnector(pool), Config{Store: r.URLThrough(p)})
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

// COMMIT itself writes: a transaction without an id until then.
func TestACommitThatRunsAHeldCursor(t *testing.T) {
	harness.Shared(t, harness.People+`CREATE FUNCTION w() RETURNS int LANGUAGE sql AS $$ UPDATE users SET name = 'anna' WHERE id = 1 RETURNING 1 $$;`, func(f *harness.Fixture) {
		other := f.Process("other")
		other.Known(harness.UserByID, 1)
		tx, err := f.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := tx.ExecContext(f.Ctx, "DECLARE c CURSOR WITH HOLD FOR SELECT w()"); err != nil {
			f.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			f.Fatal(err)
		}
		f.Released()
		other.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// Another role's statement is hidden in pg_stat_activity.
func TestANewEpochWaitsForStatementsOfOtherRoles(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		role := "low_" + fmt.Sprint(time.Now().UnixNano())
		f.Past("CREATE ROLE " + role + " LOGIN; GRANT ALL ON SCHEMA cache_statement TO " + role + "; GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
		f.Cleanup(func() { f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		g := f.CloseGate()
		low := strings.Replace(f.DSN, "postgres@", role+"@", 1)
		c, err := (&Driver{}).OpenConnector(harness.WithKeys(low, f.Keys))
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
		connectorOf(f.DB).space().keeper.cancel() // the superuser's process does not renew
		<-connectorOf(f.DB).space().keeper.done
		if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
			f.Fatal(err)
		}
		k := connectorOf(db).space().keeper
		for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			var name string
			if err := db.QueryRowContext(f.Ctx, "SELECT name FROM users WHERE id = 1").Scan(&name); err != nil {
				f.Fatal(err)
			}
			if StatsOf(db).Hits > 0 {
				f.Errorf("cached while a statement runs whose mark was lost; live %v", k.live.Load())
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
