//go:build unix

package cachedpg

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/store"
)

// asynchronous is a story, with each store, on a server whose log is on disk only when
// somebody commits who waits for it.
func asynchronous(t *testing.T, setup string, story func(f *harness.Fixture, s *pgtest.Server)) {
	t.Helper()
	t.Parallel()
	s := unflushing(t)
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			if name == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			f := harness.New(t, s.DSN(), "cache_statement", setup, keys...)
			f.Plain.SetMaxIdleConns(0)
			story(f, s)
		})
	}
}

// unflushing is a server that writes its log to disk when somebody waits for it.
func unflushing(t *testing.T) *pgtest.Server {
	t.Helper()
	s := pgtest.StartServer(t, "bgwriter_delay=10s", "autovacuum=off", "checkpoint_timeout=1d")
	s.StopWALWriter()
	return s
}

// setAside is a DSN key by which commits of a DB do not wait for the disk.
const setAside = "synchronous_commit"

// The log goes on at a place that is not on disk.
func isUnflushed(f *harness.Fixture) bool {
	f.Helper()
	var behind bool
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()").Scan(&behind); err != nil {
		f.Fatal(err)
	}
	return behind
}

// flushes has a transaction of somebody else wait for the disk.
func flushes(f *harness.Fixture) { f.Past("CREATE TABLE IF NOT EXISTS flushed (); DROP TABLE flushed") }

