package space

import (
	"context"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// Hold keeps other processes from running the SELECT for as long as this one
// does. stop ends that.
func (sp *Space) Hold(key store.Key, stamps []store.Stamp, outcome store.Outcome) (stop func()) {
	if sp.Keeper == nil || !MayFill(outcome) {
		return func() {}
	}
	s := sp.Keeper.Store
	h := holder{key: key, stamps: append([]store.Stamp(nil), stamps...)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(store.FillLock/3, func() { h.again(s) })
	return h.stop
}

// GiveUp lets others run the SELECT that this process will not, after a lookup
// with this outcome.
func (sp *Space) GiveUp(key store.Key, stamps []store.Stamp, outcome store.Outcome) {
	if sp.Keeper != nil && MayFill(outcome) {
		sp.Keeper.Store.GiveUp(key, stamps)
	}
}

// Abandon lets all others who wait for the SELECT of this process run it at once: it has
// given nothing to store.
func (sp *Space) Abandon(key store.Key, stamps []store.Stamp, outcome store.Outcome) {
	if sp.Keeper != nil && MayFill(outcome) {
		sp.Keeper.Store.Abandon(key, stamps)
	}
}

// holder renews the fill lock of a SELECT that takes long.
type holder struct {
	key    store.Key
	stamps []store.Stamp

	mu    sync.Mutex
	timer *time.Timer // nil when the SELECT is over
}

func (h *holder) again(s store.Shared) {
	ctx, cancel := context.WithTimeout(context.Background(), store.FillLock/3)
	defer cancel()
	_ = s.Hold(ctx, h.key, h.stamps)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Reset(store.FillLock / 3)
	}
}

func (h *holder) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

// MayFill reports that a lookup with this outcome makes others wait for the fill.
func MayFill(outcome store.Outcome) bool { return outcome == store.Miss || outcome == store.Stale }
