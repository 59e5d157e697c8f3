package planning

import (
	"sync/atomic"
	"time"
)

type Statement struct {
	Text                              string
	Reason                            atomic.Uint32 // keying.Reason of the last plan
	Hits, Misses, Bypassed, Fills, Ns atomic.Uint64
	Admission                         admission
}

// Took is how long the SELECT takes, as a mean; zero if that is not known.
func (s *Statement) Took() time.Duration {
	if fills := s.Fills.Load(); fills > 0 {
		return time.Duration(s.Ns.Load() / fills)
	}
	return 0
}
