package space

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/internal/flight"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/through"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Space is what all connections of this process to one database share: the
// store, the writers whose commit is under way, and the catalog. A second
// sql.DB on the same database must join it, or a write in one would leave
// stale entries in the other.
type Space struct {
	Key     spaceKey
	named   string // as the connector's storeName that made it
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
	// underway counts the statements between their marks and PostgreSQL's answer, adrift
	// those of them that a pooler may lead elsewhere, and after are the
	// spaces whose statements this one waits for.
	Superseded       atomic.Bool
	Underway, Adrift atomic.Int64
	after            []*Space

	// users are connectors, dialled connections and writers whose outcome is
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

// Join returns the space of a database and counts the caller in; nil if it
// caches nothing and nobody else does. Who wants another store than those who are there
// joins them all the same, for what it writes concerns them, and caches nothing: two stores
// would not hear of each other's writes. To processes that share the store which it has named it
// shows itself as every process with another one does.
//
// Who has reached what may have become of another database supersedes that, for
// others may not know yet where it is. again: it was reached since others were,
// so all of them are alive.
func Join(d *Member, s *backend.Session, again bool) (sp *Space, err error) {
	var ended []*Space
	defer func() {
		for _, before := range ended {
			before.Supersede()
		}
	}()
	spacesMu.Lock()
	defer spacesMu.Unlock()
	key := spaceKey{s.ID, d.Process}
	sp = spaces[key]
	off := sp == nil && d.Config.Store == config.StoreOff
	for other, before := range spaces {
		p := PairOf(key.Identity, other.Identity)
		if other.process != key.process || other.System != key.System || !key.Related(other.Identity) || alive[p] {
			continue
		}
		switch {
		case again && other.Started != key.Started: // else it has lost its name and got it back
			alive[p] = true
		case sp == nil && !(off && doubted[p]):
			ended = append(ended, before)
			doubted[p] = off
		}
	}
	if off {
		d.standOutside(key)
		return nil, nil // nobody caches, yet
	}
	d.comeInside(key)
	if sp == nil {
		sp = newSpace(d, s)
		sp.Key, sp.named, sp.after = key, d.StoreName, ended
		past = slices.DeleteFunc(past, func(before *Space) bool { return before.settled(before.Key.Identity) })
		for _, before := range past {
			if before.Key.process == key.process && (before.Key == key || key.Related(before.Key.Identity)) {
				sp.after = append(sp.after, before)
			}
		}
		spaces[key] = sp
	}
	local, isLocal := sp.Store.(LocalStore)
	stranger := sp.named != d.StoreName
	switch {
	case stranger && d.Config.WritesBehind():
		return nil, fmt.Errorf("%w; what it has queued would come after what is written now", ErrOtherStore)
	case isLocal && !stranger:
		local.Grow(d.Config.Memory)
	}
	sp.Guard.Add(d.Dialler)
	if !stranger {
		sp.joinFeed(d)
	}
	sp.users++
	return sp, nil
}

func newSpace(d *Member, s *backend.Session) *Space {
	sp := &Space{Gens: invalidation.NewGenerations(), Guard: &guard.Guard{ID: s.ID},
		Refresh: &Backoff{Min: time.Second, Max: time.Minute}, warming: &Backoff{Min: 5 * time.Millisecond, Max: time.Second}}
	sp.Loads = newLoads(sp)
	sp.Flushed.sp = sp
	sp.Before.Store(new(UnderWay))
	if d.Target == nil {
		sp.Peers = peers.New(sp.Guard, d.Process, peers.NewCamp(peers.InMemory, rand.Text()).Self(), "", sp.chill)
		sp.Peers.Watches, sp.Peers.ByEvents = true, d.Config.External == config.ExternalEvents
		sp.Store = store.NewMemory(store.Options{Bytes: d.Config.Memory})
		sp.Writes = invalidation.New(sp.Store, invalidation.Options{Local: true})
		if d.Watches {
			sp.Guard.Add(d.Dialler) // it asks at once
			sp.Lease = newWatchLease(sp)
		}
		return sp
	}
	shared := redis.Open(d.Target, redis.Options{Identity: s.ID.String() + d.format(), Database: s.ID.System + "/" + s.ID.Database, Families: s.ID.Families(),
		Server: s.ID.System + "/" + s.ID.Started + d.format()}) // who has another format may be alive beside us
	sp.Store = shared
	sp.Writes = invalidation.New(shared, invalidation.Options{Timeout: guard.AskTimeout})
	sp.Before.Load().Warm.Store(true)
	sp.Keeper = newKeeper(shared, s.ID, d.Config.External == config.ExternalWAL, &sp.Log, func(g *guard.Guard) *peers.Peers {
		p := peers.New(g, d.Process, peers.SharedCamp(shared), d.Config.Agreed(), nil)
		p.ByEvents = d.Config.External == config.ExternalEvents
		return p
	})
	sp.Guard, sp.Peers = &sp.Keeper.Guard, sp.Keeper.Peers
	sp.Keeper.start(sp)
	return sp
}

// Enter counts a user in; only who knows of another user may call it.
func (sp *Space) Enter() {
	spacesMu.Lock()
	sp.users++
	spacesMu.Unlock()
}

// Leave counts a user out; the last one takes the cache with it.
func (sp *Space) Leave() {
	spacesMu.Lock()
	sp.users--
	last := sp.users == 0
	if last && spaces[sp.Key] == sp {
		delete(spaces, sp.Key)
	}
	spacesMu.Unlock()
	if last {
		sp.Loads.close()
		if f := sp.Feed.Load(); f != nil {
			f.Close()
		}
		if sp.Lease != nil {
			sp.Lease.close()
		}
		sp.Flushed.close()
		_ = sp.Writes.Close()
		if sp.Keeper != nil {
			sp.Keeper.close()
		} else {
			sp.Peers.Close()
			sp.Guard.Close()
		}
		_ = sp.Store.Close()
	}
}

// Unavailable says why there is no catalog to plan with, as far as it is the
// store's doing: without it nobody knows which changes a catalog has seen.
func (sp *Space) Unavailable() keying.Reason {
	switch {
	case sp == nil:
	case sp.Keeper != nil:
		return sp.Keeper.trouble()
	case sp.Peers != nil:
		sp.Peers.Watch() // who cannot ask for the one cannot ask for the other either, and Stats says so
	}
	return keying.CatalogUnavailable
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

// Backoff limits how often something is tried that PostgreSQL has to be asked for.
type Backoff struct {
	Min, Max time.Duration

	mu    sync.Mutex // guards the fields below
	after time.Time
	wait  time.Duration
}

// Due reports that it may be tried now, and puts the next try off.
func (b *Backoff) Due(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.after) {
		return false
	}
	b.wait = min(max(2*b.wait, b.Min), b.Max)
	b.after = now.Add(b.wait)
	return true
}

// Helped makes the next try due at once.
func (b *Backoff) Helped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait, b.after = 0, time.Time{}
}
