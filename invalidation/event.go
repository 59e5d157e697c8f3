package invalidation

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// Event says that something has changed, to those who did not take part: it
// travels through an outbox, the write-ahead log or Kafka. What it tells of is
// visible in PostgreSQL by then. Applying one gives its tags new stamps and
// nothing else, so that to lose the order, or to deliver one again, does no harm.
type Event struct {
	// Source names the database that the relations' OIDs are of.
	Source string

	// ID tells events apart, for logs and for those who deliver them.
	ID string

	// Time is when the change was committed, as far as that is known, or noticed.
	Time time.Time

	Tags []store.Tag
}

// Sink takes events. When Send returns nil it has them for good; after an error
// all of them are sent again. It is called by one goroutine at a time and owns
// nothing of what it is given.
type Sink interface {
	Send(ctx context.Context, events []Event) error
}

// SinkFunc is a function as a Sink.
type SinkFunc func(ctx context.Context, events []Event) error

// Send calls f.
func (f SinkFunc) Send(ctx context.Context, events []Event) error { return f(ctx, events) }
