package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// checks are the legal cases of the Store comment, one by one.
var checks = []struct {
	name string
	run  func(t failer, s store.Store)
}{
	{"a miss mints a stamp for every tag (I1)", missMints},
	{"a hit is the entry that was filled", hitIsTheEntry},
	{"a hit needs only the tags of its entry", hitNeedsItsTagsOnly},
	{"an entry is stale after intent and release (I5)", staleAfterWrite},
	{"an entry is stale when any of its tags moved", staleByAnyTag},
	{"a dirty tag is neither hit nor filled (I3)", dirty},
	{"a dirty tag is dirty until the last writer released", severalWriters},
	{"a writer that intends twice has one intent", intendsTwice},
	{"a release by a stranger gives a new stamp and frees nobody", strangerReleases},
	{"a fill whose stamps moved is never a hit (I1)", lateFill},
	{"a fill with stamps that never were is never a hit", inventedStamps},
	{"a fill replaces the entry of its key", fillReplaces},
	{"the caller keeps its slices", slicesAreCopied},
	{"an entry expires", expires},
	{"no stamp is given twice (I6)", stampsAreUnique},
	{"an intent covers all of many tags (I2)", manyTags},
	{"no tags are no work", noTags},
	{"a dirty tag is never evicted (I7)", pressure},
	{"a spared tag is as it was before (I27)", spares},
	{"a tag that a writer released is not as before, whoever spares it (I27)", sparesAndReleases},
	{"a writer spares its own intents only", strangerSpares},
	{"nothing is a hit after Close", closed},
}

func missMints(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	tags := []store.Tag{n.table(), n.rows(), n.row(1), n.row(2), n.row(1)}
	_, outcome, first := p.lookup(n.key(1), tags...)
	if outcome != store.Miss || slices.Contains(first, 0) {
		t.Fatalf("%v with stamps %v", outcome, first)
	}
	if first[2] != first[4] || first[2] == first[3] {
		t.Errorf("stamps %v: equal for equal tags only", first)
	}
	if again := p.stamps(tags...); !slices.Equal(first, again) {
		t.Errorf("stamps %v, then %v without a write", first, again)
	}
}

func hitIsTheEntry(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	null, empty := store.AppendValue(nil, nil), store.AppendValue(nil, []byte{})
	columns := []store.Column{
		{Name: "a", TableOID: 1, TableColumn: 2, Type: 3, TypeSize: -1, TypeModifier: -2, Format: -3},
		{Name: "ä\x00", TableOID: 1 << 31, TableColumn: 1 << 15, Type: 1<<32 - 1, TypeSize: 1<<15 - 1, TypeModifier: 1<<31 - 1, Format: 1},
	}
	entries := []*store.Entry{
		{},
		{Rows: 3},
		{Columns: columns},
		{Columns: columns, Rows: 1, Data: string(null) + string(empty)},
		{Columns: columns[:1], Rows: 2, Data: string(store.AppendValue(empty, []byte("x\x00\xff")))},
		entryOf(slices.Repeat([]uint64{7}, 100)...),
	}
	for i, want := range entries {
		copied := *want
		got := p.cached(n.key(i), &copied, n.table())
		if len(got.Columns) == 0 && len(want.Columns) == 0 {
			copied = *got
			copied.Columns = want.Columns // nil or empty is the same
			got = &copied
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("entry %d: got %+v, want %+v", i, got, want)
		}
	}
}

func hitNeedsItsTagsOnly(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	w := newWriter()
	p.cached(n.key(1), entryOf(1), n.row(1))
	p.intend(w, n.table())
	if _, outcome, _ := p.lookup(n.key(1), n.row(1), n.table()); outcome != store.Hit {
		t.Errorf("with a dirty tag that the entry does not depend on: %v", outcome)
	}
	before := p.stamps(n.row(2))[0]
	_, outcome, stamps := p.lookup(n.key(2), n.row(2), n.table())
	if outcome != store.Dirty || stamps[1] != 0 || stamps[0] != 0 && stamps[0] != before {
		t.Errorf("without an entry: %v %v, where the clean tag has %v", outcome, stamps, before)
	}
	p.release(w, n.table())
	if _, outcome, _ := p.lookup(n.key(1), n.row(1), n.table()); outcome != store.Hit {
		t.Errorf("after the release: %v", outcome)
	}
}

