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

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// A loop over the rows of UPDATE … RETURNING that writes the same rows on
// another connection hangs.
func TestReturnedRowsHoldNoLocks(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		rows, err := f.db.QueryContext(f.ctx, "UPDATE users SET city = 'x' WHERE id < 3 RETURNING id")
		if err != nil {
			f.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				f.Fatal(err)
			}
			_, err := f.db.ExecContext(f.ctx, "UPDATE users SET city = 'y' WHERE id = $1", id)
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
	const setup = people + `CREATE TABLE parents (id int PRIMARY KEY);
		CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);`
	scenario(t, setup, func(f *fixture) {
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
			_, got := f.db.ExecContext(f.ctx, tc.sql, tc.args...)
			_, want := f.plain.ExecContext(f.ctx, tc.sql, tc.args...)
			if fmt.Sprint(got) != fmt.Sprint(want) || reflect.TypeOf(got) != reflect.TypeOf(want) {
				f.Errorf("Exec %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, got, got, want, want)
			}
			a := f.read(f.db, tc.sql, tc.args)
			b := f.read(f.plain, tc.sql, tc.args)
			if fmt.Sprint(a.err) != fmt.Sprint(b.err) || reflect.TypeOf(a.err) != reflect.TypeOf(b.err) {
				f.Errorf("Query %s %v:\n  got  %T %v\n  want %T %v", tc.sql, tc.args, a.err, a.err, b.err, b.err)
			}
		}
	})
}

// wrapped is another process whose connector is a wrapped one, so that a
// hand-out of the pgx connection is opaque.
func (f *fixture) wrapped(name string, config Config) via {
	f.Helper()
	pg, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	c, err := WrapConnector(stdlib.GetConnector(*pg), config)
	if err != nil {
		f.Fatal(err)
	}
	c.(*connector).process = name
	db := openDB(f, c)
	f.live(db)
	return f.asking(db)
}

// Marked before it runs, the mark lost before it runs: nobody waits for it.
func TestAnEpochEndsBeforeAnAloneStatementRuns(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		w := f.wrapped("wrapped", Config{Store: r.URL()})
		f.handedOut(w, func() {
			if err := r.Client().FlushAll(f.ctx).Err(); err != nil {
				f.Fatal(err)
			}
		})
	})
}

