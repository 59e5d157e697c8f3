// Package pause is how goroutines wait for a time or for each other.
package pause

import (
	"context"
	"time"
)

// For returns after d, or early with the context's error when ctx ends.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// End has whoever receives from c next go on. c has room for one; a second call changes nothing
// while that is taken.
func End(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
