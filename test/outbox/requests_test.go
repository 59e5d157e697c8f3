package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// A writer that alone cannot reach the store has a relay mark for it. The others
// keep their cache, and lose only what it has written.
func TestARelayMarksForAWriterThatIsCutOff(t *testing.T) {
	for _, down := range []string{"commit", "fail"} {
		t.Run("cache_on_store_down="+down, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				outside.SetUpOutbox(f)
				p := r.Proxy()
				writer := f.Process("writer", "cache_store="+r.URLThrough(p))
				relay := f.Process("relay")
				runRelay(relay, cachedpg.RelayOptions{})
				relays(f, 1)
				f.Again(harness.UserByID, 1)
				f.Again(harness.UserByID, 2)
				writer.Again(harness.UserByID, 1)
				p.Cut()

				for _, name := range []string{"anna", "anne"} {
					writer.Exec("UPDATE users SET name = $1 WHERE id = 1", name)
					f.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
					f.Hit(harness.UserByID, 2)
					f.Again(harness.UserByID, 1).Is("1 " + name + " Oslo")
				}
				tx, err := writer.DB.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				writer.On(tx).Exec("UPDATE users SET name = 'ann' WHERE id = 1")
				f.Fresh(harness.UserByID, 1).Is("1 anne Oslo")
				f.Commit(tx)
				f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
				writer.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
				f.Hit(harness.UserByID, 2)
				f.Again(harness.UserByID, 1).Is("1 ann Oslo")

				if s := cachedpg.StatsOf(writer.DB); s.Unmarked != 0 || s.Outbox.Asked != 3 || s.Outbox.Marked != 3 {
					f.Errorf("%d writes went past the store, %d of %d were marked by a relay; want none, 3 of 3",
						s.Unmarked, s.Outbox.Marked, s.Outbox.Asked)
				}
				f.Until("the requests to be gone", func() bool { return f.OutboxSize() == 0 })
				p.Restore()
				writer.Again(harness.UserByID, 1)
			}, "cache_on_store_down="+down)
		})
	}
}