// However it came that a commit does not wait for the disk, nothing that depends on
// it is cached before it is there (I20), and everything is afterwards.
func TestWhatIsNotOnDiskIsNotCached(t *testing.T) {
	asynchronous(t, harness.People+`
		CREATE FUNCTION hurried(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM set_config('synchronous_commit', 'off', true); UPDATE users SET city = city || '!' WHERE id = $1; RETURN 1; END $$;
		CREATE FUNCTION hurry(bool) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('synchronous_commit', 'off', $1); RETURN 1; END $$;
		CREATE FUNCTION hurry_dynamic() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET synchronous_' || 'commit = off'; RETURN 1; END $$;
		CREATE TABLE logged (id int PRIMARY KEY, n int); INSERT INTO logged VALUES (1, 1);
		CREATE FUNCTION hurry_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL synchronous_commit = off; RETURN NEW; END $$;
		CREATE TRIGGER hurry BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION hurry_row();
		CREATE PROCEDURE hurried_twice() LANGUAGE plpgsql AS $$ BEGIN
			UPDATE users SET city = 'one' WHERE id = 1; COMMIT; PERFORM set_config('synchronous_commit', 'off', true); UPDATE users SET city = 'two' WHERE id = 1; END $$;`,
		func(f *harness.Fixture, s *pgtest.Server) {
			const read = "SELECT city FROM users WHERE id = $1"
			const write = "UPDATE users SET city = $1 WHERE id = 1"
			tx := func(db *sql.DB, texts ...string) {
				f.Helper()
				tx, err := db.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				defer tx.Rollback()
				for _, text := range texts {
					if _, err := tx.ExecContext(f.Ctx, text); err != nil {
						f.Fatalf("%s: %v", text, err)
					}
				}
				f.Commit(tx)
			}
			on := func(texts ...string) func() {
				return func() {
					f.Helper()
					v, conn := f.Session()
					defer conn.Close()
					for _, text := range texts {
						v.On(conn).Exec(text)
					}
					v.On(conn).Exec("RESET synchronous_commit")
				}
			}
			of := func(keys ...string) *sql.DB {
				db := f.Open("cachedpg", harness.WithKeys(harness.WithKeys(f.DSN, f.Keys), keys))
				if !f.InMemory() {
					f.Live(db)
				}
				return db
			}
			hurried := of(setAside + "=off")
			s.Exec("DROP ROLE IF EXISTS hurried", "CREATE ROLE hurried LOGIN SUPERUSER", "ALTER ROLE hurried SET synchronous_commit = off")
			for name, commits := range map[string]func(){
				"by the DSN": func() {
					if _, err := hurried.ExecContext(f.Ctx, write, "Bern"); err != nil {
						f.Fatal(err)
					}
				},
				"with RETURNING": func() {
					if err := hurried.QueryRowContext(f.Ctx, write+" RETURNING id", "Wien").Scan(new(int)); err != nil {
						f.Fatal(err)
					}
				},
				"in a transaction": func() { tx(hurried, "UPDATE users SET city = 'Graz' WHERE id = 1") },
				"by COMMIT as a text": func() {
					on("SET synchronous_commit = off", "BEGIN", "UPDATE users SET city = 'text' WHERE id = 1", "COMMIT")()
				},
				"by the role": func() {
					db := of("user=hurried")
					defer db.Close()
					if _, err := db.ExecContext(f.Ctx, write, "role"); err != nil {
						f.Fatal(err)
					}
				},
				"by SET":               on("SET synchronous_commit = off", "UPDATE users SET city = 'SET' WHERE id = 1"),
				"by SET LOCAL":         func() { tx(f.DB, "SET LOCAL synchronous_commit = off", "UPDATE users SET city = 'LOCAL' WHERE id = 1") },
				"by SET LOCAL at last": func() { tx(f.DB, "UPDATE users SET city = 'last' WHERE id = 1", "SET LOCAL synchronous_commit = off") },
				"by set_config":        on("SELECT set_config('synchronous_' || 'commit', 'off', false)", "UPDATE users SET city = 'set_config' WHERE id = 1"),
				"after a savepoint": func() {
					tx(f.DB, "SET LOCAL synchronous_commit = off", "SAVEPOINT s", "SET LOCAL synchronous_commit = on", "ROLLBACK TO s",
						"UPDATE users SET city = 'savepoint' WHERE id = 1")
				},
				"undone by a savepoint at last": func() {
					tx(f.DB, "SET LOCAL synchronous_commit = off", "UPDATE users SET city = 'undone' WHERE id = 1", "SAVEPOINT s", "SET LOCAL synchronous_commit = on",
						"ROLLBACK TO s")
				},
				"by a function that writes":                        func() { f.Exec("SELECT hurried(1)") },
				"by a function in a transaction":                   func() { tx(f.DB, "SELECT hurry(true)", "UPDATE users SET city = 'function' WHERE id = 1") },
				"by a function at last":                            func() { tx(f.DB, "UPDATE users SET city = 'at last' WHERE id = 1", "SELECT hurry(true)") },
				"by a function before":                             on("SELECT hurry(false)", "UPDATE users SET city = 'before' WHERE id = 1"),
				"by a function that is not read":                   on("SELECT hurry_dynamic()", "UPDATE users SET city = 'dynamic' WHERE id = 1"),
				"by a function that is not read, in a transaction": func() { tx(f.DB, "SELECT hurry_dynamic()", "UPDATE users SET city = 'dynamic tx' WHERE id = 1") },
				"by a trigger": func() {
					tx(f.DB, "UPDATE logged SET n = n + 1", "UPDATE users SET city = 'trigger' WHERE id = 1")
				},
				"by a procedure": func() { f.Exec("CALL hurried_twice()") },
				"by a text of several statements": func() {
					if _, err := f.DB.ExecContext(f.Ctx, "SET LOCAL synchronous_commit = off; UPDATE users SET city = 'several' WHERE id = 1", pgx.QueryExecModeSimpleProtocol); err != nil {
						f.Fatal(err)
					}
				},
				"on the pgx connection": func() {
					conn := f.Conn(f.DB)
					defer conn.Close()
					err := PgxConn(f.Ctx, conn, func(c *pgx.Conn) error {
						batch := &pgx.Batch{}
						batch.Queue("SET synchronous_commit = off")
						batch.Queue("UPDATE users SET city = 'batch' WHERE id = 1")
						if err := c.SendBatch(f.Ctx, batch).Close(); err != nil {
							return err
						}
						_, err := c.Exec(f.Ctx, "RESET synchronous_commit")
						return err
					})
					if err != nil {
						f.Fatal(err)
					}
				},
				"that changed the schema": func() {
					tx(hurried, "ALTER TABLE users ADD COLUMN IF NOT EXISTS further int", "UPDATE users SET city = 'DDL' WHERE id = 1")
				},
			} {
				f.Step(name, func(f *harness.Fixture) {
					f.Until("a hit", func() bool { f.Fresh(read, 1); return isHit(f, read, 1) })
					commits()
					checkUnflushed(f, read, 1)
					f.Until("a hit", func() bool { flushes(f); f.Fresh(read, 1); return isHit(f, read, 1) })
				})
			}
			f.Step("by the database, which a session finds that is dialled later", func(f *harness.Fixture) {
				f.Until("a hit", func() bool { f.Fresh(read, 1); return isHit(f, read, 1) })
				v, conn := f.Session()
				defer conn.Close()
				v.On(conn).Exec("SELECT 1")
				s.Exec("ALTER DATABASE postgres SET synchronous_commit = off")
				later := f.Conn(f.DB)
				defer later.Close()
				f.Asking(f.DB).On(later).Exec(write, "later")
				checkUnflushed(f, read, 1)
				s.Exec("ALTER DATABASE postgres RESET synchronous_commit")
				f.DB.SetMaxIdleConns(0)
				f.DB.SetMaxIdleConns(10)
			})
			f.Step("by a reload of the configuration", func(f *harness.Fixture) {
				v, conn := f.Session()
				defer conn.Close()
				v.On(conn).Exec("SELECT 1") // its session is known
				noticed := noticesReload(f)
				v.On(conn).Exec("ALTER SYSTEM SET synchronous_commit = off")
				v.On(conn).Exec("SELECT pg_reload_conf()")
				f.Until("the reload", func() bool {
					var setting string
					if err := conn.QueryRowContext(f.Ctx, "SHOW synchronous_commit").Scan(&setting); err != nil {
						f.Fatal(err)
					}
					return setting == "off"
				})
				noticed(read, 1)
				v.On(conn).Exec(write, "reload")
				checkUnflushed(f, read, 1)
				s.Exec("ALTER SYSTEM RESET synchronous_commit", "SELECT pg_reload_conf()") // its WAL writer flushes, too
			})
		})
}

