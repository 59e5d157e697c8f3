package storetest

import (
	"slices"

	"github.com/cachedpg/cachedpg/store"
)

// probe wraps a store with the calls of a caller that accepts no error.
type probe struct {
	failer
	s store.Store
}

func (p probe) lookup(key store.Key, tags ...store.Tag) (*store.Entry, store.Outcome, []store.Stamp) {
	p.Helper()
	stamps := make([]store.Stamp, len(tags))
	e, outcome, err := p.s.Lookup(background, key, tags, stamps)
	if err != nil {
		p.Fatalf("Lookup: %v", err)
	}
	if (e != nil) != (outcome == store.Hit) {
		p.Fatalf("Lookup: %v with entry %v", outcome, e)
	}
	if outcome == store.Busy {
		outcome = store.Miss // that somebody else attends to; see store/shared.go
	}
	return e, outcome, stamps
}

// stamps returns the stamps of tags that must not be dirty.
func (p probe) stamps(tags ...store.Tag) []store.Stamp {
	p.Helper()
	_, outcome, stamps := p.lookup(store.Key{}, tags...)
	if outcome != store.Miss {
		p.Fatalf("Lookup of stamps: %v", outcome)
	}
	if slices.Contains(stamps, 0) {
		p.Fatalf("Lookup of stamps: %v has a zero", stamps)
	}
	return stamps
}

func (p probe) fill(key store.Key, tags []store.Tag, stamps []store.Stamp, e *store.Entry) {
	p.Helper()
	if err := p.s.Fill(background, key, tags, stamps, e, 0); err != nil {
		p.Fatalf("Fill: %v", err)
	}
}

func (p probe) intend(w store.WriterID, tags ...store.Tag) {
	p.Helper()
	if err := p.s.Intend(background, w, tags); err != nil {
		p.Fatalf("Intend: %v", err)
	}
}

func (p probe) release(w store.WriterID, tags ...store.Tag) {
	p.Helper()
	if err := p.s.Release(background, w, tags); err != nil {
		p.Fatalf("Release: %v", err)
	}
}

// spare returns how to spare, or nil if the store is not store.Sparing.
func (p probe) spare() func(w store.WriterID, tags ...store.Tag) {
	s, ok := p.s.(store.Sparing)
	if !ok {
		return nil
	}
	return func(w store.WriterID, tags ...store.Tag) {
		p.Helper()
		if err := s.Spare(background, w, tags); err != nil {
			p.Fatalf("Spare: %v", err)
		}
	}
}

func (p probe) want(key store.Key, tag store.Tag, want ...store.Outcome) {
	p.Helper()
	if _, got, _ := p.lookup(key, tag); !slices.Contains(want, got) {
		p.Errorf("Lookup: %v, want %v", got, want)
	}
}

// cached fills until a Lookup hits. A store may drop an entry, but one that
// drops every one of them is no store.
func (p probe) cached(key store.Key, e *store.Entry, tags ...store.Tag) *store.Entry {
	p.Helper()
	for range 10 {
		p.fill(key, tags, p.stamps(tags...), e)
		if got, outcome, _ := p.lookup(key, tags...); outcome == store.Hit {
			return got
		}
	}
	p.Fatalf("no fill is ever a hit")
	return nil
}
