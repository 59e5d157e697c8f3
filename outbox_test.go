package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// posting is a story in which every commit writes an event.
func posting(t *testing.T, story func(f *fixture), keys ...string) {
	t.Helper()
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people,
		append(keys, "cache_store="+pgtest.Redis(t), "cache_outbox=always")...)
	f.setup()
	story(f)
}

func (f *fixture) setup(roles ...string) {
	f.Helper()
	if err := Setup(f.ctx, f.plain, roles...); err != nil {
		f.Fatal(err)
	}
}

// relay runs a relay on the DB of a via until stop is called or the test ends.
func (v via) relay(o RelayOptions) (stop func()) {
	v.f.Helper()
	ctx, cancel := context.WithCancel(v.f.ctx)
	done := make(chan error, 1)
	go func() { done <- Relay(ctx, v.db, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			v.f.Errorf("the relay ended with %v", err)
		}
	})
	v.f.Cleanup(stop)
	return stop
}

// relays returns when so many relays are there that can reach the store.
func (f *fixture) relays(n int) {
	f.Helper()
	f.until("the relays", func() bool {
		return f.count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"+
			" WHERE datname = current_database()) AND objid = $1::int8", int64(lockRelay)) == n
	})
}

// outbox is the number of rows that wait.
func (f *fixture) outbox() int {
	f.Helper()
	return f.count("SELECT count(*) FROM cachedpg.outbox WHERE problem IS NULL")
}

// recorder is a sink that remembers what it got.
type recorder struct {
	before func(ctx context.Context, events []invalidation.Event) error // may be nil

	mu     sync.Mutex // guards the fields below
	events []invalidation.Event
}

func (r *recorder) Send(ctx context.Context, events []invalidation.Event) error {
	if r.before != nil {
		if err := r.before(ctx, events); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		e.Tags = slices.Clone(e.Tags)
		r.events = append(r.events, e)
	}
	return nil
}

func (r *recorder) all() []invalidation.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// A writer that alone cannot reach the store has a relay mark for it. The others
// keep their cache, and lose only what it has written.
func TestARelayMarksForAWriterThatIsCutOff(t *testing.T) {
	for _, down := range []string{"commit", "fail"} {
		t.Run("cache_on_store_down="+down, func(t *testing.T) {
			outage(t, func(f *fixture, r *redistest.Server) {
				f.setup()
				p := r.Proxy()
				writer := f.process("writer", "cache_store="+r.URLThrough(p))
				relay := f.process("relay")
				relay.relay(RelayOptions{})
				f.relays(1)
				f.again(userByID, 1)
				f.again(userByID, 2)
				writer.again(userByID, 1)
				p.Cut()

				for _, name := range []string{"anna", "anne"} {
					writer.exec("UPDATE users SET name = $1 WHERE id = 1", name)
					f.fresh(userByID, 1).is("1 " + name + " Oslo")
					f.hit(userByID, 2)
					f.again(userByID, 1).is("1 " + name + " Oslo")
				}
				tx, err := writer.db.BeginTx(f.ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				writer.on(tx).exec("UPDATE users SET name = 'ann' WHERE id = 1")
				f.fresh(userByID, 1).is("1 anne Oslo")
				f.commit(tx)
				f.fresh(userByID, 1).is("1 ann Oslo")
				writer.fresh(userByID, 1).is("1 ann Oslo")
				f.hit(userByID, 2)
				f.again(userByID, 1).is("1 ann Oslo")

				if s := StatsOf(writer.db); s.Unmarked != 0 || s.Outbox.Asked != 3 || s.Outbox.Marked != 3 {
					f.Errorf("%d writes went past the store, %d of %d were marked by a relay; want none, 3 of 3",
						s.Unmarked, s.Outbox.Marked, s.Outbox.Asked)
				}
				f.until("the requests to be gone", func() bool { return f.outbox() == 0 })
				p.Restore()
				writer.again(userByID, 1)
			}, "cache_on_store_down="+down)
		})
	}
}

// Without a relay that can help, a writer does what it does without an outbox.
func TestAWriterWhomNoRelayCanHelpGoesPastTheStore(t *testing.T) {
	cutOff := func(t *testing.T, story func(f *fixture, writer via, cut func()), keys ...string) {
		outage(t, func(f *fixture, r *redistest.Server) {
			f.setup()
			p := r.Proxy()
			writer := f.process("writer", append(keys, "cache_store="+r.URLThrough(p))...)
			writer.again(userByID, 1)
			f.again(userByID, 1)
			story(f, writer, p.Cut)
			f.fresh(userByID, 1).is("1 anna Oslo")
			if s := StatsOf(writer.db); s.Unmarked != 1 || s.Outbox.Marked != 0 {
				f.Errorf("%d writes were counted as not marked and %d as marked by a relay, want 1 and 0", s.Unmarked, s.Outbox.Marked)
			}
			p.Restore()
			f.again(userByID, 1).is("1 anna Oslo")
		})
	}
	const update = "UPDATE users SET name = 'anna' WHERE id = 1"
	t.Run("none is there", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			cut()
			writer.exec(update)
			if n := f.outbox(); n != 0 {
				f.Errorf("%d requests for nobody", n)
			}
			if got := StatsOf(writer.db).Outbox.Problem; !strings.Contains(got, "cachedpg relay") {
				f.Errorf("the problem is %q, want the remedy", got)
			}
		})
	})
	t.Run("it is switched off", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			f.via.relay(RelayOptions{})
			f.relays(1)
			cut()
			writer.exec(update)
		}, "cache_outbox=off")
	})
	t.Run("it cannot reach the store either", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			writer.relay(RelayOptions{})
			f.relays(1)
			cut()
			f.until("the outage to be noticed", func() bool { writer.fresh(userByID, 1); return StatsOf(writer.db).Shared.Down })
			f.relays(0)
			writer.exec(update)
			if n := StatsOf(writer.db).Outbox.Asked; n != 0 {
				f.Errorf("%d requests to a relay that cannot help", n)
			}
		})
	})
	t.Run("it does not answer", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			conn := f.conn(f.plain) // it says that it is a relay, and does nothing
			if _, err := conn.ExecContext(f.ctx, lock("pg_advisory_lock_shared", lockRelay)); err != nil {
				f.Fatal(err)
			}
			cut()
			writer.exec(update)
			if n := f.outbox(); n != 1 {
				f.Errorf("%d requests wait, want 1", n)
			}
			f.via.relay(RelayOptions{}) // one that comes later clears it away
			f.until("the request to be gone", func() bool { return f.outbox() == 0 })
		})
	})
	t.Run("there is no table", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			f.past("DROP SCHEMA cachedpg CASCADE")
			cut()
			writer.exec(update)
			if got := StatsOf(writer.db).Outbox.Problem; !strings.Contains(got, "cachedpg setup") {
				f.Errorf("the problem is %q, want the remedy", got)
			}
		})
	})
	t.Run("the catalog has changed since the statement was planned", func(t *testing.T) {
		cutOff(t, func(f *fixture, writer via, cut func()) {
			f.via.relay(RelayOptions{})
			f.relays(1)
			cut()
			f.exec("CREATE TABLE other (id int)") // by another process
			f.released()
			writer.exec(update)
			if got := StatsOf(writer.db).Outbox.Problem; got != errRefused.Error() {
				f.Errorf("the problem is %q, want %q", got, errRefused)
			}
		})
	})
}

