package space

import (
	"context"
	"sync"
	"time"
)

// Backoff limits how often something is tried that PostgreSQL has to be asked for.
type Backoff struct {
	Min, Max time.Duration

	mu    sync.Mutex // guards the fields below
	after time.Time
	wait  time.Duration
}

// Due reports that it may be tried now, and puts the next try off.
func (b *Backoff) Due(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.after) {
		return false
	}
	b.wait = min(max(2*b.wait, b.Min), b.Max)
	b.after = now.Add(b.wait)
	return true
}

// Helped makes the next try due at once.
func (b *Backoff) Helped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait, b.after = 0, time.Time{}
}

// within reports that done was closed in time.
func within(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
