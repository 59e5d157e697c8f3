package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Options configures a Memory. The zero value means the defaults.
type Options struct {
	// Bytes bounds the memory of entries, tags and their bookkeeping, beyond
	// some tens of KiB that an empty Memory takes. Intents are counted too but
	// never evicted, so with very many of them the bound is exceeded. 0 is 64 MiB.
	Bytes int64

	// EntryBytes is the most that one entry may take; a larger one is not
	// stored. 0 is a quarter of Bytes.
	EntryBytes int64

	// Now is the clock that entries expire by. Nil is the monotonic clock.
	Now func() time.Time
}

const defaultBytes = 64 << 20

// ErrClosed is what a Lookup returns after Close.
var ErrClosed = errors.New("cachedpg: the store is closed")

// Memory is a Store in this process. It is strict and never fails: a hit takes
// no lock and no allocation, and Intend and Release cost as little as a map
// access a tag. All methods are safe for concurrent use and ignore their
// context.
type Memory struct {
	spares   atomic.Uint64 // calls of Spare, counted before they change a tag; hits read it, and shards
	shards   []shard
	tags     []tagShard
	columns  columnSets
	max      atomic.Int64
	maxEntry int64 // 0 is a quarter of max
	now      func() Moment

	closed    atomic.Bool
	hand      atomic.Uint32 // shard to evict from
	tagHand   atomic.Uint32
	bytes     atomic.Int64
	entries   atomic.Int64
	cleanTags atomic.Int64
	idleTags  atomic.Int64
	dirtyTags atomic.Int64

	fills         atomic.Uint64
	dropped       atomic.Uint64
	evictions     atomic.Uint64
	expirations   atomic.Uint64
	invalidations atomic.Uint64
}

var (
	_ Store   = (*Memory)(nil)
	_ Sparing = (*Memory)(nil)
)

// NewMemory returns an empty store. It starts no goroutine; a Memory that is
// not used any more is garbage, closed or not.
func NewMemory(o Options) *Memory {
	m := &Memory{maxEntry: max(0, o.EntryBytes)}
	m.max.Store(o.Bytes)
	if o.Bytes <= 0 {
		m.max.Store(defaultBytes)
	}
	m.now = Now
	if o.Now != nil {
		m.now = func() Moment { return MomentOf(o.Now()) }
	}
	n := 8
	for n < 4*runtime.GOMAXPROCS(0) && n < 128 {
		n *= 2
	}
	m.shards = make([]shard, n)
	m.tags = make([]tagShard, n)
	for i := range m.tags {
		m.tags[i].dirty = make(map[Tag][]WriterID)
	}
	return m
}

// Grow raises the bound to bytes. It never lowers it: whoever shares the store
// gets at least what they asked for.
func (m *Memory) Grow(bytes int64) {
	for {
		now := m.max.Load()
		if bytes <= now || m.max.CompareAndSwap(now, bytes) {
			return
		}
	}
}

func (m *Memory) shard(h uint64) *shard {
	return &m.shards[h>>48&uint64(len(m.shards)-1)]
}

// Lookup implements Store.
func (m *Memory) Lookup(_ context.Context, key Key, tags []Tag, stamps []Stamp) (*Entry, Outcome, error) {
	h := key.hash()
	s := m.shard(h)
	n := s.find(&key, h)
	if n == nil {
		return m.miss(Miss, tags, stamps)
	}
	spares := m.spares.Load()
	if n.valid() && (m.spares.Load() == spares || m.valid(n)) && (n.entry.Expires == 0 || !n.expired(m.now())) {
		n.touch()
		return &n.entry, Hit, nil
	}
	return m.invalid(s, n, h, tags, stamps)
}

// invalid is a Lookup that found an entry which is no hit. One whose tags are dirty stays: it
// may be a hit again (I27).
func (m *Memory) invalid(s *shard, n *node, h uint64, tags []Tag, stamps []Stamp) (*Entry, Outcome, error) {
	switch {
	case n.dead():
		m.invalidations.Add(m.free(s, n, h))
	case n.entry.Expires != 0 && n.expired(m.now()):
		m.expirations.Add(m.free(s, n, h))
		return m.miss(Miss, tags, stamps)
	}
	return m.miss(Stale, tags, stamps)
}

