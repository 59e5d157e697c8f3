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

// suspended is the bit of a cell's stamp that says that the tag is dirty. No stamp has it.
const suspended = 1 << 63

// nextStamp returns a stamp that was never returned before (I6).
func nextStamp() Stamp {
	for {
		if s := stamps.Add(1) &^ suspended; s != 0 {
			return Stamp(s)
		}
	}
}

// cell is one life of a tag: from the minting of a stamp to the release or eviction that
// ends it. A tag that gets a new stamp gets a new cell, so a dead cell stays dead and its
// stamp is never restored (I5, I7). An intent suspends it: it is alive again if whoever has
// an intent on the tag spares it (I27). An entry holds the cells that it was filled with; it
// is valid while all are alive.
type cell struct {
	stamp atomic.Uint64 // 0 once it is dead; changed with tagShard.mu held
	refs  int32         // nodes that hold the cell; guarded by tagShard.mu, as is
	used  bool          // since eviction has looked last

	kind     TagKind // of the tag, as are
	part     uint8
	relation uint32
	index    uint32
	value    uint64
}

func newCell(t Tag) *cell {
	c := &cell{used: true, kind: t.Kind, part: t.Part, relation: t.Relation, index: t.Index, value: t.Value}
	c.stamp.Store(uint64(nextStamp()))
	return c
}

func (c *cell) dead() bool { return c.stamp.Load() == 0 }

// alive reports that the cell is neither dead nor suspended.
func (c *cell) alive() bool { return int64(c.stamp.Load()) > 0 }

// idle reports that no entry uses the cell, which may go then. That of the schema tag is
// never idle: every entry depends on it, and a new stamp would tell everybody to reload
// the catalog.
func (c *cell) idle() bool { return c.refs == 0 && c.kind != TagSchema }

func (c *cell) tag() Tag {
	return Tag{Relation: c.relation, Kind: c.kind, Part: c.part, Index: c.index, Value: c.value}
}

// What a tag costs, in bytes: measured, with the share of the map that holds it
// (TestMemoryAccountsHonestly).
const (
	cellObject = int64(unsafe.Sizeof(cell{}))
	slotBytes  = int64(unsafe.Sizeof((*cell)(nil))) // in tagShard.clean
	dirtySlot  = 112 + 16                           // in tagShard.dirty, and the first writer
	writerSize = int64(unsafe.Sizeof(WriterID{}))
)

// tagShard holds some of the tags. A tag is in clean, or in dirty, or unknown. It is in both
// while its cell is suspended. Hits never come here: they look at the cells that the entry holds.
type tagShard struct {
	mu    sync.Mutex
	clean cellSet
	dirty map[Tag][]WriterID // the writers with an intent, never empty
	idle  int                // cells in clean that no entry uses
	hand  int                // the slot of clean at which eviction goes on
	_     [64]byte
}

// idles counts a cell that is alive and idle in or out.
func (m *Memory) idles(s *tagShard, c *cell, n int) {
	if c.idle() {
		s.idle += n
		m.idleTags.Add(int64(n))
	}
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
		if !c.alive() {
			return 0
		}
		c.used = true // someone is about to fill with it
		return Stamp(c.stamp.Load())
	}
	if _, ok := s.dirty[t]; ok {
		return 0
	}
	c := newCell(t)
	m.bytes.Add(cellObject + slotBytes*int64(s.clean.add(c)))
	m.cleanTags.Add(1)
	m.idles(s, c, 1)
	return Stamp(c.stamp.Load())
}

// acquire gives n, which has none yet, the cells of the tags to hold, or reports false if one
// of them does not have the stamp any more: such an entry can never be a hit. It may if the
// stamp is suspended.
func (m *Memory) acquire(n *node, tags []Tag, stamps []Stamp) bool {
	if more := len(tags) - len(n.cells); more > 0 {
		cells := make([]*cell, more)
		n.more = &cells
	}
	for i, t := range tags {
		s := m.tagShard(t)
		s.mu.Lock()
		c := s.clean.get(t)
		if c == nil || Stamp(c.stamp.Load()&^suspended) != stamps[i] {
			s.mu.Unlock()
			m.unref(n)
			return false
		}
		m.idles(s, c, -1)
		c.refs++
		s.mu.Unlock()
		if i < len(n.cells) {
			n.cells[i] = c
		} else {
			(*n.more)[i-len(n.cells)] = c
		}
	}
	return true
}

// unref gives back the cells that n holds.
func (m *Memory) unref(n *node) {
	for c := range n.deps {
		s := m.tagShard(c.tag())
		s.mu.Lock()
		if c.refs--; c.refs == 0 && c.dead() {
			m.bytes.Add(-cellObject)
		} else if c.refs == 0 {
			m.idles(s, c, 1)
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
	if c.alive() {
		m.cleanTags.Add(-1)
	}
	c.stamp.Store(0)
	m.idles(s, c, -1)
	freed := -slotBytes * int64(s.clean.remove(t))
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
	if c := s.clean.get(t); c != nil && c.alive() {
		c.stamp.Store(c.stamp.Load() | suspended)
		m.cleanTags.Add(-1)
	}
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
	m.dropLocked(s, w, t)
}

// spare drops the writer from the tag's intents. If it was the last of them, and nobody has
// released the tag meanwhile, the cell is still there and alive again (I27).
func (m *Memory) spare(w WriterID, t Tag) {
	s := m.tagShard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.spareLocked(s, w, t)
}

func (m *Memory) spareLocked(s *tagShard, w WriterID, t Tag) {
	if !m.dropLocked(s, w, t) {
		return
	}
	if c := s.clean.get(t); c != nil {
		c.stamp.Store(c.stamp.Load() &^ suspended)
		m.cleanTags.Add(1)
	}
}

// dropLocked drops the writer from the tag's intents, and reports that it was the last of them.
func (m *Memory) dropLocked(s *tagShard, w WriterID, t Tag) (last bool) {
	writers := s.dirty[t]
	i := slices.Index(writers, w)
	if i < 0 {
		return false
	}
	if len(writers) == 1 {
		delete(s.dirty, t)
		m.dirtyTags.Add(-1)
		m.bytes.Add(-dirtySlot)
		return true
	}
	s.dirty[t] = slices.Delete(writers, i, i+1)
	m.bytes.Add(-writerSize)
	return false
}

// evictTag kills an idle cell of some shard that was not used since the hand came by. Intents
// are no cells and never come up (I7).
func (m *Memory) evictTag() bool {
	for range m.tags {
		s := &m.tags[m.tagHand.Add(1)&uint32(len(m.tags)-1)]
		s.mu.Lock()
		c := s.victim()
		if c != nil {
			m.killLocked(s, c.tag())
		}
		s.mu.Unlock()
		if c != nil {
			return true
		}
	}
	return false
}

// victim returns the cell that is to go, or nil if none is idle.
func (s *tagShard) victim() *cell {
	for s.idle > 0 {
		if s.hand++; s.hand >= len(s.clean.slots) {
			s.hand = 0
		}
		switch c := s.clean.slots[s.hand]; {
		case c == nil || !c.idle():
		case c.used:
			c.used = false
		default:
			return c
		}
	}
	return nil
}
