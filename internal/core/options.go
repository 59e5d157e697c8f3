package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/planning"
)

type contextKey struct{}

// WithBypass returns a context whose queries go to PostgreSQL and store
// nothing. Writes under it invalidate as always.
func WithBypass(ctx context.Context) context.Context {
	h := hintsOf(ctx)
	h.Bypass = true
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
	if h.TTL = ttl; ttl <= 0 {
		h.Bypass = true
	}
	return context.WithValue(ctx, contextKey{}, h)
}

func hintsOf(ctx context.Context) planning.Hints {
	h, _ := ctx.Value(contextKey{}).(planning.Hints)
	return h
}