// valid reports whether the entry is a hit. Its tags are looked at one after the other. If all
// are alive, and no Spare began from before the first look to after the last, the read linearises
// at the first look. Say that a commit was visible by then which the entry misses. Its writer had
// marked a tag of the entry before that, and the tag was found alive: it was spared. That Spare
// began before the first look, and by then the writer had marked another tag of the
// entry, for good (I27). But that was alive as well.
func (m *Memory) valid(n *node) bool {
	for before := m.spares.Load(); n.valid(); {
		now := m.spares.Load()
		if now == before {
			return true
		}
		before = now
	}
	return false
}

// miss collects the stamps. Those that it returns were all read while no Spare began, for the
// reason that valid has: who sees the stamps of another's SELECT may take its result (I8).
func (m *Memory) miss(outcome Outcome, tags []Tag, stamps []Stamp) (*Entry, Outcome, error) {
	if len(stamps) < len(tags) {
		return nil, Miss, fmt.Errorf("cachedpg: Lookup with %d tags has room for %d stamps", len(tags), len(stamps))
	}
	if m.closed.Load() {
		return nil, Miss, ErrClosed
	}
	for before := m.spares.Load(); ; {
		dirty := false
		for i, t := range tags {
			stamps[i] = m.stampOf(t)
			dirty = dirty || stamps[i] == 0
		}
		now := m.spares.Load()
		if now == before {
			if dirty {
				outcome = Dirty
			}
			break
		}
		before = now
	}
	m.shrink()
	return nil, outcome, nil
}

// free takes a node that can never be a hit again out of the store and returns
// how many it took: 0 if someone else did.
func (m *Memory) free(s *shard, n *node, h uint64) uint64 {
	if !s.remove(n, h, true) {
		return 0
	}
	m.dispose(n)
	return 1
}

// dispose settles the accounts of a node that was taken out of its shard.
func (m *Memory) dispose(n *node) {
	m.entries.Add(-1)
	m.bytes.Add(-n.size() - m.columns.drop(n.entry.Columns))
	m.unref(n)
}

// Fill implements Store. An entry whose tags have moved already, that is too
// large, or whose ttl is negative is dropped.
func (m *Memory) Fill(_ context.Context, key Key, tags []Tag, stamps []Stamp, entry *Entry, ttl time.Duration) error {
	if len(tags) != len(stamps) {
		return fmt.Errorf("cachedpg: Fill with %d tags has %d stamps", len(tags), len(stamps))
	}
	size := nodeSize(len(tags), 0) + int64(entry.Size())
	limit := m.maxEntry
	if limit == 0 {
		limit = m.max.Load() / 4
	}
	if size > limit || ttl < 0 {
		m.dropped.Add(1)
		return nil
	}
	n := &node{key: key, entry: *entry}
	if ttl > 0 {
		if end := m.now().Add(ttl); n.entry.Expires == 0 || end < n.entry.Expires {
			n.entry.Expires = end
		}
	}
	if !m.acquire(n, tags, stamps) {
		m.dropped.Add(1)
		return nil
	}
	// A stamp may move from here on; the node holds the dead cell then.
	h := key.hash()
	old, grown, ok := m.shard(h).insert(n, h)
	if !ok {
		m.unref(n)
		m.dropped.Add(1)
		return nil
	}
	m.fills.Add(1)
	m.entries.Add(1)
	m.bytes.Add(n.size() + m.columns.take(entry.Columns) + grown)
	if old != nil {
		m.dispose(old)
	}
	m.shrink()
	return nil
}

// Intend implements Store. It returns nil always, also after Close: nothing is
// served then that an intent could concern.
func (m *Memory) Intend(_ context.Context, w WriterID, tags []Tag) error {
	for _, t := range tags {
		m.intend(w, t)
	}
	m.shrink()
	return nil
}

// Release implements Store. It returns nil always.
func (m *Memory) Release(_ context.Context, w WriterID, tags []Tag) error {
	for _, t := range tags {
		m.release(w, t)
	}
	return nil
}

