package core

import (
	"context"
	"time"
)

type contextKey struct{}

// hints are what a caller asks for one query, by context or by comment.
type hints struct {
	bypass bool
	ttl    time.Duration
}

// WithBypass returns a context whose queries go to PostgreSQL and store
// nothing. Writes under it invalidate as always.
func WithBypass(ctx context.Context) context.Context {
	h := hintsOf(ctx)
	h.bypass = true
	return context.WithValue(ctx, contextKey{}, h)
}

// WithTTL returns a context whose queries, when they fill the cache, store
// their result for at most ttl. It does not shorten the life of an entry that
// is there already, and never lengthens that of a relation with a shorter
// Policy. A ttl that is not positive is as WithBypass.
//
// A query that is otherwise never cached because its answer is of its moment
// (now(), random(), a foreign table) is cached by age: its result is given
// again until it is ttl old, outside of transactions. Explain says so. A comment in the statement does
// the same: /* cachedpg: ttl=5s */.
func WithTTL(ctx context.Context, ttl time.Duration) context.Context {
	h := hintsOf(ctx)
	if h.ttl = ttl; ttl <= 0 {
		h.bypass = true
	}
	return context.WithValue(ctx, contextKey{}, h)
}

func hintsOf(ctx context.Context) hints {
	h, _ := ctx.Value(contextKey{}).(hints)
	return h
}
