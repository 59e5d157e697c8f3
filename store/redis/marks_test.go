package redis

import (
	"math/rand/v2"
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// A transaction may write more rows than a script can give to one command.
func TestACommitMarksAndReleasesAnyNumberOfTags(t *testing.T) {
	t.Parallel()
	u := openURL(t, redistest.Start(t).URL(), Options{})
	u.keep()
	key, table, _ := fresh()
	tags := make([]store.Tag, 20_001)
	for i := range tags {
		tags[i] = store.Tag{Relation: table.Relation, Kind: store.TagRow, Index: 7, Value: rand.Uint64()}
	}
	some := []store.Tag{tags[0], tags[1_999], tags[2_000], tags[10_000], tags[20_000]}
	u.cache(key, "old", some...)

	one, other := store.NewTransactionWriter(1), store.NewTransactionWriter(2)
	u.mark(one, tags...)
	u.mark(other, tags[2_000:2_010]...)
	for _, tag := range some {
		u.want(store.Dirty, key, tag)
	}
	u.release(one, tags...)
	for _, tag := range some {
		want := store.Miss
		if tag == tags[2_000] {
			want = store.Dirty // the other's
		}
		u.want(want, store.Key{}, tag)
	}
	u.release(other, tags...)
	u.want(store.Stale, key, some...)
	writers, err := u.Writers(t.Context())
	if err != nil || len(writers) > 0 {
		t.Errorf("%v have intents, %v", writers, err)
	}
}

// What a release leaves of a tag depends on who has an intent on it; its stamp is gone in any case (I5).
func TestAReleaseLeavesNoStamp(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.keep()
	_, table, row := fresh()
	row2 := row
	row2.Value++
	one, other := store.NewTransactionWriter(1), store.NewTransactionWriter(2)
	u.mark(one, row, row2)
	u.mark(other, row2)
	_, _, stamps := u.lookup(store.Key{}, schema, table)

	u.release(one, row, row2, table)
	_, _, after := u.lookup(store.Key{}, schema, table, row)
	if after[0] != stamps[0] || after[1] == stamps[1] || after[1] == 0 {
		t.Errorf("the schema had stamp %x and the table, which was released without an intent, %x; now they have %x and %x",
			stamps[0], stamps[1], after[0], after[1])
	}
	if after[2] == 0 {
		t.Error("a row that was released is dirty")
	}
	u.want(store.Dirty, store.Key{}, row2)
	u.release(other, row2)
	u.want(store.Miss, store.Key{}, row2)
}

// A hash that is a list for Redis is searched from its start for each tag.
func TestIntentsAreInATable(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*user){
		"a renewal": func(u *user) { u.renew() },
		"a mark":    func(u *user) { u.mark(store.NewTransactionWriter(1), schema) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t)
			u := openURL(t, r.URL(), Options{})
			begin(u)
			if got, err := r.Client().ObjectEncoding(t.Context(), u.inUse.Load().partitions[0].keys[0]).Result(); got != "hashtable" {
				t.Errorf("D is a %s, %v", got, err)
			}
		})
	}
}

// A commit of many rows allocates for its calls, and not for each of its tags.
func TestAMarkAllocatesTheSameForAnyNumberOfTags(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	u := openURL(t, redistest.Start(t).URL(), Options{})
	u.keep()
	_, table, _ := fresh()
	allocations := func(n int) float64 {
		tags := make([]store.Tag, n)
		for i := range tags {
			tags[i] = store.Tag{Relation: table.Relation, Kind: store.TagRow, Index: 7, Value: uint64(i)}
		}
		w := store.NewTransactionWriter(1)
		return testing.AllocsPerRun(200, func() {
			u.mark(w, tags...)
			u.release(w, tags...)
		})
	}
	few, many := allocations(5), allocations(50)
	t.Logf("%v allocations with 5 tags, %v with 50", few, many)
	if many > few+8 {
		t.Errorf("%v allocations with 5 tags, %v with 50", few, many)
	}
}
