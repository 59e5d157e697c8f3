package behind

import (
	"context"
	"errors"

	"github.com/cachedpg/cachedpg/internal/pause"
)

// Check is what Ping says: whose the queue is, and nothing that passes.
func (b *Queue) Check(ctx context.Context) error {
	if b.ready.Load() && b.stopped() == nil {
		return nil
	}
	for {
		err := b.once(ctx)
		switch {
		case isWaiting(err):
			if err := pause.For(ctx, waitingPause); err != nil {
				return err
			}
			continue
		case IsNotOwner(err), errors.Is(err, errSealed):
			return err
		case err != nil: // such as a lock that another has
			return b.stopped()
		}
		return nil
	}
}
