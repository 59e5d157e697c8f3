package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/planning"
)

type contextKey struct{}

// WithBypass returns a context whose queries go past the cache, see cachedpg.WithBypass.
func WithBypass(ctx context.Context) context.Context {
	h := hintsOf(ctx)
	h.Bypass = true
	return context.WithValue(ctx, contextKey{}, h)
}

// WithTTL returns a context whose queries bound the life of what they store, see cachedpg.WithTTL.
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
