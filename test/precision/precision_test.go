package precision

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// Every answer of the driver is PostgreSQL's at that moment. How many of the possible hits it has
// is printed, and no verdict.
func TestPrecision(t *testing.T) {
	var all []figures
	seed := newSeed()
	for _, storeName := range []string{"memory", "redis"} {
		for share := range strings.SplitSeq(*shares, ",") {
			writes, err := strconv.Atoi(share)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprintf("%s/%d%%", storeName, writes), func(t *testing.T) {
				w := newRun(t, storeName, seed, writes)
				if err := w.play(t.Context(), *operations); err != nil {
					t.Fatalf("%v\nagain: go test -run '^TestPrecision$' -precision.seed=%d -precision.writes=%d -precision.operations=%d ./test/precision",
						err, seed, writes, *operations)
				}
				f, err := w.counted(t.Context(), *operations)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("\n%s", f)
				if s := f.inconsistent(); s != "" {
					t.Errorf("counted what cannot be: %s", s)
				}
				all = append(all, f)
			})
		}
	}
	if *jsonFile != "" {
		if err := writeJSON(*jsonFile, all); err != nil {
			t.Error(err)
		}
	}
}

// With the store in memory a run is the same each time.
func TestTheSameSeedHasTheSameFigures(t *testing.T) {
	t.Parallel()
	var first figures
	for i := range 2 {
		w := newRun(t, "memory", 7, 20)
		if err := w.play(t.Context(), 300); err != nil {
			t.Fatal(err)
		}
		f, err := w.counted(t.Context(), 300)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = f
		} else if !reflect.DeepEqual(f, first) {
			t.Errorf("got\n%s\nand before\n%s", f, first)
		}
		if f.Total.Hits == 0 {
			t.Errorf("no hits:\n%s", f)
		}
	}
}

// What a commit leaves alone is most of what it does not change. docs/precision.md has the figures of longer runs; with the
// store in memory they depend on nothing but the rules.
func TestMostPossibleHitsAreHits(t *testing.T) {
	t.Parallel()
	w := newRun(t, "memory", 1, 10)
	if err := w.play(t.Context(), 2000); err != nil {
		t.Fatal(err)
	}
	f, err := w.counted(t.Context(), 2000)
	if err != nil {
		t.Fatal(err)
	}
	if f.Total.ratio() < 0.8 {
		t.Errorf("of the possible hits the driver has less than four in five:\n%s", f)
	}
	for _, s := range f.Shapes {
		switch s.Shape {
		case "customer by key", "customer by e-mail", "whether an e-mail is taken", "price by product and day", "products of a category", "user by key", "thread by key", "page of a thread", "tags of a thread":
			if s.ratio() < 0.9 {
				t.Errorf("%s: %d hits of %d", s.Shape, s.Hits, s.Possible)
			}
		}
	}
}

// forgetful is a store of which commits invalidate nothing.
type forgetful struct{ *store.Memory }

func (forgetful) Intend(context.Context, store.WriterID, []store.Tag) error  { return nil }
func (forgetful) Release(context.Context, store.WriterID, []store.Tag) error { return nil }

// An oracle that never finds anything proves nothing.
func TestAWrongHitIsFound(t *testing.T) {
	t.Parallel()
	w := newRun(t, "memory", 7, 30)
	forgets := forgetful{inside.Store(w.db).(*store.Memory)}
	_ = inside.Writes(w.db).Close()
	inside.SetStore(w.db, forgets)
	inside.SetWrites(w.db, invalidation.New(forgets, invalidation.Options{Local: true}))
	if err := w.play(t.Context(), 2000); !errors.Is(err, errWrong) || !strings.Contains(err.Error(), "a hit") {
		t.Errorf("got %v, want a wrong hit", err)
	}
}