func staleAfterWrite(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	for i := range 3 {
		w := newWriter()
		p.cached(n.key(1), entryOf(1), n.table())
		before := p.stamps(n.table())
		p.intend(w, n.table())
		p.want(n.key(1), n.table(), store.Dirty)
		p.release(w, n.table())
		_, outcome, after := p.lookup(n.key(1), n.table())
		if outcome != store.Stale && outcome != store.Miss {
			t.Errorf("round %d: %v after the release", i, outcome)
		}
		if after[0] == before[0] || after[0] == 0 {
			t.Errorf("round %d: stamp %v, then %v after the release", i, before, after)
		}
	}
}

func staleByAnyTag(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	tags := []store.Tag{{}, n.table(), n.rows(), n.row(1)}
	for i := range tags {
		w := newWriter()
		p.cached(n.key(1), entryOf(1), tags...)
		p.intend(w, tags[i])
		if _, outcome, stamps := p.lookup(n.key(1), tags...); outcome != store.Dirty || stamps[i] != 0 {
			t.Errorf("tag %d of %d has an intent: %v %v", i, len(tags), outcome, stamps)
		}
		p.release(w, tags[i])
		if _, outcome, _ := p.lookup(n.key(1), tags...); outcome != store.Stale && outcome != store.Miss {
			t.Errorf("tag %d of %d moved: %v", i, len(tags), outcome)
		}
	}
}

func dirty(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	w := newWriter()
	p.cached(n.key(1), entryOf(1), n.table())
	before := p.stamps(n.table())
	p.intend(w, n.table())
	for range 3 {
		for _, key := range []store.Key{n.key(1), n.key(2)} {
			if _, outcome, stamps := p.lookup(key, n.table()); outcome != store.Dirty || stamps[0] != 0 {
				t.Fatalf("%v %v, want dirty and no stamp", outcome, stamps)
			}
		}
		p.fill(n.key(1), []store.Tag{n.table()}, before, entryOf(2))
	}
	p.release(w, n.table())
	p.want(n.key(1), n.table(), store.Stale, store.Miss)
}

func severalWriters(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	for last := range 3 {
		writers := []store.WriterID{newWriter(), newWriter(), newWriter()}
		tag := n.row(last)
		p.cached(n.key(last), entryOf(1), tag)
		for _, w := range writers {
			p.intend(w, tag)
		}
		for i := range writers {
			w := writers[(last+1+i)%3]
			p.want(n.key(last), tag, store.Dirty)
			p.release(w, tag)
			p.release(w, tag) // again: an acknowledgement was lost
		}
		p.want(n.key(last), tag, store.Stale, store.Miss)
		p.cached(n.key(last), entryOf(2), tag)
	}
}

func intendsTwice(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	w := newWriter()
	p.intend(w, n.table(), n.row(1), n.table())
	p.intend(w, n.row(1))
	p.release(w, n.row(1))
	p.want(n.key(1), n.row(1), store.Miss)
	p.want(n.key(1), n.table(), store.Dirty)
	p.release(w, n.table())
	p.want(n.key(1), n.table(), store.Miss)
}

func strangerReleases(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	w, stranger := newWriter(), newWriter()
	p.cached(n.key(1), entryOf(1), n.table())
	before := p.stamps(n.table())
	p.release(stranger, n.table(), n.row(1))
	p.want(n.key(1), n.table(), store.Stale, store.Miss)
	if after := p.stamps(n.table()); after[0] == before[0] {
		t.Errorf("stamp %v before and after", after)
	}
	p.intend(w, n.table())
	p.release(stranger, n.table())
	p.want(n.key(1), n.table(), store.Dirty)
	p.release(w, n.table())
}

