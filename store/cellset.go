package store

// cellSet finds the live cells of a shard by their tags: a hash table with linear
// probing, which takes a pointer and a little for each. It is guarded by tagShard.mu.
type cellSet struct {
	slots []*cell // at most three quarters of them taken
	count int
}

const minCells = 16

// place spreads hashes evenly over n places, which need be no power of two: tables grow by
// half, and so have fewer empty ones.
func place(hash uint64, n int) int { return int(uint64(uint32(hash)) * uint64(n) >> 32) }

// hash spreads a tag. Its upper bits choose the shard, the lower ones the slot.
func (t Tag) hash() uint64 {
	h := (uint64(t.Relation)<<32 | uint64(t.Index)) ^ uint64(t.Kind)<<24 ^ uint64(t.Part)<<20
	h = (h ^ h>>29) * 0xbf58476d1ce4e5b9
	h = (h ^ t.Value) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// find returns the slot of the tag, or the empty one where its cell would go.
func (s *cellSet) find(t Tag) int {
	i := place(t.hash(), len(s.slots))
	for s.slots[i] != nil && s.slots[i].tag() != t {
		i = s.after(i)
	}
	return i
}

func (s *cellSet) after(i int) int {
	if i++; i < len(s.slots) {
		return i
	}
	return 0
}

// probed is how far the slot is from where a cell would be without the others.
func (s *cellSet) probed(c *cell, slot int) int {
	if d := slot - place(c.tag().hash(), len(s.slots)); d >= 0 {
		return d
	} else {
		return d + len(s.slots)
	}
}

// get returns the cell of the tag, or nil.
func (s *cellSet) get(t Tag) *cell {
	if s.count == 0 {
		return nil
	}
	return s.slots[s.find(t)]
}

// add puts a cell in whose tag has none, and returns by how many slots the table grew
// over the first minCells.
func (s *cellSet) add(c *cell) (grown int) {
	if 4*(s.count+1) > 3*len(s.slots) {
		grown = s.resize(max(minCells, len(s.slots)*3/2))
	}
	s.slots[s.find(c.tag())] = c
	s.count++
	return grown
}

// remove takes the tag's cell out, and returns by how many slots the table grew, which
// is negative after a burst of tags.
func (s *cellSet) remove(t Tag) (grown int) {
	hole := s.find(t)
	// What probed past the hole moves into it, so that it is found again.
	past := 1
	for i := s.after(hole); s.slots[i] != nil; i = s.after(i) {
		if s.probed(s.slots[i], i) >= past {
			s.slots[hole], hole, past = s.slots[i], i, 0
		}
		past++
	}
	s.slots[hole] = nil
	s.count--
	if len(s.slots) > minCells && 8*s.count < len(s.slots) {
		return s.resize(max(minCells, 2*s.count))
	}
	return 0
}

func (s *cellSet) resize(size int) (grown int) {
	old := s.slots
	s.slots = make([]*cell, size)
	for _, c := range old {
		if c != nil {
			s.slots[s.find(c.tag())] = c
		}
	}
	return size - max(len(old), minCells)
}
