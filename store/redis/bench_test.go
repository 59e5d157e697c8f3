package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// hot is an entry that is hit, and the names that a hit asks for.
func hot(tb testing.TB, bytes int) (u *user, key store.Key, tags []store.Tag, names []string) {
	r := redistest.Start(tb)
	u = openURL(tb, r.URL(), Options{})
	u.keep()
	key, table, row := fresh()
	tags = []store.Tag{schema, row, {Relation: table.Relation, Kind: store.TagRows, Index: 7}, table}
	u.cache(key, strings.Repeat("x", bytes), tags...)
	in := u.inUse.Load()
	q := question{in: in, key: key, tags: tags}
	q.split()
	q.slots = make([]slot, len(tags))
	q.name()
	names = []string{q.parts[0].lease, q.parts[0].entry}
	for _, s := range q.slots {
		names = append(names, s.name)
	}
	return u, key, tags, names
}

// BenchmarkHit compares a hit with what cannot be avoided: the same MGET of the
// same bytes by go-redis, in the same run.
func BenchmarkHit(b *testing.B) {
	u, key, tags, names := hot(b, 1000)
	client := u.inUse.Load().nodes[0].client
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("MGET/%d", n), func(b *testing.B) {
			concurrently(b, n, func() error { return client.MGet(background, names...).Err() })
		})
		b.Run(fmt.Sprintf("Lookup/%d", n), func(b *testing.B) {
			concurrently(b, n, func() error { return u.hit(background, key, tags) })
		})
		b.Run(fmt.Sprintf("LookupCancellable/%d", n), func(b *testing.B) {
			concurrently(b, n, func() error { return u.hit(ctx, key, tags) })
		})
	}
}

func (u *user) hit(ctx context.Context, key store.Key, tags []store.Tag) error {
	var stamps [4]store.Stamp
	_, outcome, err := u.Lookup(ctx, key, tags, stamps[:])
	if err == nil && outcome != store.Hit {
		err = fmt.Errorf("%v", outcome)
	}
	return err
}

func concurrently(b *testing.B, n int, f func() error) {
	b.ReportAllocs()
	var group sync.WaitGroup
	for i := range n {
		share := b.N / n
		if i < b.N%n {
			share++
		}
		group.Go(func() {
			for range share {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// A hit allocates what the bare command does and a little for itself. A change of that is to
// be seen.
func TestHitAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	u, key, tags, names := hot(t, 100)
	client := u.inUse.Load().nodes[0].client
	bare := testing.AllocsPerRun(500, func() { client.MGet(background, names...) })
	got := testing.AllocsPerRun(500, func() {
		if err := u.hit(background, key, tags); err != nil {
			t.Error(err)
		}
	})
	if got > bare+15 {
		t.Errorf("a hit allocates %v times, MGET %v times", got, bare)
	}
	t.Logf("a hit allocates %v times, MGET %v times", got, bare)
}
