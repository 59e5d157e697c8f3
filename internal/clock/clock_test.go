package clock

import (
	"sync"
	"testing"
)

func TestUsedEntriesSurviveAndTheLimitHolds(t *testing.T) {
	c := New[int, int](4)
	for i := range 4 {
		c.Add(i, i, 1)
	}
	for i := 100; i < 200; i++ {
		if v, ok := c.Get(2); !ok || v != 2 {
			t.Fatalf("entry 2, used before every Add, is gone at %d", i)
		}
		c.Add(i, i, 1)
	}
	n := 0
	c.All(func(int, int) bool { n++; return true })
	if n != 4 {
		t.Errorf("got %d entries, want 4", n)
	}
}

func TestAddKeepsTheFirstValue(t *testing.T) {
	c := New[string, int](2)
	c.Add("a", 1, 1)
	if got := c.Add("a", 2, 1); got != 1 {
		t.Errorf("second Add of a key returned %d, want the stored 1", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := New[int, int](8)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				k := i % 16
				c.Add(k, k, 1)
				if v, ok := c.Get(k); ok && v != k {
					t.Errorf("key %d has value %d", k, v)
				}
			}
		})
	}
	wg.Wait()
}

func TestGetDoesNotAllocate(t *testing.T) {
	c := New[string, int](2)
	c.Add("a", 1, 1)
	if n := testing.AllocsPerRun(100, func() { c.Get("a") }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func TestTheCostStaysBelowTheLimit(t *testing.T) {
	c := New[int, int](1000)
	for i := range 10000 {
		c.Add(i, i, int64(i%400))
		if got := c.Cost(); got > 1000 {
			t.Fatalf("entries cost %d after %d", got, i)
		}
		if _, ok := c.Get(i); ok != (i%400 <= 250) {
			t.Fatalf("%d, which costs %d, is stored: %v", i, i%400, ok)
		}
	}
	sum := 0
	c.All(func(k, _ int) bool { sum += k % 400; return true })
	if got := c.Cost(); int64(sum) != got {
		t.Errorf("entries cost %d, and Cost is %d", sum, got)
	}
}

// Of keys that come by turns, a quarter more than there is room for, Add finds none, and Keep most.
func TestKeepFindsWhatIsUsedByTurns(t *testing.T) {
	c := New[int, int](1000)
	found := 0
	for i := range 1250 * 8 {
		key := i % 1250
		if _, ok := c.Get(key); ok {
			found++
		}
		c.Keep(key, key, 1)
	}
	if found < 1250*7/2 {
		t.Errorf("%d of %d were found", found, 1250*7)
	}
	if c.Cost() > 1000 {
		t.Errorf("they cost %d", c.Cost())
	}
}
