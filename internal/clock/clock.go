// Package clock is a bounded map with CLOCK eviction: a lookup takes a read
// lock and, once per round of the hand, one atomic store.
package clock

import (
	"sync"
	"sync/atomic"
)

// Cache is a map of at most a fixed number of entries. It is safe for
// concurrent use.
type Cache[K comparable, V any] struct {
	mu    sync.RWMutex // guards the fields below
	slots map[K]*slot[K, V]
	ring  []*slot[K, V]
	hand  int
	limit int
}

type slot[K comparable, V any] struct {
	key   K
	value V
	used  atomic.Bool
}

// New returns a cache of at most limit entries; limit must be positive.
func New[K comparable, V any](limit int) *Cache[K, V] {
	return &Cache[K, V]{slots: make(map[K]*slot[K, V]), limit: limit}
}

// Get returns the value of key.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.RLock()
	s := c.slots[key]
	c.mu.RUnlock()
	if s == nil {
		return value, false
	}
	// Reading first keeps the cache line shared among readers.
	if !s.used.Load() {
		s.used.Store(true)
	}
	return s.value, true
}

// Add stores value unless key is there already, evicts if need be, and returns
// what is stored now.
func (c *Cache[K, V]) Add(key K, value V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.slots[key]; s != nil {
		return s.value
	}
	s := &slot[K, V]{key: key, value: value}
	c.slots[key] = s
	if len(c.ring) < c.limit {
		c.ring = append(c.ring, s)
		return value
	}
	for c.ring[c.hand].used.Swap(false) {
		c.hand = (c.hand + 1) % c.limit
	}
	delete(c.slots, c.ring[c.hand].key)
	c.ring[c.hand] = s
	c.hand = (c.hand + 1) % c.limit
	return value
}

// All calls f for each value until it returns false. The order is undefined.
func (c *Cache[K, V]) All(f func(K, V) bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for k, s := range c.slots {
		if !f(k, s.value) {
			return
		}
	}
}
