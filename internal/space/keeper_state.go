package space

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/keying"
)

// met is told that a lookup has met an intent.
func (k *Keeper) met() {
	if !k.dirty.Load() {
		k.dirty.Store(true)
	}
}

// Hurry has the intents of writers that PostgreSQL has just been told about
// looked at now.
func (k *Keeper) Hurry() {
	k.dirty.Store(true)
	k.nudge()
}

func (k *Keeper) nudge() {
	select {
	case k.nudged <- struct{}{}:
	default:
	}
}

// warmUp is called by a lookup that found the store cold. It reports whether
// to look again. Those who find it cold first wait for the renewal that they
// have asked for, which on a quiet database is enough; if it was not, nobody waits.
func (k *Keeper) warmUp(ctx context.Context) bool {
	k.mu.Lock()
	if k.Live.Load() {
		k.Live.Store(false)
		k.first = make(chan struct{})
		k.nudge()
	}
	first := k.first
	k.mu.Unlock()
	return within(ctx, first, patience.For(ctx, guard.AskTimeout)) && k.Live.Load()
}

// trouble says why the store cannot be asked.
func (k *Keeper) trouble() keying.Reason {
	switch {
	case k.Store.SharedStats().Down:
		return keying.StoreDown
	case !k.Live.Load():
		return k.coldBecause()
	}
	return keying.CatalogUnavailable
}

// coldBecause says why there is no lease.
func (k *Keeper) coldBecause() keying.Reason {
	switch {
	case k.feedless.Load():
		return keying.FeedDown
	case k.space.Problems.Err(workStore) != nil:
		return keying.StoreError
	}
	if reason := k.Peers.Reason(); reason != keying.Warming || k.space.Problems.Err(WorkWatch) == nil {
		return reason
	}
	return keying.Unwatched
}

// Check says what is wrong with a store that was never reached, or that answers and
// refuses. Later that it cannot be reached is no reason to fail.
func (k *Keeper) Check(ctx context.Context) error {
	if k.reached.Load() && (k.space.Problems.Err(workStore) == nil || k.Store.SharedStats().Down) {
		return nil
	}
	return k.Store.Check(ctx)
}