// handedOut lends w's pgx connection and takes away what keeps others from
// hits meanwhile. If somebody gets one all the same, it must not outlive a write.
func (f *fixture) handedOut(w via, takeAway func()) {
	f.Helper()
	err := PgxConn(f.ctx, f.conn(w.db), func(conn *pgx.Conn) error {
		takeAway()
		deadline := time.Now().Add(5 * time.Second)
		for before := StatsOf(f.db).Hits; StatsOf(f.db).Hits == before; f.fresh(userByID, 1) {
			if time.Now().After(deadline) {
				return nil // not cached while the hand-out lasts: right
			}
		}
		if _, err := conn.Exec(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
			return err
		}
		f.fresh(userByID, 1).is("1 anna Oslo")
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
}

// The same for what is running, but looks like a read.
func TestAnEpochEndsWhileAWritingSelectRuns(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.past(`CREATE FUNCTION slow_write() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM pg_advisory_lock_shared(1); UPDATE users SET name = 'anna' WHERE id = 1; PERFORM pg_advisory_unlock_shared(1); RETURN 1; END $$`)
		other := f.process("other")
		other.again(userByID, 1)
		g := f.closeGate()
		done := make(chan error, 1)
		stale := ""
		go func() {
			done <- PgxConn(f.ctx, f.conn(f.db), func(conn *pgx.Conn) error {
				_, err := conn.Exec(f.ctx, "SELECT slow_write()", pgx.QueryExecModeExec)
				return err
			})
		}()
		g.await(1)
		if err := r.Client().FlushAll(f.ctx).Err(); err != nil {
			f.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second)
		cached := false
		for before := StatsOf(other.db).Hits; time.Now().Before(deadline) && !cached; cached = StatsOf(other.db).Hits > before {
			other.fresh(userByID, 1)
		}
		if cached {
			stale = "cached while a statement runs whose mark was lost"
		}
		g.open()
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
	outage(t, func(f *fixture, r *redistest.Server) {
		f.past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = ''1s''', current_database()); END $$")
		p := r.Proxy()
		writer := f.process("writer", "cache_store="+r.URLThrough(p))
		writer.again(userByID, 1)
		p.Cut()
		for i := range 2 {
			if _, err := writer.db.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
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
	f := newFixture(t, pgtest.Database(t), "cache_statement", setup, "cache_store="+r.URL())
	const byID = "SELECT name FROM public.users WHERE id = $1"
	through := withKey(pgtest.PgbouncerTo(f.T, f.dsn, "transaction"), "default_query_exec_mode", "exec")
	pooled := *f
	pooled.dsn = through
	pooled.plain = f.open("pgx", through)
	v := pooled.process("pooled")
	f.again(byID, 1)
	ctx, cancel := context.WithTimeout(f.ctx, 300*time.Millisecond)
	_, err := v.db.ExecContext(ctx, "UPDATE public.users SET name = 'x'; SELECT pg_sleep(2)")
	cancel()
	f.Log(err)
	v.db.Close()
	before := StatsOf(f.db).Hits
	f.until("a hit", func() bool {
		f.fresh(byID, 1)
		return StatsOf(f.db).Hits > before
	})
}

// A process that dies in Invalidate.
func TestAProcessThatDiesInInvalidate(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		other := f.process("other")
		f.again(userByID, 1)
		sp := connectorOf(other.db).space()
		leave := sp.gens.Enter() // a slow statement of an older generation
		defer leave()
		if err := sp.invalidateAll(f.ctx); err != nil {
			f.Fatal(err)
		}
		// Here other dies: nothing of it is ever sent again.
		before := StatsOf(f.db).Hits
		f.until("a hit", func() bool {
			f.fresh(userByID, 1)
			return StatsOf(f.db).Hits > before
		})
	})
}

// A pool with one connection, of which the keeper takes one.
func TestAPoolThatIsSmall(t *testing.T) {
	for _, max := range []int32{1, 2} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			outage(t, func(f *fixture, r *redistest.Server) {
				p := r.Proxy()
				config := f.poolConfig()
				config.MaxConns = max
				pool, err := pgxpool.NewWithConfig(f.ctx, config)
				if err != nil {
					f.Fatal(err)
				}
				f.Cleanup(func() {
					closed := make(chan struct{})
					go func() { pool.Close(); close(closed) }()
					select {
					case <-closed:
					case <-time.After(testTimeout):
						t.Error("the pool cannot be closed")
					}
				})
				c, err := WrapConnector(stdlib.GetPoolConnector(pool), Config{Store: r.URLThrough(p)})
				if err != nil {
					f.Fatal(err)
				}
				c.(*connector).process = "pool"
				db := sql.OpenDB(c)
				db.SetMaxIdleConns(0)
				f.Cleanup(func() { db.Close() })
				for i := range 10 {
					if _, err := db.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
						f.Errorf("write %d: %v", i, err)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
				p.Cut()
				if _, err := db.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
					f.Errorf("write with the store cut off: %v", err)
				}
			})
		})
	}
}

// COMMIT itself writes: a transaction without an id until then.
func TestACommitThatRunsAHeldCursor(t *testing.T) {
	shared(t, people+`CREATE FUNCTION w() RETURNS int LANGUAGE sql AS $$ UPDATE users SET name = 'anna' WHERE id = 1 RETURNING 1 $$;`, func(f *fixture) {
		other := f.process("other")
		other.known(userByID, 1)
		tx, err := f.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := tx.ExecContext(f.ctx, "DECLARE c CURSOR WITH HOLD FOR SELECT w()"); err != nil {
			f.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			f.Fatal(err)
		}
		f.released()
		other.fresh(userByID, 1).is("1 anna Oslo")
	})
}

// Another role's statement is hidden in pg_stat_activity.
func TestANewEpochWaitsForStatementsOfOtherRoles(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		role := "low_" + fmt.Sprint(time.Now().UnixNano())
		f.past("CREATE ROLE " + role + " LOGIN; GRANT ALL ON SCHEMA cache_statement TO " + role + "; GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + role)
		f.Cleanup(func() { f.past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		g := f.closeGate()
		low := strings.Replace(f.dsn, "postgres@", role+"@", 1)
		c, err := (&Driver{}).OpenConnector(withKeys(low, f.keys))
		if err != nil {
			f.Fatal(err)
		}
		c.(*connector).process = "low"
		db := openDB(f, c)
		f.live(db)
		ctx, cancel := context.WithCancel(f.ctx)
		done := make(chan error, 1)
		go func() {
			_, err := f.db.ExecContext(ctx, "SELECT pg_advisory_lock_shared(1); UPDATE users SET name = 'anna' WHERE id = 1; SELECT pg_advisory_unlock_shared(1)")
			done <- err
		}()
		g.await(1)
		connectorOf(f.db).space().keeper.cancel() // the superuser's process does not renew
		<-connectorOf(f.db).space().keeper.done
		if err := r.Client().FlushAll(f.ctx).Err(); err != nil {
			f.Fatal(err)
		}
		k := connectorOf(db).space().keeper
		for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			var name string
			if err := db.QueryRowContext(f.ctx, "SELECT name FROM users WHERE id = 1").Scan(&name); err != nil {
				f.Fatal(err)
			}
			if StatsOf(db).Hits > 0 {
				f.Errorf("cached while a statement runs whose mark was lost; live %v", k.live.Load())
				break
			}
		}
		g.open()
		<-done
		cancel()
	})
}

// A store that answers reads and refuses writes.
func TestAStoreThatRefusesWrites(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.again(userByID, 1)
		if err := r.Client().ConfigSet(f.ctx, "min-replicas-to-write", "1").Err(); err != nil {
			f.Fatal(err)
		}
		for i := range 4 {
			begin := time.Now()
			f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
			d := time.Since(begin)
			f.Log(i, d)
			if i > 0 && d > store.Lease/2 {
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
	pgtest.Exec(t, database, people)
	off, err := sql.Open("cachedpg", withKey(database, "cache_store", "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	if err := off.Ping(); err != nil {
		t.Fatal(err)
	}
	on, err := sql.Open("cachedpg", withKey(database, "cache_store", pgtest.Redis(t)))
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
			outage(t, func(f *fixture, r *redistest.Server) {
				f.past("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET " + setting + "', current_database()); END $$")
				other := f.process("other")
				other.again(userByID, 1)
				_, got := other.db.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
				plain := f.open("pgx", f.dsn)
				_, want := plain.ExecContext(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1")
				if fmt.Sprint(got) != fmt.Sprint(want) {
					f.Errorf("got %v, want %v", got, want)
				}
				p := r.Proxy()
				cut := f.process("cut", "cache_store="+r.URLThrough(p))
				p.Cut()
				if want == nil {
					if _, err := cut.db.ExecContext(f.ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err != nil {
						f.Error(err)
					}
				}
			})
		})
	}
}