// Spare implements Sparing. It returns nil always.
func (m *Memory) Spare(_ context.Context, w WriterID, tags []Tag) error {
	m.spares.Add(1)
	for _, t := range tags {
		m.spare(w, t)
	}
	return nil
}

// shrink evicts until the bound is kept. Tags that no entry uses go first when
// they hold more than an eighth of the memory: losing one costs at most a fill,
// but those minted lately are about to be filled with.
func (m *Memory) shrink() {
	for {
		limit := m.max.Load()
		if m.bytes.Load() <= limit {
			return
		}
		if m.idleTags.Load()*(cellObject+2*slotBytes) > limit/8 && m.evictTag() {
			continue
		}
		if !m.evictEntry() && !m.evictTag() {
			return // only intents are left
		}
	}
}

func (m *Memory) evictEntry() bool {
	if m.entries.Load() == 0 {
		return false
	}
	now := m.now()
	for range m.shards {
		s := &m.shards[m.hand.Add(1)&uint32(len(m.shards)-1)]
		n, invalid, grown := s.evict(now)
		if n == nil {
			continue
		}
		m.bytes.Add(grown)
		switch {
		case !invalid:
			m.evictions.Add(1)
		case n.dead():
			m.invalidations.Add(1)
		default:
			m.expirations.Add(1)
		}
		m.dispose(n)
		return true
	}
	return false
}

// Close drops all entries. Intents need no release any more.
func (m *Memory) Close() error {
	m.closed.Store(true)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.closed = true
		var nodes []*node
		for i := range s.queues {
			for s.queues[i].oldest != nil {
				n := s.queues[i].oldest
				s.drop(n)
				nodes = append(nodes, n)
			}
		}
		if t := s.table.Swap(nil); t != nil {
			m.bytes.Add(-int64(len(t.buckets)) * bucketBytes)
		}
		s.count = 0
		s.mu.Unlock()
		for _, n := range nodes {
			m.dispose(n)
		}
	}
	return nil
}

// MemoryStats says what a Memory holds and what became of its entries.
type MemoryStats struct {
	Entries   int
	Bytes     int64 // of entries, tags and bookkeeping, as bounded by Options.Bytes
	Tags      int   // tags with a stamp or an intent
	DirtyTags int   // tags with an intent

	Fills         uint64 // entries stored
	Dropped       uint64 // entries not stored: a stamp had moved, or too large
	Evictions     uint64 // valid entries removed for space
	Expirations   uint64 // entries removed for age
	Invalidations uint64 // entries removed because a stamp moved
}

// Stats returns the state at about this moment; the numbers need not be of one
// instant.
func (m *Memory) Stats() MemoryStats {
	dirty := int(m.dirtyTags.Load())
	return MemoryStats{
		Entries:       int(m.entries.Load()),
		Bytes:         m.bytes.Load(),
		Tags:          int(m.cleanTags.Load()) + dirty,
		DirtyTags:     dirty,
		Fills:         m.fills.Load(),
		Dropped:       m.dropped.Load(),
		Evictions:     m.evictions.Load(),
		Expirations:   m.expirations.Load(),
		Invalidations: m.invalidations.Load(),
	}
}

// columnSets counts the entries that have the same description of their columns, whose
// memory is accounted once.
type columnSets struct {
	mu   sync.Mutex // guards refs
	refs map[*Column]int
}

// take counts an entry in, and returns the bytes that it adds.
func (c *columnSets) take(columns []Column) int64 {
	if len(columns) == 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refs == nil {
		c.refs = make(map[*Column]int)
	}
	c.refs[&columns[0]]++
	if c.refs[&columns[0]] > 1 {
		return 0
	}
	return columnsSize(columns)
}

// drop counts an entry out, and returns the bytes that are free.
func (c *columnSets) drop(columns []Column) int64 {
	if len(columns) == 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refs[&columns[0]]--; c.refs[&columns[0]] > 0 {
		return 0
	}
	delete(c.refs, &columns[0])
	return columnsSize(columns)
}

func columnsSize(columns []Column) int64 {
	size := allocated(int64(len(columns) * columnBytes))
	for i := range columns {
		size += allocated(int64(len(columns[i].Name)))
	}
	return size + setBytes
}

// setBytes is what a place in columnSets takes.
const setBytes = 40
