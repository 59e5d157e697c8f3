package outbox

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"
)

// Outbox is what one connector has to do with the table, as a writer and as a relay. The zero value is ready. It is
// safe for concurrent use.
type Outbox struct {
	posted, asked, marked, delivered, setAside atomic.Uint64
	silent                                     atomic.Int64 // until then, in Unix nanoseconds, no relay is asked

	mu      sync.Mutex // guards the fields below
	waiting int
	lag     time.Duration
	problem string // "" when it has gone well since
	aside   string // the last row that was set aside
}

// Stats is cachedpg.OutboxStats.
type Stats struct {
	Posted    uint64
	Asked     uint64
	Marked    uint64
	Delivered uint64
	SetAside  uint64
	Waiting   int
	Lag       time.Duration
	Problem   string
}

// Stats returns what has happened so far.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{Posted: o.posted.Load(), Asked: o.asked.Load(), Marked: o.marked.Load(), Delivered: o.delivered.Load(),
		SetAside: o.setAside.Load(), Waiting: o.waiting, Lag: o.lag, Problem: cmp.Or(o.problem, o.aside)}
}

// note has Stats tell of a problem, or with "" that there is none any more.
func (o *Outbox) note(problem string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problem = problem
}
