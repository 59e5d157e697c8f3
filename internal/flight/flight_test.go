package flight

import (
	"testing"

	"github.com/cachedpg/cachedpg/store"
)

// DBs of one process may have limits of their own.
func TestWhatIsTooLargeForOneIsNotForAnother(t *testing.T) {
	var o Oversize
	key := store.Key{1}
	if o.Has(key, 1) {
		t.Error("nothing was too large yet")
	}
	o.Add(key, 100)
	for size, want := range map[int64]bool{1: true, 100: true, 101: false} {
		if o.Has(key, size) != want {
			t.Errorf("over a limit of %d: %v, want %v", size, !want, want)
		}
	}
	for i := range 3 * maxOversize {
		o.Add(store.Key{2, byte(i), byte(i >> 8)}, 100)
	}
	if n := len(o.young) + len(o.old); n > 2*maxOversize {
		t.Errorf("%d keys are remembered", n)
	}
}

// One process must not wait for itself: of those who miss at once one has what makes others Busy, and it may be one who
// follows. To give it up would look to other processes as if the SELECT had failed.
func TestWhoeverOthersWaitForRunsTheSelect(t *testing.T) {
	var fs Group
	key, stamps := store.Key{1}, []store.Stamp{1}
	leading, _ := fs.Join(key, stamps, 0, true)
	following, leads := fs.Join(key, stamps, 0, false)
	if leads || !following.Takes() || following.Takes() {
		t.Fatal("want one of those who follow to run the SELECT")
	}
	leading.Leave(t.Context()) // it has waited in vain
	if again, leads := fs.Join(key, stamps, 0, false); leads || again.Takes() {
		t.Error("it runs still, in the flight")
	}
	following.Land(Landing{Entry: &store.Entry{Rows: 1}})
	following.Leave(t.Context())
	if leading.Landed.Entry == nil {
		t.Error("who follows gets nothing of it")
	}

	alone, _ := fs.Join(key, stamps, 0, true)
	alone.Begins() // the other process takes too long
	if follows, leads := fs.Join(key, stamps, 0, false); leads || follows.Takes() {
		t.Error("the one who leads runs the SELECT himself")
	}
	alone.Leave(t.Context())
}
