package outages

import (
	"slices"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// halfway is a writer that has marked what it wrote and not committed.
func halfway(f *harness.Fixture, name string) (commit func()) {
	f.Helper()
	mark, commit := leaveUnmarked(f, name)
	mark()
	return commit
}

// leaveUnmarked is a writer that has not marked what it wrote.
func leaveUnmarked(f *harness.Fixture, name string) (mark, commit func()) {
	f.Helper()
	conn := pgtest.Connect(f.T, f.DSN)
	tx, err := conn.Begin(f.Ctx)
	if err != nil {
		f.Fatal(err)
	}
	var xid uint64
	if err := tx.QueryRow(f.Ctx, "UPDATE users SET name = $1 WHERE id = 1 RETURNING pg_current_xact_id()::text::int8", name).Scan(&xid); err != nil {
		f.Fatal(err)
	}
	tags := slices.DeleteFunc(f.TagsOf(harness.UserByID, 1), func(tag store.Tag) bool { return tag.Kind != store.TagRow })
	mark = func() {
		f.Helper()
		if err := inside.Store(f.DB).Intend(f.Ctx, store.NewTransactionWriter(xid), tags); err != nil {
			f.Fatal(err)
		}
	}
	return mark, func() {
		f.Helper()
		if err := tx.Commit(f.Ctx); err != nil {
			f.Fatal(err)
		}
	}
}

// lapse ends the lease of a store, and nothing else of it.
func lapse(f *harness.Fixture, r *redistest.Server) {
	f.Helper()
	names, err := r.Client().Keys(f.Ctx, "cachedpg:*:l").Result()
	if err != nil || len(names) != 1 {
		f.Fatal(names, err)
	}
	if err := r.Client().Del(f.Ctx, names...).Err(); err != nil {
		f.Fatal(err)
	}
}

// I14: a lease that ran out has lost no mark, so that nobody who has marked, or
// will, is waited for.
func TestALeaseThatRanOutWaitsForNoTransaction(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		other := f.Process("other")
		other.Again(harness.UserByID, 2)
		f.Again(harness.UserByID, 1)
		mark, later := leaveUnmarked(f, "anna")
		lapse(f, r)
		other.Again(harness.UserByID, 2)
		mark()
		f.Bypass(keying.DirtyTag, harness.UserByID, 1)
		lapse(f, r)
		other.Again(harness.UserByID, 2)
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		later()
		f.Again(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// I14: nor is a writer whose marks are in the store that has lost those of others.
func TestAStoreThatForgotIntentsWaitsForNoneThatItHas(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		other := f.Process("other")
		other.Again(harness.UserByID, 2)
		f.Again(harness.UserByID, 1)
		mark, commit := leaveUnmarked(f, "anna")
		if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
			f.Fatal(err)
		}
		hits := cachedpg.StatsOf(other.DB).Hits
		f.Stays(patience.Lease, func() { other.Fresh(harness.UserByID, 2) })
		if cachedpg.StatsOf(other.DB).Hits != hits {
			f.Error("hits while a writer is under way whose marks may be lost")
		}
		mark()
		other.Again(harness.UserByID, 2)
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		commit()
		f.Again(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// I12, I14: a store that has lost intents is cold until every write is over
// whose intents it may have lost.
func TestAStoreThatForgotIntentsWaitsForTheirWriters(t *testing.T) {
	for name, lose := range map[string]func(f *harness.Fixture, r *redistest.Server){
		"flushed": func(f *harness.Fixture, r *redistest.Server) {
			if err := r.Client().FlushAll(f.Ctx).Err(); err != nil {
				f.Fatal(err)
			}
		},
		"the intents evicted": func(f *harness.Fixture, r *redistest.Server) {
			names, err := r.Client().Keys(f.Ctx, "cachedpg:*:d").Result()
			if err != nil || len(names) != 1 {
				f.Fatal(names, err)
			}
			if err := r.Client().Del(f.Ctx, names...).Err(); err != nil {
				f.Fatal(err)
			}
		},
		"restarted": func(_ *harness.Fixture, r *redistest.Server) { r.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				other := f.Process("other")
				f.Again(harness.UserByID, 1)
				commit := halfway(f, "anna")
				f.Bypass(keying.DirtyTag, harness.UserByID, 1)
				lose(f, r)
				hits := cachedpg.StatsOf(f.DB).Hits + cachedpg.StatsOf(other.DB).Hits
				f.Stays(2*patience.Lease, func() {
					f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
					other.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
				})
				if cachedpg.StatsOf(f.DB).Hits+cachedpg.StatsOf(other.DB).Hits != hits {
					f.Error("hits while the store was cold")
				}
				commit()
				other.Again(harness.UserByID, 1).Is("1 anna Oslo")
				f.Again(harness.UserByID, 1).Is("1 anna Oslo")
			})
		})
	}
}
