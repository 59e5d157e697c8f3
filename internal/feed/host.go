package feed

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// Host is what a Feed needs of the driver, which has a cache of one database.
type Host struct {
	ID         backend.Identity
	Dialler    guard.Dialler // the first one
	Shared     bool          // processes share the store: one of them leads
	Cache      Cache
	Everything []store.Tag // what nothing that is cached or planned survives
	Live       func()      // the feed leads from now on
}

// Cache is what a feed tells of changes.
type Cache interface {
	// Intend and Release are those of store.Store.
	Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error
	Release(ctx context.Context, w store.WriterID, tags []store.Tag) error
	// InvalidateAll makes everything stale, plans included.
	InvalidateAll(ctx context.Context) error
}
