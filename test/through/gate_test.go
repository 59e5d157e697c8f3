package through

import (
	"context"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

// storeGate runs something at a step of whoever comes to it next, once.
type storeGate struct {
	mu   sync.Mutex
	then map[string]func()
}

func (g *storeGate) next(at string, then func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.then == nil {
		g.then = make(map[string]func())
	}
	g.then[at] = then
}

func (g *storeGate) pass(at string) {
	g.mu.Lock()
	then := g.then[at]
	delete(g.then, at)
	g.mu.Unlock()
	if then != nil {
		then()
	}
}

// localStore is what the driver asks of a store of its own.
type localStore interface {
	store.Store
	Grow(bytes int64)
	Stats() store.MemoryStats
}

// gatedMemory and gatedRedis are stores with gates around what a reader asks.
type gatedMemory struct {
	localStore
	*storeGate
}

func (s gatedMemory) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	s.pass("before lookup")
	defer s.pass("after lookup")
	return s.localStore.Lookup(ctx, key, tags, stamps)
}

func (s gatedMemory) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	s.pass("before fill")
	defer s.pass("after fill")
	return s.localStore.Fill(ctx, key, tags, stamps, entry, ttl)
}

type gatedRedis struct {
	*redis.Store
	*storeGate
}

func (s gatedRedis) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	s.pass("before lookup")
	defer s.pass("after lookup")
	return s.Store.Lookup(ctx, key, tags, stamps)
}

func (s gatedRedis) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	s.pass("before fill")
	defer s.pass("after fill")
	return s.Store.Fill(ctx, key, tags, stamps, entry, ttl)
}

func (s gatedRedis) Stored(ctx context.Context, key store.Key) error {
	s.pass("stored")
	return s.Store.Stored(ctx, key)
}

// gateStore puts gates around the store of v's process, which nobody is using.
func gateStore(v harness.Via) *storeGate {
	g := &storeGate{}
	switch s := inside.Store(v.DB).(type) {
	case localStore:
		inside.SetStore(v.DB, gatedMemory{s, g})
	case *redis.Store:
		inside.SetStore(v.DB, gatedRedis{s, g})
	}
	return g
}
