// Package clock is a map of bounded cost with CLOCK eviction: a lookup takes a read
// lock and, once per round of the hand, one atomic store.
package clock

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Cache is a map whose entries cost no more than its limit together. What the cost is
// of, such as bytes, is the caller's to say. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	mu    sync.RWMutex // guards the fields below
	slots map[K]*slot[K, V]
	ring  []*slot[K, V]
	hand  int
	cost  int64
	limit int64
}

type slot[K comparable, V any] struct {
	key   K
	value V
	cost  int64
	used  atomic.Bool
}

// New returns a cache of entries that cost at most limit together.
func New[K comparable, V any](limit int64) *Cache[K, V] {
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
// what is stored now. What costs more than a quarter of the limit is not stored.
func (c *Cache[K, V]) Add(key K, value V, cost int64) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.slots[key]; s != nil {
		return s.value
	}
	if cost > max(c.limit/4, 1) {
		return value
	}
	for len(c.ring) > 0 && c.cost+cost > c.limit {
		c.evict()
	}
	s := &slot[K, V]{key: key, value: value, cost: cost}
	c.slots[key] = s
	c.ring = append(c.ring, s)
	c.cost += cost
	return value
}

// keepOneIn is of how many that would evict another one Keep stores.
const keepOneIn = 8

// Keep is Add for what is used by turns, as the settings of one tenant after the other: of more than
// there is room for Add would have evicted each just before its next turn. It stores few of those that would evict another one.
func (c *Cache[K, V]) Keep(key K, value V, cost int64) V {
	c.mu.RLock()
	_, there := c.slots[key]
	full := c.cost+cost > c.limit
	c.mu.RUnlock()
	if !there && full && rand.N(keepOneIn) > 0 {
		return value
	}
	return c.Add(key, value, cost)
}

// evict takes out the next entry that was not used since the hand's last round.
func (c *Cache[K, V]) evict() {
	for c.ring[c.hand].used.Swap(false) {
		c.hand = (c.hand + 1) % len(c.ring)
	}
	victim := c.ring[c.hand]
	delete(c.slots, victim.key)
	c.cost -= victim.cost
	last := len(c.ring) - 1
	c.ring[c.hand], c.ring[last] = c.ring[last], nil
	c.ring = c.ring[:last]
	if c.hand++; c.hand >= last { // the one that was last is younger
		c.hand = 0
	}
}

// Cost returns what the entries cost together.
func (c *Cache[K, V]) Cost() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cost
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
