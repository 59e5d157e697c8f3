package redis

import (
	"sync/atomic"

	"github.com/cachedpg/cachedpg/store"
)

type stats struct {
	trips, errors, timeouts, garbage, dropped, epochs atomic.Uint64
}

// SharedStats implements store.Shared.
func (s *Store) SharedStats() store.SharedStats {
	down, _ := s.line.state()
	return store.SharedStats{
		Trips: s.stats.trips.Load(), Errors: s.stats.errors.Load(), Timeouts: s.stats.timeouts.Load(),
		Garbage: s.stats.garbage.Load(), Dropped: s.stats.dropped.Load(), Epochs: s.stats.epochs.Load(), Down: down,
	}
}