func lateFill(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	tags := []store.Tag{n.table(), n.row(1)}
	for i, at := range []string{"before the release", "after the release", "after someone else's fill"} {
		w := newWriter()
		stamps := p.stamps(tags...)
		p.intend(w, n.row(1))
		if i == 0 {
			p.fill(n.key(1), tags, stamps, entryOf(1))
			if _, outcome, _ := p.lookup(n.key(1), tags...); outcome != store.Dirty {
				t.Errorf("filled while dirty: %v", outcome)
			}
		}
		p.release(w, n.row(1))
		if i == 1 {
			p.fill(n.key(1), tags, stamps, entryOf(1))
		}
		if i == 2 {
			p.cached(n.key(1), entryOf(2), tags...)
			p.fill(n.key(1), tags, stamps, entryOf(1))
		}
		if e, outcome, _ := p.lookup(n.key(1), tags...); outcome == store.Hit && !reflect.DeepEqual(e, entryOf(2)) {
			t.Errorf("filled with old stamps %s: %v", at, outcome)
		}
	}
}

func inventedStamps(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	real := p.stamps(n.table(), n.row(1))
	for i, stamps := range [][]store.Stamp{{0, 0}, {real[0], 0}, {0, real[1]}, {real[1], real[0]}, {real[0], real[1] + 1}, {real[0], ^real[1]}} {
		p.fill(n.key(i), []store.Tag{n.table(), n.row(1)}, stamps, entryOf(1))
		if _, outcome, _ := p.lookup(n.key(i), n.table(), n.row(1)); outcome == store.Hit {
			t.Errorf("filled with %v where the stamps are %v: %v", stamps, real, outcome)
		}
	}
	// A tag that nobody looked up has no stamp that could be right, and none
	// afterwards.
	p.fill(n.key(9), []store.Tag{n.row(9)}, []store.Stamp{4711}, entryOf(1))
	p.want(n.key(9), n.row(9), store.Miss, store.Stale)
}

func fillReplaces(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	for i := range uint64(5) {
		p.cached(n.key(1), entryOf(i), n.table())
		if got := p.cached(n.key(1), entryOf(i+100), n.table()); !reflect.DeepEqual(got, entryOf(i+100)) {
			t.Errorf("got %+v after a second fill", got)
		}
	}
}

func slicesAreCopied(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	for range 10 {
		tags := []store.Tag{n.table(), n.row(1)}
		_, _, stamps := p.lookup(n.key(1), tags...)
		p.fill(n.key(1), tags, stamps, entryOf(1))
		tags[0], tags[1] = n.row(7), n.row(8)
		stamps[0], stamps[1] = 7, 8
		e, outcome, _ := p.lookup(n.key(1), n.table(), n.row(1))
		if outcome != store.Hit {
			continue
		}
		if !reflect.DeepEqual(e, entryOf(1)) {
			t.Errorf("got %+v", e)
		}
		w := newWriter()
		tags = []store.Tag{n.row(1)}
		p.intend(w, tags...)
		tags[0] = n.row(8)
		p.want(n.key(1), n.row(1), store.Dirty)
		p.release(w, n.row(1))
		return
	}
	t.Errorf("no fill is ever a hit")
}

