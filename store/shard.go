package store

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// node is a stored entry, in one object with what is kept of it: a hit reads little else. What
// has no other guard is immutable once the node is in a table.
type node struct {
	key   Key
	entry Entry                // its Expires is on Memory.now, 0 is never
	cells [3]*cell             // of what it depends on, nil at the end where there are fewer
	more  *[]*cell             // the rest, for the few that depend on more
	chain atomic.Pointer[node] // the next in the bucket
	freq  atomic.Uint32        // hits since the last look of eviction, up to maxFreq
	in    queueID              // the queue it is in; guarded by shard.mu, as are
	prev  *node                // its neighbours there
	next  *node
}

// deps are the cells of what the entry depends on.
func (n *node) deps(yield func(*cell) bool) {
	for _, c := range n.cells[:] {
		if c != nil && !yield(c) {
			return
		}
	}
	if n.more == nil {
		return
	}
	for _, c := range *n.more {
		if c != nil && !yield(c) {
			return
		}
	}
}

// size is the memory that the node takes, without the descriptions of its columns, which
// entries share.
func (n *node) size() int64 {
	tags := len(n.cells)
	if n.more != nil {
		tags += len(*n.more)
	}
	return nodeSize(tags, len(n.entry.Data))
}

// nodeSize is that of one with so many tags, and so much data.
func nodeSize(tags, data int) int64 {
	size := nodeBytes + allocated(int64(data))
	if more := tags - len(node{}.cells); more > 0 {
		size += moreBytes + allocated(int64(more)*depBytes)
	}
	return size
}

// allocated is what Go's allocator takes for n bytes, within a few percent.
func allocated(n int64) int64 {
	unit := int64(8)
	switch {
	case n > 32<<10:
		unit = 8 << 10 // pages
	case n > 128:
		unit = 1 << (bits.Len64(uint64(n-1)) - 4)
	case n > 24:
		unit = 16
	}
	return (n + unit - 1) / unit * unit
}

const (
	maxFreq     = 3
	nodeBytes   = int64(unsafe.Sizeof(node{}))
	depBytes    = int64(unsafe.Sizeof((*cell)(nil)))
	moreBytes   = int64(unsafe.Sizeof([]*cell(nil)))
	bucketBytes = int64(unsafe.Sizeof((*node)(nil)) + unsafe.Sizeof(uint32(0)))
	minBuckets  = 8
)

// valid reports whether all tags of the entry have the stamps that it was filled with, and
// no intent, as far as that can be told by looking at one after the other: see Memory.valid.
func (n *node) valid() bool {
	for _, c := range n.cells[:] {
		if c == nil { // the last ones, and there are no more
			return true
		}
		if !c.alive() {
			return false
		}
	}
	return n.more == nil || allAlive(*n.more)
}

func allAlive(cells []*cell) bool {
	for _, c := range cells {
		if !c.alive() {
			return false
		}
	}
	return true
}

// dead reports that the entry can never be a hit again.
func (n *node) dead() bool {
	for c := range n.deps {
		if c.dead() {
			return true
		}
	}
	return false
}

// touch counts a hit. It stops writing at maxFreq, so that a hot entry's cache
// line stays shared among the processors.
func (n *node) touch() {
	if f := n.freq.Load(); f < maxFreq {
		n.freq.CompareAndSwap(f, f+1)
	}
}

// shard holds some of the entries: a hash table that is read without locks, and
// the two queues of S3-FIFO (Yang et al., SOSP 2023) that say what to evict. An
// entry starts in small; one that is hit there moves to main, so that a scan
// passes through without pushing out what is in use. ghosts remember keys that
// left lately; they start in main when they come back.
type shard struct {
	table atomic.Pointer[table]
	_     [56]byte

	mu     sync.Mutex
	count  int
	queues [3]queue // by queueID; the first stays empty
	closed bool
	_      [16]byte
}

// table is a hash table with chains through the nodes. Writers hold shard.mu.
// Readers hold nothing: a reader that meets a resize may be led into another
// bucket's chain and find nothing, which is a miss and no harm. Chains are
// finite at any moment and change only towards nodes linked later, so every
// reader comes to an end.
type table struct {
	mask    uint64
	buckets []atomic.Pointer[node]
	ghosts  []uint32 // fingerprints of keys, by bucket; newer replaces older
}

