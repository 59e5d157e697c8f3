package redis

import (
	"errors"
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

var both = []store.Tag{{Kind: store.TagSchema}, {Kind: store.TagCatalog}}

// before is what a process reads before it loads a catalog.
func (u *user) before() *[2]store.Stamp {
	u.Helper()
	_, _, stamps := u.lookup(store.Key{}, both...)
	return &[2]store.Stamp{stamps[0], stamps[1]}
}

func (u *user) agrees(want store.Agreement, version, digest string, stamps *[2]store.Stamp) {
	u.Helper()
	got, err := u.Agree(background, version, [32]byte([]byte(pad32(digest))), stamps)
	if err != nil {
		u.Fatalf("Agree: %v", err)
	}
	if got != want {
		u.Fatalf("digest %s: got %d, want %d", digest, got, want)
	}
}

func pad32(s string) string { return (s + string(make([]byte, 32)))[:32] }

// I22, in each of the orders that two processes and a change past them can have.
func TestADigestIsKeptBesideTheCatalogTag(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	key := store.Key{1}
	tags := []store.Tag{{Kind: store.TagSchema}, {Relation: 7, Kind: store.TagTable}}
	for name, story := range map[string]func(t *testing.T, u, other *user){
		"another digest makes everything cold": func(t *testing.T, u, other *user) {
			u.agrees(store.Replaced, "1", "old", u.before())
			u.cache(key, "v", tags...)
			stamps := other.before()
			was := *stamps
			other.agrees(store.Agreed, "1", "old", stamps)
			if was != *stamps {
				t.Error("the stamps of a digest that is kept have changed")
			}
			u.hits(key, "v", tags...)
			other.agrees(store.Replaced, "1", "new", stamps)
			if now := other.before(); *now != *stamps || now[0] == was[0] || now[1] == was[1] {
				t.Errorf("the tags have the stamps %v, told were %v, before %v", *now, *stamps, was)
			}
			if _, outcome, _ := u.lookup(key, tags...); outcome == store.Hit {
				t.Error("a hit of what was stored under the old digest")
			}
			other.cache(key, "w", tags...)
		},
		"a late one does not put the old one back": func(t *testing.T, u, other *user) {
			u.agrees(store.Replaced, "1", "old", u.before())
			late := u.before() // and loads the old catalog
			other.agrees(store.Replaced, "1", "new", other.before())
			u.agrees(store.Moved, "1", "old", late)
			other.cache(key, "v", tags...)
			other.agrees(store.Agreed, "1", "new", other.before())
			u.hits(key, "v", tags...)
		},
		"of those who load at the same time one puts the digest there": func(t *testing.T, u, other *user) {
			stamps, late := u.before(), other.before()
			u.agrees(store.Replaced, "1", "old", stamps)
			other.agrees(store.Agreed, "1", "old", late)
			if *late != *stamps {
				t.Errorf("the second has the stamps %v, the first %v", *late, *stamps)
			}
			w := store.NewWriter()
			u.mark(w, both...)
			other.agrees(store.Moved, "1", "old", late)
			u.release(w, both...)
			other.agrees(store.Moved, "1", "old", late) // a DDL of the driver's lies between
			now := u.before()
			u.agrees(store.Agreed, "1", "old", now) // it has altered nothing
			other.agrees(store.Agreed, "1", "old", late)
			if *late != *now {
				t.Errorf("the second has the stamps %v, the first %v", *late, *now)
			}
		},
		"the first to compare need not have loaded last": func(t *testing.T, u, other *user) {
			early, later := u.before(), other.before()
			u.agrees(store.Replaced, "1", "old", early)
			other.agrees(store.Moved, "1", "new", later) // it loads again
			other.agrees(store.Replaced, "1", "new", other.before())
		},
		"under a DDL of the driver's nothing is kept": func(t *testing.T, u, other *user) {
			stamps := u.before()
			w := store.NewWriter()
			other.mark(w, both...)
			u.agrees(store.Moved, "1", "during", stamps)
			u.agrees(store.Moved, "1", "during", &[2]store.Stamp{})
			other.release(w, both...)
			u.agrees(store.Moved, "1", "during", stamps) // loaded before the release
			u.agrees(store.Replaced, "1", "after", u.before())
		},
		"builds that make other digests do not make each other cold": func(t *testing.T, u, other *user) {
			u.agrees(store.Replaced, "1", "mine", u.before())
			other.agrees(store.Replaced, "2", "yours", other.before()) // once: who knows what it was
			u.cache(key, "v", tags...)
			u.agrees(store.Agreed, "1", "mine", u.before())
			other.agrees(store.Agreed, "2", "yours", other.before())
			u.hits(key, "v", tags...)
			other.agrees(store.Replaced, "2", "changed", other.before())
			if _, outcome, _ := u.lookup(key, tags...); outcome == store.Hit {
				t.Error("a hit of what was stored under the old digest of the other build")
			}
		},
		"a stamp that was evicted": func(t *testing.T, u, other *user) {
			u.agrees(store.Replaced, "1", "old", u.before())
			stamps := u.before()
			u.release(store.NewWriter(), both...) // as good as evicted
			u.agrees(store.Moved, "1", "old", stamps)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := openURL(t, r.URL(), Options{})
			u.keep()
			story(t, u, openURL(t, r.URL(), Options{}))
		})
	}
}

// A digest ends with its epoch, and nobody compares without a lease.
func TestADigestEndsWithTheEpoch(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	stamps := u.before()
	u.agrees(store.Replaced, "1", "old", stamps)
	for _, p := range u.inUse.Load().partitions {
		if err := r.Client().Del(background, p.lease).Err(); err != nil { // it has run out
			t.Fatal(err)
		}
	}
	if _, err := u.Agree(background, "1", [32]byte([]byte(pad32("old"))), stamps); !errors.Is(err, store.ErrCold) {
		t.Fatalf("got %v, want %v", err, store.ErrCold)
	}
	u.renew()
	u.agrees(store.Moved, "1", "old", stamps)
	u.agrees(store.Replaced, "1", "old", u.before())
	u.agrees(store.Agreed, "1", "old", u.before())
}
