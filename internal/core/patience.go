package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
)

// patience is how long the connection follows another's SELECT before it runs it
// itself: a quarter of the time that the caller has, or that PostgreSQL would give it. An
// error then is PostgreSQL's own.
func (c *Conn) patience(ctx context.Context) time.Duration {
	limit := c.limit
	if c.inner == nil {
		limit = time.Duration(c.d.limit.Load())
	}
	if limit == 0 {
		limit = 4 * forever
	}
	return patience.For(ctx, limit/4)
}

// hurried is the limit of a connection whose limits have been set and are not known: it
// follows nobody. It is only a little longer than none.
const hurried = time.Nanosecond

// forever is longer than anybody waits for a SELECT.
const forever = 24 * time.Hour
