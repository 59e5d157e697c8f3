//go:build unix

package durability

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/store"
)

// PREPARE TRANSACTION and COMMIT PREPARED wait for the disk whatever is set, and so
// does a commit after a function whose own setting has ended with it.
func TestWhatWaitsForTheDiskAnyway(t *testing.T) {
	asynchronous(t, harness.People+`
		CREATE FUNCTION apart(int) RETURNS int LANGUAGE plpgsql SET synchronous_commit = off AS $$ BEGIN
			UPDATE users SET city = city || '.' WHERE id = $1; RETURN 1; END $$;`,
		func(f *harness.Fixture, s *pgtest.Server) {
			f.Step("a function", func(f *harness.Fixture) {
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
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
				before := cachedpg.StatsOf(f.DB)
				for range 3 {
					f.Fresh(harness.UserByID, 1)
				}
				if after := cachedpg.StatsOf(f.DB); after.Hits != before.Hits || after.Fills != before.Fills {
					f.Errorf("while the transaction is prepared: %s", harness.Difference(counts(before), counts(after)))
				}
				v.On(conn).Exec("COMMIT PREPARED 'disk'")
				if f.IsUnflushed() {
					f.Error("PostgreSQL has not waited for the disk")
				}
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
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
			h := cachedpg.StatsOf(through.DB).Hits
			on.Fresh(harness.UserByID, 1)
			return cachedpg.StatsOf(through.DB).Hits > h
		})
		before := cachedpg.StatsOf(through.DB)
		on.Exec("UPDATE users SET city = 'refilled' WHERE id = 1")
		checkUnflushed(f, harness.UserByID, 1)
		on.Fresh(harness.UserByID, 1).Is("1 ann refilled")
		after := cachedpg.StatsOf(through.DB)
		if after.Refilled != before.Refilled || after.RefillSkipped == before.RefillSkipped || after.Hits != before.Hits || after.Fills != before.Fills {
			t.Errorf("what is not on disk: %s", harness.Difference(counts(before), counts(after)))
		}
		f.Until("a hit", func() bool { flushes(f); f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
	})
}

// What waits for the disk is released by nobody else: a commit that does wait keeps
// its results cached, and to wait costs the writer nothing.
func TestACommitThatWaitsForTheDiskIsReleasedAtOnce(t *testing.T) {
	asynchronous(t, harness.People, func(f *harness.Fixture, _ *pgtest.Server) {
		f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
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
	s := harness.Unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	f.Again(harness.UserByID, 1)
	conn, err := pgx.Connect(f.Ctx, harness.WithKey(f.DSN, setAside, "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var xid uint64
	tx, err := conn.Begin(f.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(f.Ctx, "UPDATE users SET city = 'lost' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(f.Ctx, "SELECT pg_current_xact_id_if_assigned()::text::bigint").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	w := store.NewAsyncWriter(xid)
	if err := inside.Store(f.DB).Intend(f.Ctx, w, f.TagsOf(harness.UserByID, 1)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(f.Ctx); err != nil {
		t.Fatal(err)
	}
	if !f.IsUnflushed() {
		t.Error("the log is on disk before it shall be")
	}
	f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
	if f.IsUnflushed() {
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
				f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
				f.Exec("UPDATE users SET city = $1 WHERE id = 1", strconv.Itoa(i))
				before := cachedpg.StatsOf(f.DB)
				f.Fresh(harness.UserByID, 1)
				if after := cachedpg.StatsOf(f.DB); after.Hits != before.Hits || after.Fills != before.Fills {
					f.Errorf("right after a commit: %s", harness.Difference(counts(before), counts(after)))
				}
			}
			if problem := cachedpg.StatsOf(f.DB).UnflushedProblem; !strings.Contains(problem, "pg_current_wal_flush_lsn()") {
				f.Errorf("Stats say %q of the missing right", problem)
			}
		})
	}
}
