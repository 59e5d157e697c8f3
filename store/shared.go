package store

import (
	"context"
	"errors"
	"time"
)

// Lease is how long hits go on in a shared store after the last time that a
// process made sure, of PostgreSQL, that nobody commits past the store. A writer
// that cannot reach the store waits as long before it commits. It is counted by
// the store's clock on one side and the writer's on the other: what matters is
// that a second is about as long on both.
const Lease = 2 * time.Second

// FillLock is how long a process that went away in the middle of a fill keeps
// others from running the same SELECT.
const FillLock = time.Second

var (
	// ErrCold is what a shared store answers a Lookup while no lease stands:
	// it has lost its memory, or nobody has renewed it. See Shared.Renew.
	ErrCold = errors.New("cachedpg: the store is cold")

	// ErrDown is what a shared store answers at once for a while after it
	// could not be reached.
	ErrDown = errors.New("cachedpg: the store cannot be reached")
)

// Shared is a Store in which processes meet. It may forget everything at any
// moment, and they may die or lose it in the middle of what they do. Beyond the
// cases of Store:
//
//   - It lives in epochs. Losing intents ends an epoch, and an epoch that ended
//     never returns: no entry or stamp of it is ever found again. Intents are
//     kept beyond the end of an epoch unless they are what was lost.
//   - A Lookup is a Hit, or mints, only under a lease: while the lease of its
//     epoch stands on the store's clock. Otherwise it is ErrCold.
//   - A lease that ran out ends the epoch.
//   - Lookup is Busy instead of Miss or Stale if another caller got Miss or
//     Stale for the same key and the same stamps and has since called neither Fill nor
//     GiveUp nor Abandon, for FillLock since that Lookup or its last Hold. Nobody is Busy
//     after that, and nobody for FillLock after Abandon.
//   - Fill does not wait for the store; a Lookup by the same process that
//     begins after Fill sees it, unless the store is slow.
type Shared interface {
	Store

	// Mark is Intend for tags that were planned with a catalog loaded when the
	// catalog tag (Tag{Kind: TagCatalog}) had the stamp catalog; zero is none. If
	// the catalog tag is dirty or has another stamp or none, the schema tag is
	// marked as well. Those who do so do not touch the catalog tag: two writers
	// that are not sure do not make each other unsure for ever.
	//
	// Tags of a relation that is closed are left out if the writer is a transaction that
	// waits for the disk.
	Mark(ctx context.Context, w WriterID, tags []Tag, catalog Stamp) (Marked, error)

	// Agree compares the digest of a catalog with the one that is kept beside the
	// tags of schema and catalog, one for each version of how digests are made.
	// stamps are those that the two tags had before the catalog was loaded. If one
	// of them is dirty, or has moved since to another than stands beside this very digest, it is Moved. If
	// the digest is another, or none is kept in this epoch, it is kept from now on, both tags get new stamps,
	// and nothing that was filled before is a hit again: all in one step. Unless it is Moved the stamps
	// that stand are returned in stamps. Without a lease it is ErrCold.
	Agree(ctx context.Context, version string, digest [32]byte, stamps *[2]Stamp) (Agreement, error)

	// Hold keeps others Busy for another FillLock.
	Hold(ctx context.Context, key Key, stamps []Stamp) error

	// GiveUp ends what a Lookup that was not Busy began, without a result. It does not
	// wait for the store.
	GiveUp(key Key, stamps []Stamp)

	// Abandon is GiveUp by one who has run the SELECT, or tried to. Those who were Busy do
	// not wait for each other then. It does not wait for the store.
	Abandon(key Key, stamps []Stamp)

	// Writers returns those who have intents in the store now, dead or alive.
	Writers(ctx context.Context) ([]WriterID, error)

	// Resolve drops every intent of writers that are over, and gives the tags
	// new stamps, as Release does.
	Resolve(ctx context.Context, over []WriterID) error

	// Renew makes the lease last until Lease after this call began, if sure says
	// that it may; if the lease has run out or the epoch has ended, it begins
	// the next. sure is not called while most of the lease is left.
	//
	// sure reports that, after it was called, PostgreSQL had nobody who commits
	// past the store, and that it has seen over what fresh says.
	//
	// live reports that a lease stands on return.
	Renew(ctx context.Context, sure func(ctx context.Context, fresh Fresh) (bool, error)) (live bool, err error)

	// Check asks the store whether it can be used as configured. An error
	// names what is wrong: address, credentials, version, role, TLS.
	Check(ctx context.Context) error

	// SharedStats returns counters of this process since the store was opened.
	SharedStats() SharedStats
}

// Fresh is what a lease is wanted for: an epoch that has begun and has none yet, if Epoch
// is not empty, about which Renew asks again until it gets one; else one that has.
type Fresh struct {
	// Epoch names it. Every write must be over that was under way when sure was
	// first asked with that name: its marks may be what the store has lost.
	Epoch string

	// Marked are writers whose marks are in the store now, all of them. They need
	// not be waited for.
	Marked []WriterID

	// Left is what is left of the lease that is to be renewed, if Epoch is empty.
	Left time.Duration

	// Kept: only the lease of the epoch before has run out, and the store has lost no mark.
	// Then nobody need be waited for but who may commit past the store.
	Kept bool
}

// Marked is what Mark found beside setting the intents.
type Marked struct {
	// Schema: the catalog tag no longer had the stamp given, so the tags may have
	// been planned with an old catalog; the schema tag was marked as well.
	Schema bool

	// Wait is how long COMMIT must still wait: the epoch is so young that a
	// lease of another one, on a server that has been replaced, may stand.
	Wait time.Duration

	// Tags are those of the given that have the intent now. The others are of relations that
	// are closed, see Closable.
	Tags []Tag
}

// Agreement is what Agree found.
type Agreement uint8

const (
	Agreed   Agreement = iota // the digest is the one that is kept
	Replaced                  // it is kept now, and everything is cold
	Moved                     // the catalog may have been loaded before that of the digest
)

// SharedStats counts what this process met in a shared store.
type SharedStats struct {
	Trips    uint64 // round trips
	Errors   uint64 // of which failed, time-outs included
	Timeouts uint64
	Garbage  uint64 // entries that could not be read: damaged, of another format, or of an unknown key
	Dropped  uint64 // fills that were not stored: too many at once, store down or full
	Epochs   uint64 // ends of an epoch seen
	Closed   int    // relations that are not open to the cache now, because it gains nothing of them: see Closable
	Down     bool   // not reachable now; reads go to PostgreSQL
}
