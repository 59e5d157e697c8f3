package outbox

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

// A writer that invalidates after its commit and cannot: the event is in its
// transaction, and a relay does it.
func TestARelayTellsTheStoreForAnEventualWriter(t *testing.T) {
	for name, update := range map[string]func(f *harness.Fixture, writer harness.Via){
		"autocommit": func(f *harness.Fixture, writer harness.Via) {
			writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		},
		"a transaction": func(f *harness.Fixture, writer harness.Via) {
			tx, err := writer.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			writer.On(tx).Exec("UPDATE users SET name = 'anna' WHERE id = 1")
			f.Commit(tx)
		},
		"alone": func(f *harness.Fixture, writer harness.Via) {
			writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1; SELECT 1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				outside.SetUpOutbox(f)
				p := r.Proxy()
				writer := f.Process("writer", "cache_store="+r.URLThrough(p), "cache_consistency=eventual")
				writer.Again(harness.UserByID, 1)
				f.Again(harness.UserByID, 1)
				p.Cut()
				f.Until("the outage to be noticed", func() bool { writer.Fresh(harness.UserByID, 1); return cachedpg.StatsOf(writer.DB).Shared.Down })
				update(f, writer)
				f.Via.Read(f.DB, harness.UserByID, []any{1}).Is("1 ann Oslo") // which is what eventual means
				writer.DB.Close()                                             // nobody else knows
				runRelay(f.Process("relay"), cachedpg.RelayOptions{})
				f.Until("the row to be gone", func() bool { return f.OutboxSize() == 0 })
				f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
				f.Again(harness.UserByID, 1).Is("1 anna Oslo")
			})
		})
	}
}

// Without the table "auto" changes nothing, also for such a writer.
func TestAnEventualWriterWithoutAnOutbox(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p), "cache_consistency=eventual")
		writer.Again(harness.UserByID, 1)
		p.Cut()
		f.Until("the outage to be noticed", func() bool { writer.Fresh(harness.UserByID, 1); return cachedpg.StatsOf(writer.DB).Shared.Down })
		for _, statement := range []string{"UPDATE users SET name = 'anna' WHERE id = 1", "UPDATE users SET name = 'anne' WHERE id = 1; SELECT 1"} {
			writer.Exec(statement)
		}
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET name = 'ann' WHERE id = 1")
		f.Commit(tx)
		writer.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		p.Restore()
		writer.Released()
	})
}

// The driver's own tables are nobody's to cache: nothing invalidates for them.
func TestTheOutboxItselfIsNeverCached(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		for range 2 {
			f.Bypass(keying.PolicyOff, "SELECT count(*) FROM cachedpg.outbox")
			f.Exec(touchFirst)
		}
	})
}

// An outbox that is wanted and not there is an error that says what to do, and
// nothing was changed.
func TestAnOutboxThatIsNotThere(t *testing.T) {
	for name, tt := range map[string]struct{ setup, want string }{
		"no table":      {"", "cachedpg setup"},
		"no privileges": {"yes", "--role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			role := "outbox_" + strings.ReplaceAll(name, " ", "_")
			f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), "cache_outbox=always")
			createRole(f, role)
			if tt.setup != "" {
				outside.SetUpOutbox(f)
			}
			writer := f.Process("writer", "user="+role)
			refused := func(what string, err error) {
				f.Helper()
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "cache_outbox") {
					f.Errorf("%s: got %v, want an error that says %q", what, err, tt.want)
				}
			}
			const update = "UPDATE users SET name = 'anna' WHERE id = 1"
			for _, statement := range []string{update, update + "; SELECT 1", "SELECT count(*) FROM (SELECT 1) a; " + update} {
				_, err := writer.DB.ExecContext(f.Ctx, statement)
				refused(statement, err)
			}
			refused("RETURNING", writer.DB.QueryRowContext(f.Ctx, update+" RETURNING id").Scan(new(int)))
			tx, err := writer.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			writer.On(tx).Exec(update)
			refused("Commit", tx.Commit())
			conn := f.Conn(writer.DB)
			writer.On(conn).Exec("BEGIN")
			writer.On(conn).Exec(update)
			_, err = conn.ExecContext(f.Ctx, "COMMIT")
			refused("COMMIT", err)
			conn.Close()
			writer.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			// An error of the statement itself stays what it is.
			_, want := f.Plain.ExecContext(f.Ctx, "UPDATE nothing SET name = 'x' WHERE id = 1")
			if tt.setup == "" {
				return // where it is not known which of two tables is missing
			}
			outside.SetUpOutbox(f, role)
			_, err = writer.DB.ExecContext(f.Ctx, "UPDATE nothing SET name = 'x' WHERE id = 1")
			harness.SameError(f, err, want)
			writer.Exec(update)
			f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		})
	}
}
