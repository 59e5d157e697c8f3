package invalidation

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// I10
func TestGenerationsWaitForTheOlder(t *testing.T) {
	g := NewGenerations()
	fired := func(generation uint64) *atomic.Bool {
		b := new(atomic.Bool)
		g.WhenOlderLeft(generation, func() {
			if b.Swap(true) {
				t.Error("called twice")
			}
		})
		return b
	}
	want := func(when string, b *atomic.Bool, want bool) {
		t.Helper()
		if b.Load() != want {
			t.Errorf("%s: fired is %v", when, !want)
		}
	}

	first := g.Current()
	a, b := g.Enter(), g.Enter()
	if second := g.Advance(); second <= first || g.Current() != second {
		t.Errorf("generation %d after %d", second, first)
	}
	w2 := fired(g.Current())
	c := g.Enter() // not older: w2 does not wait for it
	w3 := fired(g.Advance())
	d := g.Enter()
	w3b := fired(g.Current())

	want("two older inside", w2, false)
	a()
	want("one older inside", w2, false)
	c() // a newer generation leaves first
	want("one older inside", w2, false)
	want("one older inside", w3, false)
	b()
	want("all older left", w2, true)
	want("all older left", w3, true)
	want("all older left", w3b, true)
	want("d is inside", fired(g.Advance()), false)
	d()
	want("nobody is inside", fired(g.Advance()), true)
}

// The oldest leave, and a release that waits for others as well still waits.
func TestGenerationsFireInTheirTurn(t *testing.T) {
	g := NewGenerations()
	fired := 0
	a := g.Enter()
	g.WhenOlderLeft(g.Advance(), func() { fired++ })
	b := g.Enter()
	g.WhenOlderLeft(g.Advance(), func() { fired++ })
	if a(); fired != 1 {
		t.Errorf("%d released, want the first", fired)
	}
	if b(); fired != 2 {
		t.Errorf("%d released, want both", fired)
	}
}

// Each DDL waits for those who are older than itself, and not for one another.
func TestGenerationsOfTwoDDLs(t *testing.T) {
	g := NewGenerations()
	var order []string
	ddl1, ddl2 := g.Enter(), g.Enter()
	n := g.Advance()
	ddl1()
	g.WhenOlderLeft(n, func() { order = append(order, "first") })
	if len(order) != 0 {
		t.Error("the first did not wait for the second, which may have planned before")
	}
	n = g.Advance()
	ddl2()
	g.WhenOlderLeft(n, func() { order = append(order, "second") })
	if len(order) != 2 || order[0] != "first" {
		t.Errorf("released: %v", order)
	}
}

// What waits may use the Generations itself.
func TestGenerationsCallBack(t *testing.T) {
	g := NewGenerations()
	leave := g.Enter()
	done := false
	g.WhenOlderLeft(g.Advance(), func() {
		g.Enter()()
		g.WhenOlderLeft(g.Advance(), func() { done = true })
	})
	leave()
	if !done {
		t.Error("not called")
	}
}

func TestGenerationsLeaveTwicePanics(t *testing.T) {
	g := NewGenerations()
	leave := g.Enter()
	leave()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	leave()
}

func TestGenerationsDoNotAllocate(t *testing.T) {
	g := NewGenerations()
	if n := testing.AllocsPerRun(100, func() { g.Enter()() }); n != 0 {
		t.Errorf("Enter and leave allocate %v times", n)
	}
}

// No release comes while someone older is inside, and every one comes.
func TestGenerationsConcurrently(t *testing.T) {
	g := NewGenerations()
	var mu sync.Mutex
	inside := map[uint64]int{} // never fewer than really are inside
	var waits, fires atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				if r.IntN(10) == 0 {
					n := g.Advance()
					waits.Add(1)
					g.WhenOlderLeft(n, func() {
						fires.Add(1)
						mu.Lock()
						defer mu.Unlock()
						for generation, count := range inside {
							if generation < n && count > 0 {
								t.Errorf("released %d with %d of %d inside", n, count, generation)
							}
						}
					})
					continue
				}
				leave := g.Enter()
				mu.Lock()
				// Current may be newer than what was entered, never older.
				at := g.Current()
				inside[at]++
				mu.Unlock()
				mu.Lock()
				if inside[at]--; inside[at] == 0 {
					delete(inside, at)
				}
				mu.Unlock()
				leave()
			}
		})
	}
	group.Wait()
	if waits.Load() != fires.Load() {
		t.Errorf("%d waited, %d were called", waits.Load(), fires.Load())
	}
}

func BenchmarkGenerations(b *testing.B) {
	g := NewGenerations()
	b.ReportAllocs()
	for b.Loop() {
		g.Enter()()
	}
}
