package store

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// spared lets writers by turns intend, release and spare one tag of an entry, and returns what a
// Lookup of it finds then.
func spared(t *testing.T, m *Memory, steps func(w [2]WriterID, tag []Tag)) Outcome {
	t.Helper()
	key, tags := testKey(1), testTags(1)
	if _, outcome := lookup(t, m, key, tags); outcome != Hit {
		fill(t, m, key, tags, testEntry(10), 0)
	}
	steps([2]WriterID{NewWriter(), NewWriter()}, tags[1:2])
	e, outcome := lookup(t, m, key, tags)
	if (e != nil) != (outcome == Hit) {
		t.Errorf("%v with entry %v", outcome, e)
	}
	return outcome
}

// I27: the stamp returns only if all who had an intent since have spared it.
func TestMemorySpares(t *testing.T) {
	m := NewMemory(Options{})
	for _, c := range []struct {
		name string
		want Outcome
		play func(w [2]WriterID, tag []Tag)
	}{
		{"one spares", Hit, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			m.Spare(ctx, w[0], tag)
		}},
		{"a stranger spares", Dirty, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			m.Spare(ctx, w[1], tag)
		}},
		{"one of two spares", Dirty, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			m.Intend(ctx, w[1], tag)
			m.Spare(ctx, w[0], tag)
		}},
	} {
		if got := spared(t, m, c.play); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		m = NewMemory(Options{})
	}
	both := func(first, second func(WriterID, []Tag)) func(w [2]WriterID, tag []Tag) {
		return func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			m.Intend(ctx, w[1], tag)
			first(w[0], tag)
			second(w[1], tag)
		}
	}
	spare := func(w WriterID, tag []Tag) { m.Spare(ctx, w, tag) }
	release := func(w WriterID, tag []Tag) { m.Release(ctx, w, tag) }
	for _, c := range []struct {
		name string
		want Outcome
		play func(w [2]WriterID, tag []Tag)
	}{
		{"both spare", Hit, both(spare, spare)},
		{"the first spares", Stale, both(spare, release)},
		{"the second spares", Stale, both(release, spare)},
		{"neither spares", Stale, both(release, release)},
		{"one spares after a stranger's release", Stale, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			release(w[1], tag)
			spare(w[0], tag)
		}},
		{"one intends twice and spares once", Hit, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			m.Intend(ctx, w[0], tag)
			spare(w[0], tag)
			spare(w[0], tag)
		}},
		{"one spares and intends again", Dirty, func(w [2]WriterID, tag []Tag) {
			m.Intend(ctx, w[0], tag)
			spare(w[0], tag)
			m.Intend(ctx, w[0], tag)
			m.Release(ctx, w[1], tag)
		}},
	} {
		if got := spared(t, m, c.play); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// An entry whose tag is dirty stays, and a fill with the stamp from before it is kept, in case
// that the tag is spared. The accounts are as if it had never been dirty.
func TestMemoryKeepsWhatMayBeSpared(t *testing.T) {
	m := NewMemory(Options{})
	w, tags := NewWriter(), testTags(1)
	stamps := make([]Stamp, len(tags))
	m.Lookup(ctx, testKey(2), tags, stamps)
	free := func() {
		h := hashOf(2)
		m.free(m.shard(h), m.shard(h).find(ref(testKey(2)), h), h)
	}
	m.Fill(ctx, testKey(2), tags, stamps, testEntry(10), 0)
	free()
	fill(t, m, testKey(1), tags, testEntry(10), 0)
	before := m.Stats()
	m.Intend(ctx, w, tags)
	if s := m.Stats(); s.Tags != before.Tags || s.DirtyTags != len(tags) {
		t.Errorf("dirty: %+v", s)
	}
	for i := 1; i <= 2; i++ {
		if _, outcome := lookup(t, m, testKey(i), tags); outcome != Dirty {
			t.Errorf("key %d is %v while its tags are dirty", i, outcome)
		}
		m.Fill(ctx, testKey(2), tags, stamps, testEntry(10), 0)
	}
	m.Spare(ctx, w, tags)
	for i := 1; i <= 2; i++ {
		if _, outcome := lookup(t, m, testKey(i), tags); outcome != Hit {
			t.Errorf("key %d is %v when its tags are spared", i, outcome)
		}
	}
	free()
	after := m.Stats()
	if after.Fills, after.Invalidations = before.Fills, before.Invalidations; after != before {
		t.Errorf("stats %+v, before %+v", after, before)
	}
}

func ref(k Key) *Key { return &k }

func hashOf(n int) uint64 { return ref(testKey(n)).hash() }

// A suspended stamp can be evicted as any other. Then there is none to return to.
func TestMemoryEvictsWhatMayBeSpared(t *testing.T) {
	m := NewMemory(Options{})
	w, tag := NewWriter(), testTags(1)[2:]
	before, after := make([]Stamp, 1), make([]Stamp, 1)
	m.Lookup(ctx, Key{}, tag, before)
	m.Intend(ctx, w, tag)
	for m.evictTag() {
	}
	if s := m.Stats(); s.Tags != 1 || s.DirtyTags != 1 {
		t.Errorf("%+v", s)
	}
	if _, outcome := lookup(t, m, Key{}, tag); outcome != Dirty {
		t.Errorf("%v, want dirty", outcome)
	}
	m.Spare(ctx, w, tag)
	if _, outcome, _ := m.Lookup(ctx, Key{}, tag, after); outcome != Miss || after[0] == before[0] {
		t.Errorf("%v with stamp %x, that was %x before it was evicted", outcome, after, before)
	}
}

// I27: a miss reads one stamp after the other while a writer marks the first tag and spares the
// last. Without Memory.spares it returns both as they were before.
func TestMemorySparesBesideAMiss(t *testing.T) {
	m := NewMemory(Options{})
	precise, coarse := row(0), row(1)
	for i := uint64(2); m.tagShard(coarse) == m.tagShard(precise); i++ {
		coarse = row(i)
	}
	w, tags := NewWriter(), []Tag{precise, coarse}
	before, after := make([]Stamp, 2), make([]Stamp, 2)
	m.Lookup(ctx, Key{}, tags, before)
	m.Intend(ctx, w, tags[1:])

	// The reader has read the first stamp and waits for the second.
	first, second := m.tagShard(precise), m.tagShard(coarse)
	first.clean.get(precise).used = false
	second.mu.Lock()
	outcome := make(chan Outcome)
	go func() {
		_, found, _ := m.Lookup(ctx, Key{}, tags, after)
		outcome <- found
	}()
	for read := false; !read; runtime.Gosched() {
		first.mu.Lock()
		read = first.clean.get(precise).used
		first.mu.Unlock()
	}
	m.Intend(ctx, w, tags[:1])
	m.spares.Add(1) // as Spare does
	m.spareLocked(second, w, coarse)
	second.mu.Unlock()
	if got := <-outcome; got != Dirty || after[0] != 0 || after[1] != before[1] {
		t.Errorf("%v with stamps %x, which were %x before the write", got, after, before)
	}
}

// I27: the same of a hit. Its look takes long here, as the entry has many tags.
func TestMemorySparesBesideHits(t *testing.T) {
	m := NewMemory(Options{})
	var tags []Tag
	for i := range 2000 {
		tags = append(tags, row(uint64(i)))
	}
	precise, coarse := tags[:1], tags[len(tags)-1:]
	key, w := testKey(1), NewWriter()
	for range 1000 {
		fill(t, m, key, tags, testEntry(10), 0)
		var committed atomic.Bool
		written := make(chan struct{})
		go func() {
			defer close(written)
			m.Intend(ctx, w, coarse)
			committed.Store(true)
			m.Intend(ctx, w, precise)
			m.Spare(ctx, w, coarse)
			m.Release(ctx, w, precise)
		}()
		for over := false; !over; {
			select {
			case <-written:
				over = true
			default:
			}
			stale := committed.Load()
			if _, outcome, _ := m.Lookup(ctx, key, nil, nil); outcome == Hit && stale {
				t.Fatal("a hit of what was read before a commit that is known")
			}
		}
	}
}
