package store

import "slices"

// TagSet is a list of tags in the order in which they were added, each of them once. The
// zero value is empty. It is not safe for concurrent use.
type TagSet struct {
	list []Tag
	seen map[Tag]struct{} // of list, once it is long; nil before
}

// shortTagSet is how many tags are searched faster one by one than in a map.
const shortTagSet = 128

// NewTagSet returns an empty set that uses the capacity of room.
func NewTagSet(room []Tag) TagSet { return TagSet{list: room[:0]} }

// Add adds tags that are not in the set yet.
func (s *TagSet) Add(tags ...Tag) {
	if s.list == nil {
		s.list = make([]Tag, 0, len(tags))
	}
	for _, t := range tags {
		if s.Has(t) {
			continue
		}
		s.list = append(s.list, t)
		switch {
		case s.seen != nil:
			s.seen[t] = struct{}{}
		case len(s.list) == shortTagSet:
			s.seen = make(map[Tag]struct{}, 2*shortTagSet)
			for _, t := range s.list {
				s.seen[t] = struct{}{}
			}
		}
	}
}

// Has reports that t is in the set.
func (s *TagSet) Has(t Tag) bool {
	if s.seen == nil {
		return slices.Contains(s.list, t)
	}
	_, ok := s.seen[t]
	return ok
}

// Len is how many tags there are.
func (s *TagSet) Len() int { return len(s.list) }

// Tags returns the tags. They are the set's own, and valid until it changes.
func (s *TagSet) Tags() []Tag { return s.list }

// Truncate takes out all but the first n.
func (s *TagSet) Truncate(n int) {
	if s.seen != nil {
		for _, t := range s.list[n:] {
			delete(s.seen, t)
		}
	}
	s.list = s.list[:n]
}

// Remove takes tags out, and returns how many of the first n of the set they were. The order of
// the others stays.
func (s *TagSet) Remove(n int, tags ...Tag) (removed int) {
	out := NewTagSet(make([]Tag, 0, len(tags)))
	out.Add(tags...)
	kept := s.list[:0]
	for i, t := range s.list {
		if !out.Has(t) {
			kept = append(kept, t)
			continue
		}
		if s.seen != nil {
			delete(s.seen, t)
		}
		if i < n {
			removed++
		}
	}
	s.list = kept
	return removed
}

// Widen makes of tags of single rows those of all rows of their keys, which are fewer.
func (s *TagSet) Widen() {
	wide := NewTagSet(s.list)
	for _, t := range s.list { // which wide overwrites as far as it was read
		if t.Kind == TagRow {
			t = Tag{Relation: t.Relation, Kind: TagRows, Part: t.Part, Index: t.Index}
		}
		wide.Add(t)
	}
	*s = wide
}