func expires(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	_, _, stamps := p.lookup(n.key(1), n.table())
	if err := s.Fill(background, n.key(1), []store.Tag{n.table()}, stamps, entryOf(1), 30*time.Millisecond); err != nil {
		t.Fatalf("Fill: %v", err)
	}
	// A far store's clock gives no signal: ask until it has passed.
	end := time.Now().Add(2 * time.Second)
	for {
		_, outcome, _ := p.lookup(n.key(1), n.table())
		if outcome != store.Hit {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("an entry with a ttl of 30ms lives for 2s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	_, _, stamps = p.lookup(n.key(2), n.table())
	if err := s.Fill(background, n.key(2), []store.Tag{n.table()}, stamps, entryOf(1), -1); err != nil {
		t.Fatalf("Fill with a negative ttl: %v", err)
	}
	p.want(n.key(2), n.table(), store.Miss)
}

func stampsAreUnique(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	seen := map[store.Stamp]bool{}
	for range 100 {
		w := newWriter()
		tags := []store.Tag{n.table(), n.row(1), n.row(2)}
		for _, stamp := range p.stamps(tags...) {
			if seen[stamp] {
				t.Fatalf("stamp %x twice", stamp)
			}
			seen[stamp] = true
		}
		p.intend(w, tags...)
		p.release(w, tags...)
	}
}

func manyTags(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	var tags []store.Tag
	for i := range 2000 {
		tags = append(tags, n.row(i))
	}
	w := newWriter()
	p.stamps(tags[:100]...)
	p.intend(w, tags...)
	_, outcome, stamps := p.lookup(n.key(1), tags...)
	if outcome != store.Dirty || slices.ContainsFunc(stamps, func(s store.Stamp) bool { return s != 0 }) {
		t.Errorf("%v, and not all stamps are zero", outcome)
	}
	p.release(w, tags...)
	if _, outcome, stamps := p.lookup(n.key(1), tags...); outcome != store.Miss || slices.Contains(stamps, 0) {
		t.Errorf("%v after the release, or a stamp is zero", outcome)
	}
}

func noTags(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	p.intend(newWriter())
	p.release(newWriter())
	if _, outcome, _ := p.lookup(n.key(1)); outcome != store.Miss {
		t.Errorf("%v", outcome)
	}
}

// pressure fills far more than a small store holds. What it drops it drops, but
// intents stay, hits are right, and a stamp that comes back is a new one.
func pressure(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	w := newWriter()
	p.cached(n.key(-1), entryOf(1), n.table())
	p.intend(w, n.table(), n.row(-1))
	padding := slices.Repeat([]uint64{0}, 100)
	for i := range 500 {
		key, tag := n.key(i), n.row(i)
		_, _, stamps := p.lookup(key, tag)
		p.fill(key, []store.Tag{tag}, stamps, entryOf(append([]uint64{uint64(i)}, padding...)...))
		back := i / 2
		if e, outcome, _ := p.lookup(n.key(back), n.row(back)); outcome == store.Hit {
			if values, err := valuesOf(e); err != nil || values[0] != uint64(back) {
				t.Fatalf("the entry of key %d holds %v, %v", back, values, err)
			}
		}
	}
	p.want(n.key(-1), n.table(), store.Dirty)
	p.want(n.key(-1), n.row(-1), store.Dirty)

	// Stamps may have been evicted meanwhile. Those now must be new, or the same
	// without a gap: never one from before a write.
	seen := map[store.Stamp]string{}
	for round := range 3 {
		for i := range 200 {
			stamp := p.stamps(n.row(i))[0]
			who := fmt.Sprintf("row %d in round %d", i, round)
			if before, ok := seen[stamp]; ok {
				t.Fatalf("%s has the stamp of %s", who, before)
			}
			seen[stamp] = who
			v := newWriter()
			p.intend(v, n.row(i))
			p.release(v, n.row(i))
		}
	}
	p.want(n.key(-1), n.table(), store.Dirty)
	p.want(n.key(-1), n.row(-1), store.Dirty)
	p.release(w, n.table(), n.row(-1))
	p.want(n.key(-1), n.table(), store.Stale, store.Miss)
}

func closed(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	p.cached(n.key(1), entryOf(1), n.table())
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if e, outcome, err := s.Lookup(background, n.key(1), []store.Tag{n.table()}, make([]store.Stamp, 1)); err == nil && (e != nil || outcome == store.Hit) {
		t.Errorf("after Close: %v", outcome)
	}
}
