package store

import (
	"math/rand/v2"
	"testing"
)

// TestCellSet compares a set with a map while tags come and go.
func TestCellSet(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var s cellSet
	want := make(map[Tag]*cell)
	slots := 0
	for step := range 200_000 {
		most := []int{10, 5000, 50}[step/70_000]
		tag := Tag{Relation: r.Uint32N(3), Kind: TagKind(r.IntN(3)), Index: r.Uint32N(2), Value: uint64(r.IntN(1000))}
		switch c := want[tag]; {
		case s.get(tag) != c:
			t.Fatalf("step %d: %v is found as %p, want %p", step, tag, s.get(tag), c)
		case c == nil && len(want) < most:
			c = newCell(tag)
			want[tag] = c
			slots += s.add(c)
		case c != nil && (len(want) > most || r.IntN(3) == 0):
			delete(want, tag)
			slots += s.remove(tag)
		}
		if s.count != len(want) || slots != len(s.slots)-minCells && s.slots != nil {
			t.Fatalf("step %d: %d cells in %d slots, want %d in %d", step, s.count, len(s.slots), len(want), slots)
		}
	}
	for tag, c := range want {
		if s.get(tag) != c {
			t.Errorf("%v is lost", tag)
		}
	}
	if len(s.slots) > 1024 {
		t.Errorf("%d slots for %d cells", len(s.slots), s.count)
	}
}
