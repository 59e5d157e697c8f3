package core

import (
	"math"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

func keeperOf(v harness.Via) *space.Keeper { return dbOf(v.DB).space().Keeper }

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
			tags := tagsOf(f, harness.UserByID, 1)
			if _, err := keeperOf(f.Via).Store.Mark(f.Ctx, store.NewTransactionWriter(xid), tags, inside.Stamp(f.DB)); err != nil {
				f.Fatal(err)
			}
			// Longer than a sweep needs to look at the writer twice.
			for until := time.Now().Add(space.SuspectAfter + 2*peers.RenewEvery); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
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
				before := statsOf(f.DB).Hits
				f.Fresh(harness.UserByID, 1)
				return statsOf(f.DB).Hits > before
			})
		}
		kill(false, "COMMIT")
		kill(false, "ROLLBACK")
		kill(true, "COMMIT")
		kill(true, "ROLLBACK")
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo!!")
	})
}

// tagsOf are the tags that a query depends on whatever its result.
func tagsOf(f *harness.Fixture, query string, args ...any) []store.Tag {
	f.Helper()
	return f.TagsOf(query, args...)
}

// Eventual consistency marks nothing and invalidates after the commit.
func TestEventualConsistencyInvalidatesAfterTheCommit(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		writer := f.Process("writer", "cache_consistency=eventual")
		f.Known(harness.UserByID, 1)
		writer.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 ann Bergen")
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET city = 'Tromsø' WHERE id = 1")
		f.Hit(harness.UserByID, 1)
		f.Commit(tx)
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 ann Tromsø")
		if n := dbOf(writer.DB).space().Writes.Stats().Intents; n != 0 {
			f.Errorf("%d intents, want none", n)
		}
	})
}

func TestEarlyRefreshIsLikelierTowardsTheEnd(t *testing.T) {
	const took = time.Second
	for _, tc := range []struct {
		left time.Duration
		want float64
	}{
		{-time.Second, 1}, {0, 1}, {took / 10, math.Exp(-0.1)}, {took, math.Exp(-1)}, {3 * took, math.Exp(-3)}, {41 * took, 0}, {time.Hour, 0},
	} {
		const n = 10000
		due := 0
		for i := range n { // evenly, so that the count is what it should be
			if dueEarly(tc.left, took, func() float64 { return (float64(i) + 0.5) / n }) {
				due++
			}
		}
		if got := float64(due) / n; math.Abs(got-tc.want) > 0.001 {
			t.Errorf("%v before the end: %.3f of the hits refresh, want %.3f", tc.left, got, tc.want)
		}
	}
}