// A request outlives its writer: the marks go when its transaction is over,
// whichever way it ended and whoever marked.
func TestTheRequestOfADeadWriter(t *testing.T) {
	for name, end := range map[string]struct{ command, name string }{
		"rolls back": {"ROLLBACK", "ann"}, "commits": {"COMMIT", "anna"},
		"prepares and commits later": {"PREPARE TRANSACTION 'outbox_later'", "anna"},
	} {
		t.Run(name, func(t *testing.T) {
			shared(t, people, func(f *fixture) {
				f.setup()
				if err := Invalidate(f.ctx, f.db); err != nil { // the catalog is another, which the second process would find out
					f.Fatal(err)
				}
				f.known(userByID, 1)
				f.known(userByID, 2)
				writer := pgtest.Connect(f.T, f.dsn)
				var xid uint64
				err := errors.Join(
					writer.QueryRow(f.ctx, "BEGIN").Scan(),
					writer.QueryRow(f.ctx, "UPDATE users SET name = 'anna' WHERE id = 1 RETURNING pg_current_xact_id()::text::int8").Scan(&xid))
				if xid == 0 {
					f.Fatal(err)
				}
				w := store.NewTransactionWriter(xid)
				tags := slices.DeleteFunc(f.tagsOf(userByID, 1), func(tag store.Tag) bool { return tag.Kind != store.TagRow })
				var id int64
				if err := f.plain.QueryRowContext(f.ctx, "INSERT INTO cachedpg.outbox (tags, xid, writer, catalog) VALUES ("+
					encodeTags(tags)+", $1::text::xid8, $2, $3) RETURNING id", fmt.Sprint(xid), w[:], int64(f.catalog())).Scan(&id); err != nil {
					f.Fatal(err)
				}
				stop := f.via.relay(RelayOptions{})
				marked := func(ctx context.Context) bool {
					return f.count("SELECT count(*) FROM cachedpg.outbox WHERE id = $1 AND marked", id) == 1
				}
				f.until("the answer", func() bool { return marked(f.ctx) })
				f.bypass(keying.DirtyTag, userByID, 1)
				f.hit(userByID, 2)
				stop() // the relay that marked dies; another finishes
				if _, err := writer.Exec(f.ctx, end.command); err != nil {
					f.Fatal(err)
				}
				f.process("second").relay(RelayOptions{})
				f.relays(1)
				if name == "prepares and commits later" {
					f.stays(300*time.Millisecond, func() { f.bypass(keying.DirtyTag, userByID, 1) })
					f.past("COMMIT PREPARED 'outbox_later'")
				}
				f.until("the request to be gone", func() bool { return f.outbox() == 0 })
				f.miss(userByID, 1).is("1 " + end.name + " Oslo")
				f.hit(userByID, 2)
			})
		})
	}
}