// noticesReload returns what waits until a reload since is known that lets commits go on
// before they are on disk, and what was begun anew for it is warm.
func noticesReload(f *harness.Fixture) func(query string, args ...any) {
	sp := connectorOf(f.DB).space()
	before := sp.configured.Load()
	return func(query string, args ...any) {
		f.Until("the question", func() bool { f.Fresh(query, args...); return !f.InMemory() || sp.configured.Load() != before })
		f.Until("a hit", func() bool { flushes(f); f.Fresh(query, args...); return isHit(f, query, args...) })
	}
}

// Somebody else has the server load another configuration. A session that had learned
// the one of before commits under the new one (I20).
func TestAReloadOfTheConfigurationIsNoticed(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, s *pgtest.Server) {
		v, conn := f.Session()
		defer conn.Close()
		v.On(conn).Exec("UPDATE users SET city = 'known' WHERE id = 1") // how it commits, too
		f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
		noticed := noticesReload(f)
		s.Exec("ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()")
		defer s.Exec("ALTER SYSTEM RESET synchronous_commit", "SELECT pg_reload_conf()")
		f.Until("the reload", func() bool {
			var setting string
			if err := conn.QueryRowContext(f.Ctx, "SHOW synchronous_commit").Scan(&setting); err != nil {
				f.Fatal(err)
			}
			return setting == "off"
		})
		commit := func() {
			f.Until("a commit that is not on disk", func() bool { // the WAL writer loads the configuration, too, and flushes
				v.On(conn).Exec("UPDATE users SET city = city || '!' WHERE id = 1")
				return isUnflushed(f)
			})
		}
		commit()
		noticed(harness.UserByID, 1)
		commit() // by a session that has not been asked again
		checkUnflushed(f, harness.UserByID, 1)
		f.Until("a hit", func() bool { flushes(f); f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
	})
}

// The reload is noticed when a statement is on its way that was marked before (I20).
func TestAReloadIsNoticedWhileAStatementRuns(t *testing.T) {
	t.Parallel()
	s := unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People)
	f.Exec("UPDATE users SET city = 'known' WHERE id = 1")
	rows, err := f.DB.QueryContext(f.Ctx, "UPDATE users SET city = 'Rome' WHERE id = 1 RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	sp := connectorOf(f.DB).space()
	sp.reconfigured(f.Ctx, backend.Configuration{Mode: backend.CommitSync}, backend.Configuration{Mode: backend.CommitAsync, Direct: true})
	run(f, pgtest.Connect(f, harness.WithKey(f.DSN, setAside, "off")), "UPDATE users SET city = 'Pisa' WHERE id = 2")
	if !isUnflushed(f) {
		t.Error("the log is on disk before it shall be")
	}
	rows.Close()
	if got := StatsOf(f.DB).Unflushed; got != 1 {
		t.Errorf("%d commits wait for the disk, want 1", got)
	}
}

