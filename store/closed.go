package store

import "context"

// Door says how far a relation of a shared store is open to the cache. While it is not open
// nobody mints a stamp for a tag of it.
type Door byte

const (
	Open    Door = iota
	Closing      // it may still have stamps
	Closed       // none is: commits may leave out their intents (I26)
	Opening      // commits that have done so may be under way
)

// Doors is which relations are not open, at one version of that list. It is immutable.
type Doors struct {
	Version   string          // never used twice; "" if all are open and always were
	Relations map[uint32]Door // by OID
}

// Closed reports that every one of tags is of a relation that is closed. A nil list has none.
func (d *Doors) Closed(tags []Tag) bool {
	for _, t := range tags {
		if t.Relation == 0 || d.Of(t.Relation) != Closed {
			return false
		}
	}
	return true
}

// Of returns how far a relation is open. A nil list has all of them open.
func (d *Doors) Of(relation uint32) Door {
	if d == nil {
		return Open
	}
	return d.Relations[relation]
}

// Traffic is how often a relation was written, and read, in commits and lookups of the
// cache. Lookups are weighted by what a hit of them saves.
type Traffic struct {
	Commits uint64
	Lookups uint64
}

// Closable is a Shared store that can close relations of which caching does not pay. It keeps
// the list. Its users close and open relations by these rules:
//
//   - From Open to Closing at any time. From Closing to Closed after a Sweep that
//     began when the list said Closing and that has returned nil.
//   - From Closed to Opening at any time. From Opening to Open when every write is over, and on
//     disk, that was under way after the list said Opening.
type Closable interface {
	Shared

	// Doors returns the list as this process knows it, which may be out of date. It asks nothing.
	Doors() *Doors

	// AllClosed reports that, at one moment of this call, a lease stood, every relation of tags was closed and
	// the catalog tag had the stamp catalog and no intent. Then a transaction that had written before the
	// call commits without intents on tags, as after a Mark that left all of them out.
	AllClosed(ctx context.Context, tags []Tag, catalog Stamp) (bool, error)

	// Count adds the traffic of this process to that of all, and brings the list up to date. The
	// first call after the end of a window returns the whole traffic of it, all others nil.
	Count(ctx context.Context, traffic map[uint32]Traffic) (window map[uint32]Traffic, err error)

	// SetDoors replaces the list, if it is still the one with that version.
	SetDoors(ctx context.Context, version string, relations map[uint32]Door) (ok bool, err error)

	// Sweep drops all stamps of relations that are closing. It may take long, and
	// takes little of the store's time at once.
	Sweep(ctx context.Context, relations []uint32) error
}