// hash spreads a key over shards (upper bits) and buckets (lower bits). Keys
// are digests already; mixing all of it costs nothing and forgives others.
func (k *Key) hash() uint64 {
	h := binary.LittleEndian.Uint64(k[0:]) ^
		bits.RotateLeft64(binary.LittleEndian.Uint64(k[8:]), 17) ^
		bits.RotateLeft64(binary.LittleEndian.Uint64(k[16:]), 31) ^
		bits.RotateLeft64(binary.LittleEndian.Uint64(k[24:]), 47)
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func fingerprint(h uint64) uint32 { return uint32(h>>24) | 1 }

func (s *shard) find(key *Key, h uint64) *node {
	t := s.table.Load()
	if t == nil {
		return nil
	}
	for n := t.buckets[h&t.mask].Load(); n != nil; n = n.chain.Load() {
		if n.key == *key {
			return n
		}
	}
	return nil
}

// insert adds n, and returns the node that it replaces, if any, and the bytes
// by which the table grew. It reports false if the shard is closed.
func (s *shard) insert(n *node, h uint64) (old *node, grown int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, false
	}
	to := inSmall
	if old = s.find(&n.key, h); old != nil {
		n.freq.Store(old.freq.Load())
		to = old.in
		s.removeLocked(old, h)
	}
	if t := s.table.Load(); t == nil || s.count >= len(t.buckets) {
		grown = s.resizeLocked(max(minBuckets, 2*s.count))
	}
	t := s.table.Load()
	if g := &t.ghosts[h&t.mask]; *g == fingerprint(h) {
		*g, to = 0, inMain
	}
	b := &t.buckets[h&t.mask]
	n.chain.Store(b.Load())
	b.Store(n)
	s.push(to, n)
	s.count++
	return old, grown, true
}

// remove takes n out and reports whether it was still there. again says that
// its key was just asked for, so that the refill goes to main.
func (s *shard) remove(n *node, h uint64, again bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.in == inNone {
		return false
	}
	s.removeLocked(n, h)
	if again {
		s.rememberLocked(h)
	}
	return true
}

func (s *shard) removeLocked(n *node, h uint64) {
	t := s.table.Load()
	link := &t.buckets[h&t.mask]
	for link.Load() != n {
		link = &link.Load().chain
	}
	// n keeps its own link: a reader that stands on n goes on from there.
	link.Store(n.chain.Load())
	s.drop(n)
	s.count--
}

func (s *shard) rememberLocked(h uint64) {
	t := s.table.Load()
	t.ghosts[h&t.mask] = fingerprint(h)
}

// resizeLocked relinks all nodes into a new table of the given size, a power of
// two. The new chains grow at their heads and hold relinked nodes only, so a reader
// that crosses over from an old chain walks towards nodes relinked before.
func (s *shard) resizeLocked(size int) (grown int64) {
	size = 1 << bits.Len(uint(size-1))
	t := &table{
		mask:    uint64(size - 1),
		buckets: make([]atomic.Pointer[node], size),
		ghosts:  make([]uint32, size),
	}
	if old := s.table.Load(); old != nil {
		grown = -int64(len(old.buckets)) * bucketBytes
	}
	for _, q := range s.queues {
		for n := q.newest; n != nil; n = n.next {
			b := &t.buckets[n.key.hash()&t.mask]
			n.chain.Store(b.Load())
			b.Store(n)
		}
	}
	s.table.Store(t)
	return grown + int64(size)*bucketBytes
}

// evict takes out the entry that is worth least: stale or expired ones first
// among those it comes across, else by S3-FIFO. It returns nil if there is
// none. invalid says that the entry could not have been a hit any more.
func (s *shard) evict(now Moment) (victim *node, invalid bool, grown int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Hits may raise freq as fast as this lowers it; the bound ends that race.
	for spared := 0; ; {
		from := inMain
		if small, main := &s.queues[inSmall], &s.queues[inMain]; small.bytes > (small.bytes+main.bytes)/10 || main.oldest == nil {
			from = inSmall
		}
		n := s.queues[from].oldest
		if n == nil {
			return nil, false, 0
		}
		h := n.key.hash()
		invalid = n.dead() || n.expired(now)
		freq := n.freq.Load()
		switch {
		case invalid || spared > 256:
		case from == inSmall && freq > 1:
			n.freq.Store(0)
			s.drop(n)
			s.push(inMain, n)
			spared++
			continue
		case from == inMain && freq > 0:
			n.freq.Store(freq - 1)
			s.drop(n)
			s.push(inMain, n)
			spared++
			continue
		}
		s.removeLocked(n, h)
		if from == inSmall && !invalid {
			s.rememberLocked(h)
		}
		if t := s.table.Load(); len(t.buckets) > minBuckets && s.count < len(t.buckets)/8 {
			grown = s.resizeLocked(max(minBuckets, 2*s.count))
		}
		return n, invalid, grown
	}
}

func (n *node) expired(now Moment) bool {
	return n.entry.Expires != 0 && now >= n.entry.Expires
}

// queueID names a queue of a shard.
type queueID uint8

const (
	inNone queueID = iota
	inSmall
	inMain
)

// queue is a list of nodes in the order in which they came.
type queue struct {
	newest, oldest *node
	bytes          int64
}

func (s *shard) push(to queueID, n *node) {
	q := &s.queues[to]
	n.in, n.prev, n.next = to, nil, q.newest
	if q.newest != nil {
		q.newest.prev = n
	} else {
		q.oldest = n
	}
	q.newest = n
	q.bytes += n.size()
}

func (s *shard) drop(n *node) {
	q := &s.queues[n.in]
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		q.newest = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		q.oldest = n.prev
	}
	n.in, n.prev, n.next = inNone, nil, nil
	q.bytes -= n.size()
}
