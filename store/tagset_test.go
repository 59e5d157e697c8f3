package store

import (
	"slices"
	"testing"
)

func row(n uint64) Tag { return Tag{Relation: uint32(n % 3), Kind: TagRow, Index: 7, Value: n} }

// TestATagSetHasEachTagOnce compares a set with a list that is searched, below and above the length
// from which on there is a map.
func TestATagSetHasEachTagOnce(t *testing.T) {
	for _, n := range []int{0, 1, 5, shortTagSet - 1, shortTagSet, shortTagSet + 1, 3 * shortTagSet} {
		var s TagSet
		var want []Tag
		for i := range n {
			s.Add(row(uint64(i)), row(uint64(i/2)))
			for _, tag := range []Tag{row(uint64(i)), row(uint64(i / 2))} {
				if !slices.Contains(want, tag) {
					want = append(want, tag)
				}
			}
		}
		check := func(what string) {
			t.Helper()
			if !slices.Equal(s.Tags(), want) || s.Len() != len(want) {
				t.Errorf("%d added, %s: got %v, want %v", n, what, s.Tags(), want)
			}
			for i := range n {
				if got := s.Has(row(uint64(i))); got != slices.Contains(want, row(uint64(i))) {
					t.Errorf("%d added, %s: has %d: %v", n, what, i, got)
				}
			}
		}
		check("all")
		last := want[n/2:]
		s.Truncate(n / 2)
		want = slices.Clone(want[:n/2])
		check("truncated")
		last = slices.Clone(last)
		s.Add(last...)
		want = append(want, last...)
		check("added again")
	}
}

func TestATagSetIsWidened(t *testing.T) {
	for _, n := range []int{4, 2 * shortTagSet} {
		var s TagSet
		s.Add(Tag{Relation: 1, Kind: TagTable})
		for i := range n {
			s.Add(row(uint64(i)))
		}
		s.Add(Tag{Kind: TagSchema})
		s.Widen()
		want := []Tag{{Relation: 1, Kind: TagTable}, {Relation: 0, Kind: TagRows, Index: 7}, {Relation: 1, Kind: TagRows, Index: 7},
			{Relation: 2, Kind: TagRows, Index: 7}, {Kind: TagSchema}}
		if !slices.Equal(s.Tags(), want) {
			t.Errorf("got %v, want %v", s.Tags(), want)
		}
	}
}

func TestATagSetUsesItsRoom(t *testing.T) {
	room := make([]Tag, 0, 16)
	if n := testing.AllocsPerRun(100, func() {
		s := NewTagSet(room)
		for i := range 10 {
			s.Add(row(uint64(i)))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTagsAreRemoved(t *testing.T) {
	for _, n := range []int{0, 1, 5, shortTagSet - 1, shortTagSet, 3 * shortTagSet} {
		var s TagSet
		var even, odd []Tag
		for i := range n {
			s.Add(row(uint64(i)))
			if i%2 == 0 {
				even = append(even, row(uint64(i)))
			} else {
				odd = append(odd, row(uint64(i)))
			}
		}
		if got := s.Remove(n/2, append(even, row(1<<40))...); got != (n/2+1)/2 {
			t.Errorf("%d of the first %d of %d tags were removed", got, n/2, n)
		}
		if !slices.Equal(s.Tags(), odd) || len(even) > 0 && s.Has(even[0]) || len(odd) > 0 && !s.Has(odd[0]) {
			t.Errorf("%d tags, the even ones removed: %v", n, s.Tags())
		}
		if s.Add(even...); s.Len() != n {
			t.Errorf("added again: %d tags of %d", s.Len(), n)
		}
	}
}
