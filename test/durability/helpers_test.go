//go:build unix

package durability

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// asynchronous is a story, with each store, on a server whose log is on disk only when
// somebody commits who waits for it.
func asynchronous(t *testing.T, setup string, story func(f *harness.Fixture, s *pgtest.Server)) {
	t.Helper()
	t.Parallel()
	s := harness.Unflushing(t)
	for _, name := range []string{"memory", "redis"} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			if name == "redis" {
				keys = append(keys, "cache_store="+pgtest.Redis(t))
			}
			f := harness.New(t, s.DSN(), "cache_statement", setup, keys...)
			f.Plain.SetMaxIdleConns(0)
			story(f, s)
		})
	}
}

// setAside is a DSN key by which commits of a DB do not wait for the disk.
const setAside = "synchronous_commit"

// flushes has a transaction of somebody else wait for the disk.
func flushes(f *harness.Fixture) { f.Past("CREATE TABLE IF NOT EXISTS flushed (); DROP TABLE flushed") }

// checkUnflushed reads what was just committed: as long as it is not on disk, it
// comes from PostgreSQL each time.
func checkUnflushed(f *harness.Fixture, query string, args ...any) {
	f.Helper()
	before := cachedpg.StatsOf(f.DB)
	for range 3 {
		f.Fresh(query, args...)
	}
	after := cachedpg.StatsOf(f.DB)
	if !f.IsUnflushed() {
		f.Error("the log is on disk before it shall be")
	} else if after.Hits != before.Hits || after.Fills != before.Fills {
		f.Errorf("what is not on disk: %s", harness.Difference(counts(before), counts(after)))
	}
}

// counts are those of what difference tells in words.
func counts(s cachedpg.Stats) inside.Counts {
	return inside.Counts{Hits: s.Hits, Misses: s.Misses, Others: s.Others, Bypasses: s.Bypasses}
}
