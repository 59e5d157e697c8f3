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
	dead  atomic.Bool
	refs  int32 // nodes that hold the cell; guarded by tagShard.mu
	stamp Stamp
	tag   Tag

	// idle list of tagShard, while the cell is alive and refs is zero
	prev, next *cell
}

// What a tag costs, in bytes: measured, with the share of the map that holds it
// (TestMemoryAccountsHonestly).
const (
	cellObject = int64(unsafe.Sizeof(cell{})) + 8 // size class 64
	cellSlot   = 76                               // in tagShard.clean
	dirtySlot  = 112 + 16                         // in tagShard.dirty, and the first writer
	writerSize = int64(unsafe.Sizeof(WriterID{}))
)

// tagShard holds some of the tags. A tag is in clean, or in dirty, or unknown.
// Hits never come here: they look at the cells that the entry holds.
type tagShard struct {
	mu    sync.Mutex
	clean map[Tag]*cell
	dirty map[Tag][]WriterID // the writers with an intent, never empty
	idle  cell               // ring of cells that no entry uses, oldest at idle.next
	peak  int                // of len(clean) since the map was made
	_     [64]byte
}

func (s *tagShard) init() {
	s.clean = make(map[Tag]*cell)
	s.dirty = make(map[Tag][]WriterID)
	s.idle.prev, s.idle.next = &s.idle, &s.idle
}

func (m *Memory) tagShard(t Tag) *tagShard {
	h := (uint64(t.Relation)<<32 | uint64(t.Index)) ^ uint64(t.Kind)<<24 ^ t.Value
	h *= 0x9e3779b97f4a7c15
	return &m.tags[h>>32&uint64(len(m.tags)-1)]
}

// stampOf returns the tag's stamp, minted if it has none; zero if it is dirty (I3).
func (m *Memory) stampOf(t Tag) Stamp {
	s := m.tagShard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clean[t]; c != nil {
		if c.prev != nil { // idle: someone is about to fill with it
			m.unlinkIdle(c)
			m.linkIdle(s, c)
		}
		return c.stamp
	}
	if _, ok := s.dirty[t]; ok {
		return 0
	}
	c := &cell{stamp: nextStamp(), tag: t}
	s.clean[t] = c
	s.peak = max(s.peak, len(s.clean))
	m.bytes.Add(cellObject + cellSlot)
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
		c := s.clean[t]
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
		s := m.tagShard(c.tag)
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
	c := s.clean[t]
	if c == nil {
		return
	}
	c.dead.Store(true)
	m.unlinkIdle(c)
	delete(s.clean, t)
	m.cleanTags.Add(-1)
	freed := int64(cellSlot)
	if c.refs == 0 {
		freed += cellObject
	}
	m.bytes.Add(-freed)

	// A Go map does not shrink. After a burst of tags, make a smaller one.
	if s.peak > 1024 && len(s.clean) < s.peak/8 {
		clean := make(map[Tag]*cell, len(s.clean))
		for t, c := range s.clean {
			clean[t] = c
		}
		s.clean, s.peak = clean, len(clean)
	}
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
	if c.tag.Kind == TagSchema {
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
			m.killLocked(s, c.tag)
		}
		s.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}
