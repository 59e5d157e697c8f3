// Package store is where entries and stamps live: the contract that the
// protocol stands on, and the store in this process's memory.
//
// Package invalidation explains the protocol and numbers its invariants; the
// comments here cite them as I1, I2, …
//
// See docs/decisions/store.md (D91).
package store

import (
	"context"
	"time"
)

// Key identifies one cached result. Distinct queries never share one. The zero
// Key is never filled: a Lookup of it reads stamps and nothing else.
type Key [32]byte

// Tag names something that a result depends on. Two different things may share
// a Tag by a collision of Value; that only invalidates more.
type Tag struct {
	Relation uint32 // OID; 0 for the schema tag
	Kind     TagKind
	Part     uint8  // which columns of the relation it is about, at most MaxPart; 0 is all of them
	Index    uint32 // the index or, of a single one, the column that Value is of; 0 where there is none
	Value    uint64 // hash of the canonical key values
}

// MaxPart is the largest Tag.Part.
const MaxPart = 15

// TagKind says what a Tag names.
type TagKind uint8

const (
	TagSchema  TagKind = iota // the catalog and everything
	TagTable                  // any change of the relation
	TagRows                   // a change of rows of which the key in Index is not known
	TagRow                    // the rows with one value of the key in Index
	TagCatalog                // the catalog alone; no entry depends on it, see Shared.Mark
	TagNew                    // rows appeared with an unknown value of the unique key in Index
	TagChanged                // rows that were there were changed or deleted

	lastTagKind = TagChanged // stored in Redis and sent to others, so a new one goes to the end
)

// Stamp is the random, never reused value that a tag has now. Zero is no stamp.
type Stamp uint64

// Outcome is what a Lookup found.
type Outcome uint8

const (
	Miss  Outcome = iota // nothing under the key
	Stale                // an entry, but a stamp moved; counts as a miss
	Hit
	Dirty // a tag has an intent: neither hit nor fill
	Busy  // as Miss, but another process is running the SELECT for this key and these stamps
)

// String returns the outcome's name in stats and logs.
func (o Outcome) String() string {
	switch o {
	case Miss:
		return "miss"
	case Stale:
		return "stale"
	case Hit:
		return "hit"
	case Dirty:
		return "dirty"
	case Busy:
		return "busy"
	}
	return "unknown"
}

// Entry is a stored result. It is immutable once filled and may be shared.
type Entry struct {
	Columns []Column
	Rows    int
	// Data holds the raw wire values row by row: a big-endian int32 length, -1
	// for NULL, then the bytes. AppendValue writes it, Values reads it.
	Data string

	// Took is how long the SELECT took, and Expires when the entry ends by age:
	// what is needed to refresh it shortly before. Zero: it is not.
	Took    time.Duration
	Expires Moment
}

// Column is what PostgreSQL's RowDescription says of one column.
type Column struct {
	Name         string
	TableOID     uint32
	TableColumn  uint16
	Type         uint32
	TypeSize     int16
	TypeModifier int32
	Format       int16
}

// Store keeps entries and stamps. All methods are safe for concurrent use. The
// legal cases, each checked by package storetest:
//
//   - Lookup of a key whose entry was filled with stamps that its tags (those
//     given to Fill) still have is a Hit, or a Miss if the store dropped the
//     entry. The tags given to Lookup do not matter for it: a tag that the entry
//     does not depend on may be dirty.
//   - Any other Lookup with a tag that has an intent is Dirty. The stamp of
//     that tag is then zero and nothing is minted for it; that of every other
//     tag is zero or its current stamp, so that a result which turns out to
//     depend only on tags with a stamp may still be filled with those.
//   - Lookup of an absent key, or of an entry whose tags do not all have the
//     stamps that it was filled with, is a Miss or Stale, and stamps then holds
//     the current stamp of every tag, minted where it was missing.
//   - Fill is unconditional; an entry filled with stamps that have moved, or with
//     a zero stamp, is never returned as a Hit. The store may drop it at once,
//     as it may drop any entry at any time.
//   - After Intend returned nil, no Lookup returns an entry that depends on one
//     of the tags until every intent on it is released, and never again one
//     that was filled with the old stamps, but for those that are spared (Sparing).
//     After an error the tags may have the intent or not, each for itself.
//   - An intent is a member of a set: the same writer intending a tag twice has
//     one.
//   - Release drops the intent and always gives the tag a new stamp, also where the
//     writer had none. It leaves the intents of other writers alone.
//   - A dirty tag is never evicted. A stamp may be; it is minted anew, never
//     restored.
//   - After Close no Lookup is a Hit.
//
// The tags of one call need not change, or be read, at one instant. For Lookup
// all that counts is that the stamps are read before it returns, so before the
// caller sends its SELECT (I1); for Intend that all tags have the intent when it
// returns (I2).
type Store interface {
	// Lookup finds the entry of key if it is valid. stamps has len(tags) and is
	// filled unless the outcome is Hit. An error means that the store cannot
	// tell; the caller bypasses. The entry is shared: the caller only reads it.
	Lookup(ctx context.Context, key Key, tags []Tag, stamps []Stamp) (*Entry, Outcome, error)

	// Fill stores entry under key with the stamps that its tags had before the
	// rows were read. It takes ownership of entry and copies tags and stamps.
	// tags are those that this result depends on, which may be fewer than were
	// looked up. A ttl of zero is no expiry beyond that of the entry.
	Fill(ctx context.Context, key Key, tags []Tag, stamps []Stamp, entry *Entry, ttl time.Duration) error

	// Intend marks each tag for the writer before its commit can become visible.
	Intend(ctx context.Context, w WriterID, tags []Tag) error

	// Release drops the writer's intents on tags once its outcome is known.
	Release(ctx context.Context, w WriterID, tags []Tag) error

	Close() error
}

// Sparing is a Store that lets a writer take an intent back. Writers mark more than they
// change while they do not know what that will be; what they have not changed is spared.
//
//   - Spare drops the writer's intents on tags. Where it has none nothing changes.
//   - Once every writer that has had an intent on a tag since it was clean has spared it, and nobody
//     released it meanwhile, the tag may have the stamp that it had then, and entries that
//     were filled with it may be hits again. Otherwise it has a new one, as after Release.
//   - A Lookup that finds a spared tag with its old stamp has looked at every tag after Spare was
//     called. So it finds no stamp from before on a tag that was intended before the call.
//
// When a writer may do so is I27.
type Sparing interface {
	// Spare drops the writer's intents on tags that its write has not changed.
	Spare(ctx context.Context, w WriterID, tags []Tag) error
}
