package storetest

import (
	"reflect"

	"github.com/cachedpg/cachedpg/store"
)

// spares finds, where all spare, the entry that was there or no entry, and the old stamp or a new one.
func spares(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	spare := p.spare()
	if spare == nil {
		return
	}
	tags := []store.Tag{n.rows(), n.row(1)}
	for i := range 3 {
		w, other := newWriter(), newWriter()
		p.cached(n.key(1), entryOf(1), tags...)
		p.intend(w, tags...)
		p.intend(w, n.rows())
		p.intend(other, n.rows())
		spare(w, tags...)
		spare(w, tags...) // again, and it has none
		p.want(n.key(2), n.rows(), store.Dirty)
		p.want(n.key(2), n.row(1), store.Miss)
		spare(other, n.rows())
		e, outcome, stamps := p.lookup(n.key(1), tags...)
		if outcome == store.Hit && !reflect.DeepEqual(e, entryOf(1)) || outcome == store.Dirty {
			t.Errorf("round %d: %v with %v after it was spared", i, outcome, e)
		}
		if outcome != store.Hit {
			p.fill(n.key(1), tags, stamps, entryOf(1))
		}
	}
}

func sparesAndReleases(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	spare := p.spare()
	if spare == nil {
		return
	}
	for i, play := range []func(tag store.Tag, w, other store.WriterID){
		func(tag store.Tag, w, other store.WriterID) { p.release(other, tag); spare(w, tag) },
		func(tag store.Tag, w, other store.WriterID) { spare(w, tag); p.release(other, tag) },
		func(tag store.Tag, w, other store.WriterID) { spare(other, tag); spare(w, tag); p.release(other, tag) },
		func(tag store.Tag, w, other store.WriterID) {
			p.release(other, tag)
			p.intend(other, tag)
			spare(other, tag)
			spare(w, tag)
		},
		func(tag store.Tag, w, other store.WriterID) {
			spare(other, tag)
			p.intend(other, tag)
			p.release(other, tag)
			spare(w, tag)
		},
	} {
		w, other, tag := newWriter(), newWriter(), n.row(i)
		p.cached(n.key(i), entryOf(1), tag)
		before := p.stamps(tag)
		p.intend(w, tag)
		p.intend(other, tag)
		play(tag, w, other)
		_, outcome, after := p.lookup(n.key(i), tag)
		if outcome != store.Stale && outcome != store.Miss || after[0] == before[0] || after[0] == 0 {
			t.Errorf("play %d: %v with stamp %v, which was %v before", i, outcome, after, before)
		}
		p.fill(n.key(i), []store.Tag{tag}, before, entryOf(1))
		p.want(n.key(i), tag, store.Stale, store.Miss)
	}
}

func strangerSpares(t failer, s store.Store) {
	p, n := probe{t, s}, newNames()
	spare := p.spare()
	if spare == nil {
		return
	}
	w, stranger := newWriter(), newWriter()
	spare(stranger, n.table(), n.row(1))
	p.cached(n.key(1), entryOf(1), n.table())
	p.intend(w, n.table())
	spare(stranger, n.table())
	spare(w)
	p.want(n.key(1), n.table(), store.Dirty)
	p.release(w, n.table())
	p.want(n.key(1), n.table(), store.Stale, store.Miss)
}
