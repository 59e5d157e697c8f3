//go:build unix

package outages

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
)

// commitsWait has commits wait for a standby that does not come, until the setting is
// reset, and returns how to ask how many do. The server takes a moment to hear of it; when
// the first commit of a session of ours waits, every other one will.
func commitsWait(f *harness.Fixture, s *pgtest.Server) (waiting func() string) {
	f.Helper()
	conn := pgtest.Connect(f, s.DSN())
	ctx, cancel := context.WithCancel(f.Ctx)
	var enough atomic.Bool
	done := make(chan struct{})
	f.Cleanup(func() { cancel(); <-done })
	s.Exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	go func() {
		defer close(done)
		for err := error(nil); err == nil && !enough.Load(); {
			_, err = conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'test', '')")
		}
	}()
	waiting = func() string {
		return s.Query("SELECT (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep')::text")
	}
	f.Until("a commit to wait", func() bool { return waiting() == "1" })
	enough.Store(true)
	return waiting
}

// losesAnswer has a transaction of db rename row 1; its COMMIT waits on s, and p, which is
// between, loses the answer. It returns the writes of the cache of then: another may take its place.
func losesAnswer(f *harness.Fixture, db *sql.DB, s *pgtest.Server, p *redistest.Proxied) *invalidation.Coordinator {
	f.Helper()
	tx, err := f.Conn(db).BeginTx(f.Ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1"); err != nil {
		f.Fatal(err)
	}
	waiting := commitsWait(f, s)
	writes := inside.Writes(db)
	lost := make(chan error, 1)
	go func() { lost <- tx.Commit() }()
	f.Until("the commit to wait", func() bool { return waiting() == "2" })
	p.Refuse()
	if err := <-lost; err == nil {
		f.Fatal("the answer to COMMIT was not lost")
	}
	return writes
}

// The answer to a COMMIT is lost, which has still to become visible, and of the hosts in
// the DSN only a standby is left to be asked. It has not heard of the transaction, and
// that says nothing (I4).
func TestAStandbyDoesNotKnowWhetherACommitIsOver(t *testing.T) {
	t.Parallel()
	primary := pgtest.StartServer(t)
	standby := primary.Standby()
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			primary.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
			p := redistest.Proxy(t, primary.Addr())
			var keys []string
			if name == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			f := harness.New(t, primary.DSN(), "cache_statement", harness.People, keys...)
			primary.Await(standby)
			several := harness.WithKey(harness.WithKey(primary.DSNAt(p.Addr()+","+standby.Addr()), "search_path", "cache_statement"), "connect_timeout", "2")
			db := f.Open("cachedpg", harness.WithKeys(several, keys))
			if name == "redis" {
				f.Live(db)
			}
			writer := f.Asking(db)
			f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })

			// A commit that waits for a standby is not visible.
			losesAnswer(f, db, primary, p)
			f.Until("the question", func() bool { return cachedpg.StatsOf(db).UnknownOutcome == 1 })
			// The standby is asked, many times.
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				inside.Writes(db).Kick()
				if cachedpg.StatsOf(db).Unresolved == 0 {
					t.Fatal("the commit is taken for over while it waits")
				}
			}
			for range 3 {
				f.Bypass(keying.DirtyTag, harness.UserByID, 1).Is("1 ann Oslo")
			}
			primary.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
			f.Until("the commit", func() bool {
				return primary.Query("SELECT name FROM cache_statement.users WHERE id = 1") == "anna"
			})
			f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
			p.Restore()
			f.Until("the outcome", func() bool { return cachedpg.StatsOf(db).Unresolved == 0 })
			f.Until("a hit", func() bool { f.Fresh(harness.UserByID, 1); return f.IsHit(harness.UserByID, 1) })
			writer.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		})
	}
}

// Who may tell an outcome is told by the answer itself.
func TestWhoKnowsAnOutcome(t *testing.T) {
	t.Parallel()
	primary := pgtest.StartServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	asked := func(s *pgtest.Server, id *backend.Identity) (string, error) {
		t.Helper()
		c, err := cachedpg.NewConnector(*pgtest.Connect(t, s.DSN()).Config(), cachedpg.Config{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := inside.Dial(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if id.System == "" {
			known, _, err := in.Learn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			*id = known.ID
		}
		answer, err := in.Ask(ctx, id.Outcome("SELECT 7"))
		if err != nil {
			t.Fatal(err)
		}
		return id.ReadOutcome(answer)
	}
	var id backend.Identity
	if got, err := asked(primary, &id); got != "7" || err != nil {
		t.Errorf("the server itself: got %q, %v", got, err)
	}
	standby := primary.Standby()
	if got, err := asked(standby, &id); err == nil || errors.Is(err, backend.ErrServerReplaced) {
		t.Errorf("a standby: got %q, %v, want another error than errServerReplaced", got, err)
	}
	primary.Await(standby)
	primary.Stop()
	standby.Promote()
	if got, err := asked(standby, &id); !errors.Is(err, backend.ErrServerReplaced) {
		t.Errorf("its successor: got %q, %v, want errServerReplaced", got, err)
	}
	other := pgtest.StartServer(t)
	if got, err := asked(other, &id); err == nil || errors.Is(err, backend.ErrServerReplaced) {
		t.Errorf("another system: got %q, %v, want another error than errServerReplaced", got, err)
	}
	var before backend.Identity
	if got, err := asked(other, &before); got != "7" || err != nil {
		t.Errorf("the other system itself: got %q, %v", got, err)
	}
	other.Stop()
	other.Start()
	if got, err := asked(other, &before); !errors.Is(err, backend.ErrServerReplaced) {
		t.Errorf("a server that was started anew: got %q, %v, want errServerReplaced", got, err)
	}
}

// After a failover nobody waits for what the server of before did not answer.
func TestAnOutcomeThatIsNeverKnown(t *testing.T) {
	t.Parallel()
	primary := pgtest.StartServer(t)
	standby := primary.Standby()
	p := redistest.Proxy(t, primary.Addr())
	f := harness.New(t, primary.DSN(), "cache_statement", harness.People)
	primary.Await(standby)
	db := f.Open("cachedpg", harness.WithKey(primary.DSNAt(p.Addr()+","+standby.Addr()), "search_path", "cache_statement"))
	writes := losesAnswer(f, db, primary, p)
	if got := writes.Stats().Unresolved; got != 1 {
		t.Fatalf("%d writes unresolved, want 1", got)
	}
	primary.Stop()
	standby.Promote()
	f.Until("the end of the question", func() bool {
		writes.Kick()
		return writes.Stats().Unresolved == 0
	})
}
