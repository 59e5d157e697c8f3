package space

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/internal/flight"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/through"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// Space is what all connections of this process to one database share: the
// store, the writers whose commit is under way, and the catalog. A second
// sql.DB on the same database must join it, or a write in one would leave
// stale entries in the other.
type Space struct {
	Key     spaceKey
	named   string // the StoreName of the member that made it
	Store   store.Store
	Keeper  *Keeper                   // of a store that processes share, else nil
	Guard   *guard.Guard              // the keeper's, if there is one
	Peers   *peers.Peers              // the keeper's, if there is one
	Lease   *WatchLease               // of a store in memory; nil where a test plays PostgreSQL
	Flushed flusher                   // what waits for the log to be on disk
	Log     backend.Log               // of PostgreSQL
	Feed    atomic.Pointer[feed.Feed] // from the write-ahead log; nil if nobody has asked for it
	Writes  *invalidation.Coordinator
	Gens    *invalidation.Generations
	Flights flight.Group
	Large   flight.Oversize
	Recipes through.Registry // of strategy write-through

	// View is the catalog as far as it is known to be current; nil after a
	// DDL until someone loads it again.
	View   atomic.Pointer[View]
	Loads  *loads
	viewMu sync.Mutex // orders publishing a view and dropping it; guards digest

	// digest is that of the catalog which everything in the store in memory was
	// planned with; zero when nothing is valid that was planned.
	digest catalog.Digest

	Refresh  *Backoff
	Problems Problems // of the driver's own work

	// A commit that was under way when a cache in memory began was marked by
	// nobody, or by a process that has died since; until it is over nothing is
	// stored. A shared store asks for the same by itself, see keeper.
	Before  atomic.Pointer[UnderWay]
	warming *Backoff

	Asynchronous atomic.Bool   // some session has had synchronous_commit=off, or may have
	Configured   atomic.Uint64 // counts how often the server's configuration was found changed

	// Superseded: the database is elsewhere, see move.go. In a space in memory
	// Underway counts the statements between their marks and PostgreSQL's answer, Adrift
	// those of them that a pooler may lead elsewhere, and after are the
	// spaces whose statements this one waits for.
	Superseded       atomic.Bool
	Underway, Adrift atomic.Int64
	after            []*Space

	// users are members, dialled connections and writers whose outcome is
	// not known. While there is one a commit of ours may become visible, and a
	// new space would not hear of it. Guarded by spacesMu.
	users int
}

// LocalStore is a store in this process. It is an interface so that a test can
// put one with faults in its place.
type LocalStore interface {
	store.Store
	Grow(bytes int64)
	Stats() store.MemoryStats
}

// View is a catalog snapshot and the stamp that the schema tag had before it
// was loaded. A fill whose lookup saw another stamp planned with an old catalog.
type View struct {
	Snapshot *catalog.Snapshot
	Stamp    store.Stamp // zero when the tag was dirty: good for planning writes only
	Catalog  store.Stamp // of the catalog tag, in a store that processes share
}

// Same reports that what was planned with one view holds in the other: no DDL
// lies between them.
func (v *View) Same(w *View) bool {
	return v == w || v != nil && w != nil && v.Catalog != 0 && v.Catalog == w.Catalog
}

// NoCatalog stands in where the catalog cannot be read: every name is
// unknown, so reads bypass and writes invalidate everything.
var NoCatalog = &View{Snapshot: catalog.NewSnapshot(catalog.Contents{})}

var (
	spacesMu sync.Mutex
	spaces   = make(map[spaceKey]*Space)
	alive    = make(map[Pair]bool) // databases that were reached at the same time
	doubted  = make(map[Pair]bool) // and those of which that is to be found out, for DBs without a space
	past     []*Space              // superseded, and not settled
)

// spaceKey names a space. Process is empty but in tests, which play several
// processes in one.
type spaceKey struct {
	backend.Identity
	process string
}

// Enter counts a user in; only who knows of another user may call it.
func (sp *Space) Enter() {
	spacesMu.Lock()
	sp.users++
	spacesMu.Unlock()
}

// DropView forgets the catalog after a DDL whose outcome is known, before the
// schema tag is released: who plans from now on loads anew. Writers that
// planned before are waited for, see invalidation.Generations.
func (sp *Space) DropView() (generation uint64) {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	sp.View.Store(nil)
	sp.digest = catalog.Digest{}
	sp.Loads.retry.Helped() // it may have mended what has kept it from being loaded
	return sp.Gens.Advance()
}

// InvalidateAll makes everything stale, plans included.
func (sp *Space) InvalidateAll(ctx context.Context) error {
	if sp.Keeper != nil {
		// What changed is committed already, so new stamps are enough. An intent
		// of a process that dies here would stay: nobody could tell that it is over.
		sp.DropView()
		return sp.Store.Release(ctx, store.NewWriter(), Everything)
	}
	write := sp.Writes.Begin()
	err := write.Intend(ctx, Everything)
	sp.Gens.WhenOlderLeft(sp.DropView(), write.Release)
	return err
}

// Everything is what nothing that is cached or planned survives.
var Everything = []store.Tag{{Kind: store.TagSchema}, {Kind: store.TagCatalog}}

// chill makes the cache in memory begin anew: what it holds may be of before a
// commit that nobody has marked here.
func (sp *Space) chill(ctx context.Context, first bool) {
	sp.Before.Store(new(UnderWay))
	sp.warming.Helped()
	if !first {
		_ = sp.InvalidateAll(ctx) // of a store in this process it cannot fail
	}
}
