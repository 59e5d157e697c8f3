package store

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// stamps is the last stamp given out. It starts at random, so that a stamp is
// unique in this process for certain and, in all likelihood, among processes.
var stamps atomic.Uint64

func init() { stamps.Store(rand.Uint64()) }

// nextStamp returns a stamp that was never returned before (I6).
func nextStamp() Stamp {
	for {
		if s := stamps.Add(1); s != 0 {
			return Stamp(s)
		}
	}
}

// cell is one life of a tag: from the minting of a stamp to the intent, release
// or eviction that ends it. A tag that gets a new stamp gets a new cell, so a
// dead cell stays dead and its stamp is never restored (I5, I7). An entry holds
// the cells that it was filled with; it is valid while all are alive.
type cell struct {
	dead atomic.Bool
	kind TagKind // of the tag, whose other fields follow without a gap
	refs int32   // nodes that hold the cell; guarded by tagShard.mu

	stamp    Stamp
	relation uint32
	index    uint32
	value    uint64

	// idle list of tagShard, while the cell is alive and refs is zero
	prev, next *cell
}

func newCell(t Tag) *cell {
	return &cell{stamp: nextStamp(), kind: t.Kind, relation: t.Relation, index: t.Index, value: t.Value}
}

func (c *cell) tag() Tag {
	return Tag{Relation: c.relation, Kind: c.kind, Index: c.index, Value: c.value}
}

// What a tag costs, in bytes: measured, with the share of the map that holds it
// (TestMemoryAccountsHonestly).
const (
	cellObject = int64(unsafe.Sizeof(cell{}))
	slotBytes  = int64(unsafe.Sizeof((*cell)(nil))) // in tagShard.clean
	dirtySlot  = 112 + 16                           // in tagShard.dirty, and the first writer
	writerSize = int64(unsafe.Sizeof(WriterID{}))
)

// tagShard holds some of the tags. A tag is in clean, or in dirty, or unknown.
// Hits never come here: they look at the cells that the entry holds.
type tagShard struct {
	mu    sync.Mutex
	clean cellSet
	dirty map[Tag][]WriterID // the writers with an intent, never empty
	idle  cell               // ring of cells that no entry uses, oldest at idle.next
	_     [64]byte
}

func (s *tagShard) init() {
	s.dirty = make(map[Tag][]WriterID)
	s.idle.prev, s.idle.next = &s.idle, &s.idle
}

func (m *Memory) tagShard(t Tag) *tagShard {
	return &m.tags[t.hash()>>48&uint64(len(m.tags)-1)]
}

// stampOf returns the tag's stamp, minted if it has none; zero if it is dirty (I3).
func (m *Memory) stampOf(t Tag) Stamp {
	s := m.tagShard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clean.get(t); c != nil {
		if c.prev != nil { // idle: someone is about to fill with it
			m.unlinkIdle(c)
			m.linkIdle(s, c)
		}
		return c.stamp
	}
	if _, ok := s.dirty[t]; ok {
		return 0
	}
	c := newCell(t)
	m.bytes.Add(cellObject + slotBytes*int64(s.clean.add(c)))
	m.cleanTags.Add(1)
	m.linkIdle(s, c)
	return c.stamp
}

// acquire returns the cells of the tags for an entry to hold, or false if one
// of them does not have the stamp any more: such an entry can never be a hit.
func (m *Memory) acquire(tags []Tag, stamps []Stamp) ([]*cell, bool) {
	cells := make([]*cell, 0, len(tags))
	for i, t := range tags {
		s := m.tagShard(t)
		s.mu.Lock()
		c := s.clean.get(t)
		if c == nil || c.stamp != stamps[i] {
			s.mu.Unlock()
			m.unref(cells)
			return nil, false
		}
		c.refs++
		m.unlinkIdle(c)
		s.mu.Unlock()
		cells = append(cells, c)
	}
	return cells, true
}

// unref gives back cells that acquire returned.
func (m *Memory) unref(cells []*cell) {
	for _, c := range cells {
		s := m.tagShard(c.tag())
		s.mu.Lock()
		c.refs--
		if c.refs == 0 {
			if c.dead.Load() {
				m.bytes.Add(-cellObject)
			} else {
				m.linkIdle(s, c)
			}
		}
		s.mu.Unlock()
	}
}

// killLocked ends the life of the tag's cell, if it has one. Every entry that
// holds it is stale from here on.
func (m *Memory) killLocked(s *tagShard, t Tag) {
	c := s.clean.get(t)
	if c == nil {
		return
	}
	c.dead.Store(true)
	m.unlinkIdle(c)
	freed := -slotBytes * int64(s.clean.remove(t))
	m.cleanTags.Add(-1)
	if c.refs == 0 {
		freed += cellObject
	}
	m.bytes.Add(-freed)
}

// intend adds the writer to the tag's intents (I2, I3).
func (m *Memory) intend(w WriterID, t Tag) {
	s := m.tagShard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.killLocked(s, t)
	writers := s.dirty[t]
	if slices.Contains(writers, w) {
		return
	}
	if len(writers) == 0 {
		m.dirtyTags.Add(1)
		m.bytes.Add(dirtySlot)
	} else {
		m.bytes.Add(writerSize)
	}
	s.dirty[t] = append(writers, w)
}

// release drops the writer from the tag's intents. The new stamp is minted by
// the next Lookup that wants it: no old one is left (I5).
func (m *Memory) release(w WriterID, t Tag) {
	s := m.tagShard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.killLocked(s, t)
	writers := s.dirty[t]
	i := slices.Index(writers, w)
	if i < 0 {
		return
	}
	if len(writers) == 1 {
		delete(s.dirty, t)
		m.dirtyTags.Add(-1)
		m.bytes.Add(-dirtySlot)
		return
	}
	s.dirty[t] = slices.Delete(writers, i, i+1)
	m.bytes.Add(-writerSize)
}

// linkIdle makes c the youngest idle cell. The cell of the schema tag is never
// idle: every entry depends on it, and a new stamp would tell everybody to
// reload the catalog.
func (m *Memory) linkIdle(s *tagShard, c *cell) {
	if c.kind == TagSchema {
		return
	}
	c.prev, c.next = s.idle.prev, &s.idle
	c.prev.next, c.next.prev = c, c
	m.idleTags.Add(1)
}

func (m *Memory) unlinkIdle(c *cell) {
	if c.prev == nil {
		return
	}
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	m.idleTags.Add(-1)
}

// evictTag kills the oldest idle cell of some shard. Dirty tags are no cells
// and never come up (I7).
func (m *Memory) evictTag() bool {
	for range m.tags {
		s := &m.tags[m.tagHand.Add(1)&uint32(len(m.tags)-1)]
		s.mu.Lock()
		c := s.idle.next
		found := c != &s.idle
		if found {
			m.killLocked(s, c.tag())
		}
		s.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}
