package space

import (
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// I4, I8: whoever meets the intent of a writer that fell silent asks
// PostgreSQL, and only its answer ends the intent.
func TestTheIntentsOfADeadWriterAreResolved(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		conn := pgtest.Connect(f.T, f.DSN)
		kill := func(prepare bool, end string) {
			f.T.Helper()
			f.Known(harness.UserByID, 1)
			tx, err := conn.Begin(f.Ctx)
			if err != nil {
				f.Fatal(err)
			}
			var xid uint64
			if err := tx.QueryRow(f.Ctx, "UPDATE users SET city = city || '!' WHERE id = 1 RETURNING pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
				f.Fatal(err)
			}
			tags := f.TagsOf(harness.UserByID, 1)
			if _, err := keeperOf(f.Via).Store.Mark(f.Ctx, store.NewTransactionWriter(xid), tags, spaceOf(f.DB).View.Load().Catalog); err != nil {
				f.Fatal(err)
			}
			// Longer than a sweep needs to look at the writer twice.
			for until := time.Now().Add(suspectAfter + 2*peers.RenewEvery); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				f.Bypass(keying.DirtyTag, harness.UserByID, 1)
			}
			if prepare {
				if _, err := conn.Exec(f.Ctx, "PREPARE TRANSACTION '"+f.T.Name()+"'"); err != nil {
					f.Fatal(err)
				}
				f.Bypass(keying.DirtyTag, harness.UserByID, 1)
				f.Exec(end + " PREPARED '" + f.T.Name() + "'")
			} else if _, err := conn.Exec(f.Ctx, end); err != nil {
				f.Fatal(err)
			}
			f.Until("the result to be cached again", func() bool {
				before := inside.Counted(f.DB).Hits
				f.Fresh(harness.UserByID, 1)
				return inside.Counted(f.DB).Hits > before
			})
		}
		kill(false, "COMMIT")
		kill(false, "ROLLBACK")
		kill(true, "COMMIT")
		kill(true, "ROLLBACK")
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo!!")
	})
}

// I22: a lease that is extended without a digest has nothing under it that was planned
// with a catalog of before.
func TestADoubtLeavesNothingThatWasPlannedBefore(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Again(harness.UserByID, 1)
		sp := spaceOf(f.DB)
		stamps, err := sp.Keeper.stamps(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		old := sp.View.Load()
		number, err := sp.Keeper.watch.ask(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		if sure, err := sp.Keeper.doubt(f.Ctx, number); !sure || err != nil {
			f.Fatalf("sure %v, %v", sure, err)
		}
		if agreed, err := sp.agree(f.Ctx, old.Snapshot, &stamps, sp.Gens.Current(), number); agreed || err != nil {
			f.Errorf("a catalog loaded before is agreed on: %v, %v", agreed, err)
		}
		f.Miss(harness.UserByID, 1)
		f.Hit(harness.UserByID, 1)
	})
}

// An epoch whose lease ran out begins again when nobody commits past the store any more.
// What somebody did is on disk by then (I21).
func TestAnEpochBeginsWithWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	s := harness.Unflushing(t)
	f := harness.New(t, s.DSN(), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	conn := pgtest.Connect(f, harness.WithKey(f.DSN, "synchronous_commit", "off"))
	for _, fresh := range []store.Fresh{{Epoch: "kept", Kept: true}, {Epoch: "new"}} {
		run(f, conn, "UPDATE users SET city = 'past' WHERE id = 1")
		if !f.IsUnflushed() {
			t.Error("the log is on disk before it shall be")
		}
		k := &Keeper{log: new(backend.Log), Peers: keeperOf(f.Via).Peers} // not the one that is at work
		k.Guard.ID, k.watch.guard = keeperOf(f.Via).Guard.ID, &k.Guard
		k.Guard.Add(inside.Core(f.DB).(guard.Dialler))
		f.Until("a lease", func() bool {
			ok, err := k.sure(f.Ctx, fresh)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
		k.Guard.Close()
		if f.IsUnflushed() {
			t.Errorf("%+v begins with what a crash may undo", fresh)
		}
	}
}
