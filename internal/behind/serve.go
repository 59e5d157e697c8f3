package behind

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// run makes the rounds, one after another.
func (b *Queue) run(ctx context.Context) {
	defer close(b.ended)
	a := applier{b: b}
	defer a.close()
	var failed time.Duration
	for {
		b.mu.Lock()
		mine, asked, pos := b.wanted, b.wanted > b.done || b.err != nil, b.pos // to look does not mend a round that failed
		b.mu.Unlock()
		var more bool
		var err error
		if asked || !a.seen || !b.idle(ctx) || !a.look(ctx) {
			if more, pos, err = a.round(ctx); err != nil {
				err = applyError(err)
			}
		}
		b.mu.Lock()
		b.done, b.err = mine, err
		if err == nil || IsNotOwner(err) || errors.Is(err, errSealed) {
			b.barred = err
		}
		if err == nil {
			b.pos = pos
			b.ready.Store(true)
		}
		b.serveLocked()
		b.mu.Unlock()
		wait := lookEvery
		switch {
		case err != nil:
			failed = min(max(2*failed, linger), backoffMost)
			wait = failed
		case more:
			wait, failed = 0, 0
		default:
			failed = 0
		}
		if !b.pause(ctx, wait, err == nil) {
			return
		}
	}
}

// applyError is what a round's failure is to those who wait for it. It never is
// backend.ErrBadConn: their own connections are as good as they were.
func applyError(err error) error {
	switch {
	case IsNotOwner(err):
		return err
	case errors.Is(err, backend.ErrBadConn):
		return errors.New("cachedpg: write-behind: the connection broke over which queued writes are applied")
	case strings.HasPrefix(err.Error(), "cachedpg: "):
		return err
	}
	return fmt.Errorf("cachedpg: write-behind: queued writes cannot be applied: %w", err)
}

// idle reports that nothing is in the queue, so that PostgreSQL need not be bothered.
func (b *Queue) idle(ctx context.Context) bool {
	last, _, err := b.store.Last(ctx)
	return err == nil && last == ""
}

// pause waits until a round is due; false when there are no more.
func (b *Queue) pause(ctx context.Context, wait time.Duration, healthy bool) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	soon := b.soon
	if !healthy {
		soon = nil // more of them do not make PostgreSQL answer earlier
	}
	for {
		select {
		case <-timer.C:
			return ctx.Err() == nil
		case <-b.now:
			return true
		case <-soon:
			timer.Reset(linger)
			soon = nil
		case <-b.closing:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