// PREPARE TRANSACTION and COMMIT PREPARED wait for the disk whatever is set, and so
// does a commit after a function whose own setting has ended with it.
func TestWhatWaitsForTheDiskAnyway(t *testing.T) {
	asynchronous(t, harness.People+`
		CREATE FUNCTION apart(int) RETURNS int LANGUAGE plpgsql SET synchronous_commit = off AS $$ BEGIN
			UPDATE users SET city = city || '.' WHERE id = $1; RETURN 1; END $$;`,
		func(f *harness.Fixture, s *pgtest.Server) {
			f.Step("a function", func(f *harness.Fixture) {
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
				f.Exec("SELECT apart(1)")
				f.Released()
				f.Known(harness.UserByID, 1)
			})
			f.Step("a prepared transaction", func(f *harness.Fixture) {
				v, conn := f.Session()
				defer conn.Close()
				v.On(conn).Exec("SET synchronous_commit = off")
				v.On(conn).Exec("BEGIN")
				v.On(conn).Exec("UPDATE users SET city = 'prepared' WHERE id = 1")
				v.On(conn).Exec("PREPARE TRANSACTION 'disk'")
				before := StatsOf(f.DB)
				for range 3 {
					f.Fresh(harness.UserByID, 1)
				}
				if after := StatsOf(f.DB); after.Hits != before.Hits || after.Fills != before.Fills {
					f.Errorf("while the transaction is prepared: %s", harness.Difference(counts(before), counts(after)))
				}
				v.On(conn).Exec("COMMIT PREPARED 'disk'")
				if isUnflushed(f) {
					f.Error("PostgreSQL has not waited for the disk")
				}
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
				f.Fresh(harness.UserByID, 1).Is("1 ann prepared")
			})
		})
}

// A writer reads its results again after its commit (strategy write-through), but not
// what a crash may undo (I20).
func TestAWriterRefillsNothingThatIsNotOnDisk(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, s *pgtest.Server) {
		through := f.With("cache_policy=users:write-through", setAside+"=off")
		if !f.InMemory() {
			f.Live(through.DB)
		}
		on := f.Asking(through.DB)
		f.Until("a hit", func() bool {
			on.Fresh(harness.UserByID, 1)
			h := StatsOf(through.DB).Hits
			on.Fresh(harness.UserByID, 1)
			return StatsOf(through.DB).Hits > h
		})
		before := StatsOf(through.DB)
		on.Exec("UPDATE users SET city = 'refilled' WHERE id = 1")
		checkUnflushed(f, harness.UserByID, 1)
		on.Fresh(harness.UserByID, 1).Is("1 ann refilled")
		after := StatsOf(through.DB)
		if after.Refilled != before.Refilled || after.RefillSkipped == before.RefillSkipped || after.Hits != before.Hits || after.Fills != before.Fills {
			t.Errorf("what is not on disk: %s", harness.Difference(counts(before), counts(after)))
		}
		f.Until("a hit", func() bool { flushes(f); f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
	})
}

