package space

import (
	"context"
	"errors"

	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Lookup is store.Lookup, which of a shared store asks for help.
func (sp *Space) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	entry, outcome, err := sp.Store.Lookup(ctx, key, tags, stamps)
	if sp.Keeper == nil {
		return entry, outcome, err
	}
	if errors.Is(err, store.ErrCold) && sp.Keeper.warmUp(ctx) {
		entry, outcome, err = sp.Store.Lookup(ctx, key, tags, stamps)
	}
	if outcome == store.Dirty && err == nil {
		sp.Keeper.met()
	}
	return entry, outcome, err
}

// Unavailable says why there is no catalog to plan with, as far as it is the
// store's doing: without it nobody knows which changes a catalog has seen.
func (sp *Space) Unavailable() keying.Reason {
	switch {
	case sp == nil:
	case sp.Keeper != nil:
		return sp.Keeper.trouble()
	case sp.Peers != nil:
		sp.Peers.Watch() // who cannot ask for the one cannot ask for the other either, and Stats says so
	}
	return keying.CatalogUnavailable
}
