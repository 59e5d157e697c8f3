package cachedpg

import (
	"database/sql"
	"database/sql/driver"

	"github.com/cachedpg/cachedpg/internal/inside"
)

func init() {
	inside.Counted = func(db *sql.DB) inside.Counts {
		s := StatsOf(db)
		return inside.Counts{Hits: s.Hits, Misses: s.Misses, Others: s.Others, Bypasses: s.Bypasses}
	}
	inside.Live = func(db *sql.DB) bool {
		keeper := connectorOf(db).space().keeper
		return keeper == nil || keeper.live.Load()
	}
	inside.Pending = func(db *sql.DB) (releases int, shared bool) {
		sp := connectorOf(db).space()
		if sp == nil || sp.keeper == nil {
			return 0, false
		}
		return sp.writes.Stats().Pending, !StatsOf(db).Shared.Down
	}
	inside.Warm = func(db *sql.DB) bool { return connectorOf(db).space().before.Load().warm.Load() }
	inside.Followed = func(db *sql.DB) (lsn uint64) {
		feed := connectorOf(db).space().feed.Load()
		feed.mu.Lock()
		defer feed.mu.Unlock()
		return feed.handled
	}
	inside.Process = func(c driver.Connector, name string) { c.(*connector).process = name }
}