// Without a relay that can help, a writer does what it does without an outbox.
func TestAWriterWhomNoRelayCanHelpGoesPastTheStore(t *testing.T) {
	cutOff := func(t *testing.T, story func(f *harness.Fixture, writer harness.Via, cut func()), keys ...string) {
		harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
			outside.SetUpOutbox(f)
			p := r.Proxy()
			writer := f.Process("writer", append(keys, "cache_store="+r.URLThrough(p))...)
			writer.Again(harness.UserByID, 1)
			f.Again(harness.UserByID, 1)
			story(f, writer, p.Cut)
			f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
			if s := cachedpg.StatsOf(writer.DB); s.Unmarked != 1 || s.Outbox.Marked != 0 {
				f.Errorf("%d writes were counted as not marked and %d as marked by a relay, want 1 and 0", s.Unmarked, s.Outbox.Marked)
			}
			p.Restore()
			f.Again(harness.UserByID, 1).Is("1 anna Oslo")
		})
	}
	const update = "UPDATE users SET name = 'anna' WHERE id = 1"
	t.Run("none is there", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			cut()
			writer.Exec(update)
			if n := f.OutboxSize(); n != 0 {
				f.Errorf("%d requests for nobody", n)
			}
			if got := cachedpg.StatsOf(writer.DB).Outbox.Problem; !strings.Contains(got, "cachedpg relay") {
				f.Errorf("the problem is %q, want the remedy", got)
			}
		})
	})
	t.Run("it is switched off", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			runRelay(f.Via, cachedpg.RelayOptions{})
			relays(f, 1)
			cut()
			writer.Exec(update)
		}, "cache_outbox=off")
	})
	t.Run("it cannot reach the store either", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			runRelay(writer, cachedpg.RelayOptions{})
			relays(f, 1)
			cut()
			f.Until("the outage to be noticed", func() bool { writer.Fresh(harness.UserByID, 1); return cachedpg.StatsOf(writer.DB).Shared.Down })
			relays(f, 0)
			writer.Exec(update)
			if n := cachedpg.StatsOf(writer.DB).Outbox.Asked; n != 0 {
				f.Errorf("%d requests to a relay that cannot help", n)
			}
		})
	})
	t.Run("it does not answer", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			conn := f.Conn(f.Plain) // it says that it is a relay, and does nothing
			if _, err := conn.ExecContext(f.Ctx, fmt.Sprintf("SELECT pg_advisory_lock_shared(%d, %d)", 0x63616368, lockRelay)); err != nil {
				f.Fatal(err)
			}
			cut()
			writer.Exec(update)
			if n := f.OutboxSize(); n != 1 {
				f.Errorf("%d requests wait, want 1", n)
			}
			runRelay(f.Via, cachedpg.RelayOptions{}) // one that comes later clears it away
			f.Until("the request to be gone", func() bool { return f.OutboxSize() == 0 })
		})
	})
	t.Run("there is no table", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			f.Past("DROP SCHEMA cachedpg CASCADE")
			cut()
			writer.Exec(update)
			if got := cachedpg.StatsOf(writer.DB).Outbox.Problem; !strings.Contains(got, "cachedpg setup") {
				f.Errorf("the problem is %q, want the remedy", got)
			}
		})
	})
	t.Run("the catalog has changed since the statement was planned", func(t *testing.T) {
		cutOff(t, func(f *harness.Fixture, writer harness.Via, cut func()) {
			runRelay(f.Via, cachedpg.RelayOptions{})
			relays(f, 1)
			cut()
			f.Exec("CREATE TABLE other (id int)") // by another process
			f.Released()
			writer.Exec(update)
			const refused = "cachedpg: cache_outbox: the catalog or the store has changed since the statement was planned"
			if got := cachedpg.StatsOf(writer.DB).Outbox.Problem; got != refused {
				f.Errorf("the problem is %q, want %q", got, refused)
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
			harness.Shared(t, harness.People, func(f *harness.Fixture) {
				outside.SetUpOutbox(f)
				if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil { // the catalog is another, which the second process would find out
					f.Fatal(err)
				}
				f.Known(harness.UserByID, 1)
				f.Known(harness.UserByID, 2)
				writer := pgtest.Connect(f.T, f.DSN)
				var xid uint64
				err := errors.Join(
					writer.QueryRow(f.Ctx, "BEGIN").Scan(),
					writer.QueryRow(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1 RETURNING pg_current_xact_id()::text::int8").Scan(&xid))
				if xid == 0 {
					f.Fatal(err)
				}
				w := store.NewTransactionWriter(xid)
				tags := slices.DeleteFunc(f.TagsOf(harness.UserByID, 1), func(tag store.Tag) bool { return tag.Kind != store.TagRow })
				var id int64
				if err := f.Plain.QueryRowContext(f.Ctx, "INSERT INTO cachedpg.outbox (tags, xid, writer, catalog) VALUES ("+
					encodeTags(tags)+", $1::text::xid8, $2, $3) RETURNING id", fmt.Sprint(xid), w[:], int64(inside.Space(f.DB).(*space.Space).View.Load().Catalog)).Scan(&id); err != nil {
					f.Fatal(err)
				}
				stop := runRelay(f.Via, cachedpg.RelayOptions{})
				marked := func(ctx context.Context) bool {
					return f.Count("SELECT count(*) FROM cachedpg.outbox WHERE id = $1 AND marked", id) == 1
				}
				f.Until("the answer", func() bool { return marked(f.Ctx) })
				f.Bypass(keying.DirtyTag, harness.UserByID, 1)
				f.Hit(harness.UserByID, 2)
				stop() // the relay that marked dies; another finishes
				if _, err := writer.Exec(f.Ctx, end.command); err != nil {
					f.Fatal(err)
				}
				runRelay(f.Process("second"), cachedpg.RelayOptions{})
				relays(f, 1)
				if name == "prepares and commits later" {
					f.Stays(300*time.Millisecond, func() { f.Bypass(keying.DirtyTag, harness.UserByID, 1) })
					f.Past("COMMIT PREPARED 'outbox_later'")
				}
				f.Until("the request to be gone", func() bool { return f.OutboxSize() == 0 })
				f.Miss(harness.UserByID, 1).Is("1 " + end.name + " Oslo")
				f.Hit(harness.UserByID, 2)
			})
		})
	}
}

// An event is there if and only if its writer has committed.
func TestEveryCommitWritesItsEvent(t *testing.T) {
	for _, consistency := range []string{"strict", "eventual"} {
		t.Run(consistency, func(t *testing.T) {
			posting(t, func(f *harness.Fixture) {
				f.Past("CREATE FUNCTION opaque() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE users SET city = city WHERE id = 1'; RETURN 1; END $$")
				f.Exec("CREATE TABLE other (id int)")
				f.Past("DELETE FROM cachedpg.outbox")
				events := func(what string, want int) {
					f.Helper()
					if got := f.Count("SELECT count(*) FROM cachedpg.outbox"); got != want {
						f.Errorf("%s: %d events, want %d", what, got, want)
					}
					f.Past("DELETE FROM cachedpg.outbox")
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
					f.Exec(tt.statement)
					events(tt.statement, tt.want)
				}
				f.Exec("UPDATE users SET city = $1 WHERE id = $2", "z", 1)
				events("with arguments", 1)
				var id int
				if err := f.DB.QueryRowContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id = 1 RETURNING id").Scan(&id); err != nil {
					f.Fatal(err)
				}
				events("RETURNING", 1)
				on, tx := f.Begin(nil)
				on.Exec("UPDATE users SET city = 'x' WHERE id = 1")
				on.Exec("UPDATE users SET city = 'x' WHERE id = 2")
				f.Commit(tx)
				events("a transaction", 1)
				on, tx = f.Begin(nil)
				on.Exec("UPDATE users SET city = 'x' WHERE id = 1")
				f.Rollback(tx)
				events("a rollback", 0)
				session, conn := f.Session()
				session.Exec("CREATE TEMPORARY TABLE mine (id int)")
				f.Past("DELETE FROM cachedpg.outbox")
				tx, err := conn.BeginTx(f.Ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					f.Fatal(err)
				}
				f.On(tx).Exec("INSERT INTO mine VALUES (1)")
				f.Commit(tx)
				f.Past("DELETE FROM cachedpg.outbox") // of a change that only this session sees
				tx, err = conn.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				f.On(tx).Exec("UPDATE users SET city = 'x' WHERE id = 1")
				f.On(tx).Exec("SET TRANSACTION READ ONLY")
				f.Commit(tx)
				events("a transaction that is read-only by its end", 1)
				session.Exec("SET default_transaction_read_only = on")
				session.Exec("INSERT INTO mine VALUES (2)")
				session.Exec("SET default_transaction_read_only = off")
				f.Past("DELETE FROM cachedpg.outbox")
				session.Exec("BEGIN")
				session.Exec("UPDATE users SET city = 'x' WHERE id = 1")
				session.Exec("COMMIT")
				events("COMMIT by text", 1)
				session.Exec("BEGIN")
				session.Exec("UPDATE users SET city = 'x' WHERE id = 1")
				session.Exec("PREPARE TRANSACTION 'outbox_" + consistency + "'")
				events("PREPARE TRANSACTION", 0)
				session.Exec("COMMIT PREPARED 'outbox_" + consistency + "'")
				events("COMMIT PREPARED", 2) // its own is of everything: anybody may have prepared it
				conn.Close()
				f.Until("the end of who prepared", func() bool { return cachedpg.StatsOf(f.DB).Unresolved == 0 })
			}, "cache_consistency="+consistency)
		})
	}
}