// An event is there if and only if its writer has committed.
func TestEveryCommitWritesItsEvent(t *testing.T) {
	for _, consistency := range []string{"strict", "eventual"} {
		t.Run(consistency, func(t *testing.T) {
			posting(t, func(f *fixture) {
				f.past("CREATE FUNCTION opaque() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE users SET city = city WHERE id = 1'; RETURN 1; END $$")
				f.exec("CREATE TABLE other (id int)")
				f.past("DELETE FROM cachedpg.outbox")
				events := func(what string, want int) {
					f.Helper()
					if got := f.count("SELECT count(*) FROM cachedpg.outbox"); got != want {
						f.Errorf("%s: %d events, want %d", what, got, want)
					}
					f.past("DELETE FROM cachedpg.outbox")
				}
				for _, tt := range []struct {
					statement string
					want      int
				}{
					{"UPDATE users SET city = 'x' WHERE id = 1", 1},
					{"UPDATE users SET city = 'x' WHERE id = 99", 0},
					{"INSERT INTO users VALUES (10, 'x') ON CONFLICT DO NOTHING", 1},
					{"DELETE FROM users WHERE id = 10", 1},
					{"WITH gone AS (DELETE FROM users WHERE id = 3 RETURNING id) SELECT * FROM gone", 1},
					{"SELECT opaque()", 1},
					{"TRUNCATE other", 1},
					{"CREATE INDEX ON other (id)", 1},
					{"CREATE INDEX CONCURRENTLY ON other (id)", 1},
					{"UPDATE users SET city = 'x' WHERE id = 1; UPDATE users SET city = 'y' WHERE id = 2", 1},
					{"SELECT * FROM users", 0},
					{"SET application_name = 'x'", 0},
				} {
					f.exec(tt.statement)
					events(tt.statement, tt.want)
				}
				f.exec("UPDATE users SET city = $1 WHERE id = $2", "z", 1)
				events("with arguments", 1)
				var id int
				if err := f.db.QueryRowContext(f.ctx, "UPDATE users SET city = 'x' WHERE id = 1 RETURNING id").Scan(&id); err != nil {
					f.Fatal(err)
				}
				events("RETURNING", 1)
				on, tx := f.begin(nil)
				on.exec("UPDATE users SET city = 'x' WHERE id = 1")
				on.exec("UPDATE users SET city = 'x' WHERE id = 2")
				f.commit(tx)
				events("a transaction", 1)
				on, tx = f.begin(nil)
				on.exec("UPDATE users SET city = 'x' WHERE id = 1")
				f.rollback(tx)
				events("a rollback", 0)
				session, conn := f.session()
				session.exec("CREATE TEMPORARY TABLE mine (id int)")
				f.past("DELETE FROM cachedpg.outbox")
				tx, err := conn.BeginTx(f.ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					f.Fatal(err)
				}
				f.on(tx).exec("INSERT INTO mine VALUES (1)")
				f.commit(tx)
				f.past("DELETE FROM cachedpg.outbox") // of a change that only this session sees
				tx, err = conn.BeginTx(f.ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				f.on(tx).exec("UPDATE users SET city = 'x' WHERE id = 1")
				f.on(tx).exec("SET TRANSACTION READ ONLY")
				f.commit(tx)
				events("a transaction that is read-only by its end", 1)
				session.exec("SET default_transaction_read_only = on")
				session.exec("INSERT INTO mine VALUES (2)")
				session.exec("SET default_transaction_read_only = off")
				f.past("DELETE FROM cachedpg.outbox")
				session.exec("BEGIN")
				session.exec("UPDATE users SET city = 'x' WHERE id = 1")
				session.exec("COMMIT")
				events("COMMIT by text", 1)
				session.exec("BEGIN")
				session.exec("UPDATE users SET city = 'x' WHERE id = 1")
				session.exec("PREPARE TRANSACTION 'outbox_" + consistency + "'")
				events("PREPARE TRANSACTION", 0)
				session.exec("COMMIT PREPARED 'outbox_" + consistency + "'")
				events("COMMIT PREPARED", 2) // its own is of everything: anybody may have prepared it
				conn.Close()
				f.until("the end of who prepared", func() bool { return StatsOf(f.db).Unresolved == 0 })
			}, "cache_consistency="+consistency)
		})
	}
}
