package space

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Where the feed from the write-ahead log, which is package internal/feed, meets the space.

// joinFeed makes sure that the log is followed if a member asks for it. Who
// calls it holds spacesMu.
func (sp *Space) joinFeed(d *Member) {
	if d.Config.External != config.ExternalWAL {
		return
	}
	live := func() {}
	if sp.Keeper != nil {
		sp.Keeper.feeds.Store(true)
		live = sp.Keeper.nudge
	}
	if f := sp.Feed.Load(); f != nil {
		f.Join(d.Dialler)
		return
	}
	sp.Feed.Store(feed.New(feed.Host{ID: sp.Key.Identity, Dialler: d.Dialler, Shared: sp.Keeper != nil, Cache: fed{sp}, Everything: Everything, Live: live}))
}

// fed is feed.Cache.
type fed struct{ *Space }

func (f fed) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	return f.Store.Intend(ctx, w, tags)
}

func (f fed) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	return f.Store.Release(ctx, w, tags)
}

// NotFollowed is the reason for a read of tables that are not followed.
func (sp *Space) NotFollowed(tags []store.Tag) keying.Reason {
	if sp.Feed.Load().LeavesOut(tags) {
		return keying.NotFollowed
	}
	return keying.NoReason
}
