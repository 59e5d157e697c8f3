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
	Changed                           Changed
}

// Changed is how many rows a statement has changed when it was executed last. The zero value is of one
// that was not executed.
type Changed struct{ rows atomic.Int64 }

// Note takes in an execution.
func (c *Changed) Note(rows int64) { c.rows.Store(rows + 1) }

// Few reports that the statement may be expected to change so few rows that each is worth being named. few
// says so of one that was not executed.
func (c *Changed) Few(few bool) bool {
	if n := c.rows.Load(); n > 0 {
		return n <= maxNamed+1
	}
	return few
}

// maxNamed is of how many rows a statement is made to return values.
const maxNamed = 200

// Took is how long the SELECT takes, as a mean; zero if that is not known.
func (s *Statement) Took() time.Duration {
	if fills := s.Fills.Load(); fills > 0 {
		return time.Duration(s.Ns.Load() / fills)
	}
	return 0
}