// An epoch whose lease ran out begins again when nobody commits past the store any more.
// What somebody did is on disk by then (I21).
func TestAnEpochBeginsWithWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	s := unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	conn := pgtest.Connect(f, harness.WithKey(f.DSN, setAside, "off"))
	for _, fresh := range []store.Fresh{{Epoch: "kept", Kept: true}, {Epoch: "new"}} {
		run(f, conn, "UPDATE users SET city = 'past' WHERE id = 1")
		if !isUnflushed(f) {
			t.Error("the log is on disk before it shall be")
		}
		k := &keeper{log: new(backend.Log), peers: keeperOf(f.Via).peers} // not the one that is at work
		k.guard.ID, k.watch.guard = keeperOf(f.Via).guard.ID, &k.guard
		k.guard.Add(connectorOf(f.DB))
		f.Until("a lease", func() bool {
			ok, err := k.sure(f.Ctx, fresh)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
		k.guard.Close()
		if isUnflushed(f) {
			t.Errorf("%+v begins with what a crash may undo", fresh)
		}
	}
}

// checkUnflushed reads what was just committed: as long as it is not on disk, it
// comes from PostgreSQL each time.
func checkUnflushed(f *harness.Fixture, query string, args ...any) {
	f.Helper()
	before := StatsOf(f.DB)
	for range 3 {
		f.Fresh(query, args...)
	}
	after := StatsOf(f.DB)
	if !isUnflushed(f) {
		f.Error("the log is on disk before it shall be")
	} else if after.Hits != before.Hits || after.Fills != before.Fills {
		f.Errorf("what is not on disk: %s", harness.Difference(counts(before), counts(after)))
	}
}

// counts are those of what difference tells in words.
func counts(s Stats) inside.Counts {
	return inside.Counts{Hits: s.Hits, Misses: s.Misses, Others: s.Others, Bypasses: s.Bypasses}
}

func isHit(f *harness.Fixture, query string, args ...any) bool {
	f.Helper()
	before := StatsOf(f.DB).Hits
	f.Fresh(query, args...)
	return StatsOf(f.DB).Hits > before
}

// What waits for the disk is released by nobody else: a commit that does wait keeps
// its results cached, and to wait costs the writer nothing.
func TestACommitThatWaitsForTheDiskIsReleasedAtOnce(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, _ *pgtest.Server) {
		f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
		for _, setting := range []string{"on", "local"} {
			v, conn := f.Session()
			v.On(conn).Exec("SET synchronous_commit = " + setting)
			v.On(conn).Exec("UPDATE users SET city = $1 WHERE id = 1", setting)
			conn.Close()
			f.Released()
			f.Known(harness.UserByID, 1)
		}
	})
}

// A writer dies after its commit, which is not on disk: whoever finds its marks asks
// for that as well.
func TestTheMarksOfADeadWriterStayUntilItsCommitIsOnDisk(t *testing.T) {
	t.Parallel()
	s := unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	f.Again(harness.UserByID, 1)
	conn, err := pgx.Connect(f.Ctx, harness.WithKey(f.DSN, setAside, "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	k := keeperOf(f.Via)
	var xid uint64
	var answer string
	tx, err := conn.Begin(f.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(f.Ctx, "UPDATE users SET city = 'lost' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(f.Ctx, transactionFacts).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(answer, &xid); err != nil {
		t.Fatal(err)
	}
	w := store.NewAsyncWriter(xid)
	if err := k.store.Intend(f.Ctx, w, tagsOf(f, harness.UserByID, 1)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(f.Ctx); err != nil {
		t.Fatal(err)
	}
	if !isUnflushed(f) {
		t.Error("the log is on disk before it shall be")
	}
	f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
	if isUnflushed(f) {
		t.Error("the marks of a commit are released that is not on disk")
	}
}

// Where the role may not ask how far the log is, what PostgreSQL promises counts.
func TestALogThatMayNotBeAskedIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := pgtest.StartServer(t)
	s.Exec("REVOKE EXECUTE ON FUNCTION pg_current_wal_flush_lsn() FROM PUBLIC", "CREATE ROLE humble LOGIN",
		"GRANT ALL ON DATABASE postgres TO humble")
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			keys := []string{}
			if name == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			dsn := harness.WithKey(harness.WithKey(s.DSN(), setAside, "off"), "user", "humble")
			f := harness.New(t, dsn, "cache_statement", harness.People, keys...)
			for i := range 3 {
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return isHit(f, harness.UserByID, 1) })
				f.Exec("UPDATE users SET city = $1 WHERE id = 1", strconv.Itoa(i))
				before := StatsOf(f.DB)
				f.Fresh(harness.UserByID, 1)
				if after := StatsOf(f.DB); after.Hits != before.Hits || after.Fills != before.Fills {
					f.Errorf("right after a commit: %s", harness.Difference(counts(before), counts(after)))
				}
			}
			if problem := StatsOf(f.DB).UnflushedProblem; !strings.Contains(problem, "pg_current_wal_flush_lsn()") {
				f.Errorf("Stats say %q of the missing right", problem)
			}
		})
	}
}
