package through

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

const setCity = "UPDATE users SET city = $1 WHERE id = 1"

const usersThrough = "cache_policy=users:write-through"

// openThrough returns the via of a DB whose commits refill users, and that caches.
func openThrough(f *harness.Fixture, keys ...string) harness.Via {
	f.Helper()
	v := f.With(append(keys, usersThrough)...)
	harness.AwaitCaching(f, v.DB)
	return v
}

// refills checks what commits have done since before.
func refills(v harness.Via, before cachedpg.Stats, refilled, skipped, failed uint64) {
	v.F.Helper()
	s := cachedpg.StatsOf(v.DB)
	got := [3]uint64{s.Refilled - before.Refilled, s.RefillSkipped - before.RefillSkipped, s.RefillFailed - before.RefillFailed}
	if want := [3]uint64{refilled, skipped, failed}; got != want {
		v.F.Fatalf("got refilled, skipped, failed %v, want %v", got, want)
	}
}

// twoWriters is a story of two writers that refill: two processes on one Redis, and
// two connections of one process.
func twoWriters(t *testing.T, story func(f *harness.Fixture, one, two harness.Via)) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
		one := openThrough(f)
		story(f, one, one)
	})
	t.Run("redis", func(t *testing.T) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), usersThrough)
		two := f.Process("two")
		two.Known(harness.UserByID, 1)
		story(f, f.Via, two)
	})
}
