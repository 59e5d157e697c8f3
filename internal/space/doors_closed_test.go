package space_test

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

func spaceOf(db *sql.DB) *space.Space { return inside.Space(db).(*space.Space) }

const events = harness.People + "CREATE TABLE events (id serial PRIMARY KEY, what text NOT NULL); INSERT INTO events (what) VALUES ('first');"

// writesUntilClosed writes events until they are closed to the cache, as all processes know.
func writesUntilClosed(f *harness.Fixture, others ...harness.Via) (written int) {
	f.Helper()
	for ; cachedpg.StatsOf(f.DB).Shared.Closed == 0; written++ {
		f.Exec("INSERT INTO events (what) VALUES ('x')")
		time.Sleep(time.Millisecond)
	}
	for _, v := range append(slices.Clone(others), f.Via) {
		f.Until("the list of doors", func() bool { return doorOf(v, "events") == store.Closed })
	}
	return written
}

// doorOf is how far a table is open, as far as the process knows.
func doorOf(v harness.Via, table string) store.Door {
	v.F.Helper()
	var oid uint32
	if err := v.F.Plain.QueryRowContext(v.F.Ctx, "SELECT $1::regclass::oid", table).Scan(&oid); err != nil {
		v.F.Fatal(err)
	}
	return spaceOf(v.DB).Doors().Of(oid)
}

// What is written all the time and read by nobody costs its commits no release, and keeps
// nothing else from being cached.
func TestATableThatNobodyReadsIsClosedToTheCache(t *testing.T) {
	harness.Shared(t, events, func(f *harness.Fixture) {
		other := f.Process("other")
		f.Known(harness.UserByID, 1)
		const count = "SELECT count(*) > 0 FROM events"
		writesUntilClosed(f, other)

		released := spaceOf(f.DB).Writes.Stats().Releases
		for range 20 {
			f.Exec("INSERT INTO events (what) VALUES ('x')")
		}
		f.Released()
		if n := spaceOf(f.DB).Writes.Stats().Releases - released; n != 0 {
			t.Errorf("%d of 20 commits were released", n)
		}
		for _, v := range []harness.Via{f.Via, other} {
			v.Hit(harness.UserByID, 1)
			v.Bypass(keying.NoGain, count)
		}
		x := outside.Explain(other, count)
		if !slices.ContainsFunc(x.Notes, func(note string) bool {
			return strings.HasPrefix(note, "Closed to the cache") && strings.Contains(note, ": cache_statement.events.")
		}) {
			t.Errorf("%q", x.Notes)
		}
		all := f.With("cache_admission=all") // looks, and is a reader that counts
		all.Bypass(keying.DirtyTag, count)
		f.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1") // an intent as ever
		other.Released()
		f.Released()
		other.Miss(harness.UserByID, 1).Is("1 ann Bergen")

		// One transaction writes both.
		tx, err := f.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.On(tx).Exec("INSERT INTO events (what) VALUES ('x')")
		f.On(tx).Exec("UPDATE users SET city = 'Rome' WHERE id = 1")
		f.Commit(tx)
		f.Released()
		other.Miss(harness.UserByID, 1).Is("1 ann Rome")
	})
}

// I26: a table opens when those who have left out their intents are over.
func TestATableThatIsReadOpensWhenItsWritersAreOver(t *testing.T) {
	harness.Shared(t, events, func(f *harness.Fixture) {
		other := f.Process("other")
		const first = "SELECT what FROM events WHERE id = 1"
		f.Known(first).Is("first") // what was stored before must not come back
		writesUntilClosed(f, other)
		f.Exec("UPDATE events SET what = 'changed' WHERE id = 1")

		// A writer that has marked, and has not sent COMMIT.
		writer, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer writer.Rollback()
		var xid uint64
		if err := writer.QueryRowContext(f.Ctx, "INSERT INTO events (what) VALUES ('late') RETURNING pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
			f.Fatal(err)
		}
		marked, err := spaceOf(f.DB).Keeper.Store.Mark(f.Ctx, store.NewTransactionWriter(xid), f.TagsOf("SELECT count(*) FROM events"), spaceOf(f.DB).View.Load().Catalog)
		if err != nil || len(marked.Tags) != 0 {
			f.Fatalf("marked %v, %v; want no intent", marked, err)
		}

		const late = "SELECT count(*) FROM events WHERE what = 'late'"
		f.Until("the list to say that it opens", func() bool { other.Fresh(late); return doorOf(f.Via, "events") != store.Closed })
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); { // without the guard it opens at once
			other.Fresh(late)
			if doorOf(f.Via, "events") == store.Open || doorOf(other, "events") == store.Open {
				f.Fatal("it is open, and a writer is under way that has left out its intents")
			}
		}
		f.Commit(writer)
		f.Until("it to open", func() bool { return doorOf(f.Via, "events") == store.Open && doorOf(other, "events") == store.Open })
		other.Known(first).Is("changed")
		other.Known(late).Is("1")
		f.Hit(late)
		f.Exec("INSERT INTO events (what) VALUES ('late')")
		f.Released()
		other.Known(late).Is("2")
	})
}

// A commit of tables that are closed needs no intent, and PostgreSQL is not asked for an id to set one with.
func TestACommitOfClosedTablesAsksForNoID(t *testing.T) {
	harness.Shared(t, events, func(f *harness.Fixture) {
		writesUntilClosed(f)
		wire := pgtest.Listen(f, f.DSN)
		db := f.Open("cachedpg", harness.WithKeys(wire.DSN, f.Keys))
		f.Live(db)
		v := f.Asking(db)
		v.Known(harness.UserByID, 1)
		f.Until("the list of doors", func() bool { return doorOf(v, "events") == store.Closed })
		asks := func(texts ...string) bool {
			before := len(wire.Texts())
			tx, err := db.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			defer tx.Rollback()
			for _, text := range texts {
				v.On(tx).Exec(text, "Bern")
			}
			f.Commit(tx)
			return slices.ContainsFunc(wire.Texts()[before:], func(text pgtest.Text) bool { return strings.Contains(text.SQL, "pg_current_xact_id") })
		}
		const closed, open = "INSERT INTO events (what) VALUES ($1)", "UPDATE users SET city = $1 WHERE id = 1"
		if asks(closed, closed) {
			t.Error("for an intent on nothing")
		}
		v.Hit(harness.UserByID, 1)
		if !asks(closed, open) {
			t.Error("not where a table is open")
		}
		v.Miss(harness.UserByID, 1).Is("1 ann Bern")
	})
}
