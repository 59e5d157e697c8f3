package cachedpg

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
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

// space is what all connections of this process to one database share: the
// store, the writers whose commit is under way, and the catalog. A second
// sql.DB on the same database must join it, or a write in one would leave
// stale entries in the other.
type space struct {
	key     spaceKey
	named   string // as the connector's storeName that made it
	store   store.Store
	keeper  *keeper              // of a store that processes share, else nil
	guard   *guard.Guard         // the keeper's, if there is one
	peers   *peers               // the keeper's, if there is one
	lease   *watchLease          // of a store in memory; nil where a test plays PostgreSQL
	flushed flusher              // what waits for the log to be on disk
	log     backend.Log          // of PostgreSQL
	feed    atomic.Pointer[feed] // from the write-ahead log; nil if nobody has asked for it
	writes  *invalidation.Coordinator
	gens    *invalidation.Generations
	flights flights
	large   oversize
	recipes recipes // of strategy write-through

	// view is the catalog as far as it is known to be current; nil after a
	// DDL until someone loads it again.
	view   atomic.Pointer[view]
	loads  *loads
	viewMu sync.Mutex // orders publishing a view and dropping it; guards digest

	// digest is that of the catalog which everything in the store in memory was
	// planned with; zero when nothing is valid that was planned.
	digest catalog.Digest

	refresh  *backoff
	problems problems // of the driver's own work

	// A commit that was under way when a cache in memory began was marked by
	// nobody, or by a process that has died since; until it is over nothing is
	// stored. A shared store asks for the same by itself, see keeper.
	before  atomic.Pointer[underWay]
	warming *backoff

	asynchronous atomic.Bool   // some session has had synchronous_commit=off, or may have
	configured   atomic.Uint64 // counts how often the server's configuration was found changed

	// superseded: the database is elsewhere, see move.go. In a space in memory
	// underway counts the statements between their marks and PostgreSQL's answer, adrift
	// those of them that a pooler may lead elsewhere, and after are the
	// spaces whose statements this one waits for.
	superseded       atomic.Bool
	underway, adrift atomic.Int64
	after            []*space

	// users are connectors, dialled connections and writers whose outcome is
	// not known. While there is one a commit of ours may become visible, and a
	// new space would not hear of it. Guarded by spacesMu.
	users int
}

// localStore is a store in this process. It is an interface so that a test can
// put one with faults in its place.
type localStore interface {
	store.Store
	Grow(bytes int64)
	Stats() store.MemoryStats
}

// view is a catalog snapshot and the stamp that the schema tag had before it
// was loaded. A fill whose lookup saw another stamp planned with an old catalog.
type view struct {
	snapshot *catalog.Snapshot
	stamp    store.Stamp // zero when the tag was dirty: good for planning writes only
	catalog  store.Stamp // of the catalog tag, in a store that processes share
}

// same reports that what was planned with one view holds in the other: no DDL
// lies between them.
func (v *view) same(w *view) bool {
	return v == w || v != nil && w != nil && v.catalog != 0 && v.catalog == w.catalog
}

var (
	spacesMu sync.Mutex
	spaces   = make(map[spaceKey]*space)
	alive    = make(map[pair]bool) // databases that were reached at the same time
	doubted  = make(map[pair]bool) // and those of which that is to be found out, for DBs without a space
	past     []*space              // superseded, and not settled
)

// spaceKey names a space. Process is empty but in tests, which play several
// processes in one.
type spaceKey struct {
	backend.Identity
	process string
}

// joinSpace returns the space of a database and counts the caller in; nil if it
// caches nothing and nobody else does. Who wants another store than those who are there
// joins them all the same, for what it writes concerns them, and caches nothing: two stores
// would not hear of each other's writes. To processes that share the store which it has named it
// shows itself as every process with another one does.
//
// Who has reached what may have become of another database supersedes that, for
// others may not know yet where it is. again: it was reached since others were,
// so all of them are alive.
func joinSpace(d *connector, s *backend.Session, again bool) (sp *space, err error) {
	var ended []*space
	defer func() {
		for _, before := range ended {
			before.supersede()
		}
	}()
	spacesMu.Lock()
	defer spacesMu.Unlock()
	key := spaceKey{s.ID, d.process}
	sp = spaces[key]
	off := sp == nil && d.config.Store == storeOff
	for other, before := range spaces {
		p := pairOf(key.Identity, other.Identity)
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
		sp.key, sp.named, sp.after = key, d.storeName, ended
		past = slices.DeleteFunc(past, func(before *space) bool { return before.settled(before.key.Identity) })
		for _, before := range past {
			if before.key.process == key.process && (before.key == key || key.Related(before.key.Identity)) {
				sp.after = append(sp.after, before)
			}
		}
		spaces[key] = sp
	}
	local, isLocal := sp.store.(localStore)
	stranger := sp.named != d.storeName
	switch {
	case stranger && d.config.writesBehind():
		return nil, fmt.Errorf("%w; what it has queued would come after what is written now", errOtherStore)
	case isLocal && !stranger:
		local.Grow(d.config.Memory)
	}
	sp.guard.Add(d)
	if !stranger {
		sp.joinFeed(d)
	}
	sp.users++
	return sp, nil
}

// stranger reports that the space keeps its entries elsewhere than d is to: d writes in
// it, and reads nothing from it.
func (d *connector) stranger(sp *space) bool {
	return sp != nil && sp.named != "" && sp.named != d.storeName
}

// strangerThan is stranger in words; nil also for who wants no store.
func (d *connector) strangerThan(sp *space) error {
	if d.config.Store == storeOff || !d.stranger(sp) {
		return nil
	}
	return errOtherStore
}

func newSpace(d *connector, s *backend.Session) *space {
	sp := &space{gens: invalidation.NewGenerations(), guard: &guard.Guard{ID: s.ID},
		refresh: &backoff{min: time.Second, max: time.Minute}, warming: &backoff{min: 5 * time.Millisecond, max: time.Second}}
	sp.loads = newLoads(sp)
	sp.flushed.sp = sp
	sp.before.Store(new(underWay))
	if d.target == nil {
		sp.peers = newPeers(sp.guard, d.process, newCamp(campMemory, rand.Text()).self(), "", sp.chill)
		sp.peers.watches, sp.peers.byEvents = true, d.config.External == externalEvents
		sp.store = store.NewMemory(store.Options{Bytes: d.config.Memory})
		sp.writes = invalidation.New(sp.store, invalidation.Options{Local: true})
		if d.watches {
			sp.guard.Add(d) // it asks at once
			sp.lease = newWatchLease(sp)
		}
		return sp
	}
	shared := redis.Open(d.target, redis.Options{Identity: s.ID.String() + d.format(), Database: s.ID.System + "/" + s.ID.Database, Families: s.ID.Families(),
		Server: s.ID.System + "/" + s.ID.Started + d.format()}) // who has another format may be alive beside us
	sp.store = shared
	sp.writes = invalidation.New(shared, invalidation.Options{Timeout: guard.AskTimeout})
	sp.before.Load().warm.Store(true)
	sp.keeper = newKeeper(shared, s.ID, d.config.External == externalWAL, &sp.log, func(g *guard.Guard) *peers {
		p := newPeers(g, d.process, sharedCamp(shared), d.config.agreed(), nil)
		p.byEvents = d.config.External == externalEvents
		return p
	})
	sp.guard, sp.peers = &sp.keeper.guard, sp.keeper.peers
	sp.keeper.start(sp)
	return sp
}

// enter counts a user in; only who knows of another user may call it.
func (sp *space) enter() {
	spacesMu.Lock()
	sp.users++
	spacesMu.Unlock()
}

// leave counts a user out; the last one takes the cache with it.
func (sp *space) leave() {
	spacesMu.Lock()
	sp.users--
	last := sp.users == 0
	if last && spaces[sp.key] == sp {
		delete(spaces, sp.key)
	}
	spacesMu.Unlock()
	if last {
		sp.loads.close()
		if f := sp.feed.Load(); f != nil {
			f.close()
		}
		if sp.lease != nil {
			sp.lease.close()
		}
		sp.flushed.close()
		_ = sp.writes.Close()
		if sp.keeper != nil {
			sp.keeper.close()
		} else {
			sp.peers.close()
			sp.guard.Close()
		}
		_ = sp.store.Close()
	}
}

// unavailable says why there is no catalog to plan with, as far as it is the
// store's doing: without it nobody knows which changes a catalog has seen.
func (sp *space) unavailable() keying.Reason {
	switch {
	case sp == nil:
	case sp.keeper != nil:
		return sp.keeper.trouble()
	case sp.peers != nil:
		sp.peers.watch() // who cannot ask for the one cannot ask for the other either, and Stats says so
	}
	return keying.CatalogUnavailable
}

// dropView forgets the catalog after a DDL whose outcome is known, before the
// schema tag is released: who plans from now on loads anew. Writers that
// planned before are waited for, see invalidation.Generations.
func (sp *space) dropView() (generation uint64) {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	sp.view.Store(nil)
	sp.digest = catalog.Digest{}
	sp.loads.retry.helped() // it may have mended what has kept it from being loaded
	return sp.gens.Advance()
}

// invalidateAll makes everything stale, plans included.
func (sp *space) invalidateAll(ctx context.Context) error {
	if sp.keeper != nil {
		// What changed is committed already, so new stamps are enough. An intent
		// of a process that dies here would stay: nobody could tell that it is over.
		sp.dropView()
		return sp.store.Release(ctx, store.NewWriter(), everything)
	}
	write := sp.writes.Begin()
	err := write.Intend(ctx, everything)
	sp.gens.WhenOlderLeft(sp.dropView(), write.Release)
	return err
}

// everything is what nothing that is cached or planned survives.
var everything = []store.Tag{{Kind: store.TagSchema}, {Kind: store.TagCatalog}}

// chill makes the cache in memory begin anew: what it holds may be of before a
// commit that nobody has marked here.
func (sp *space) chill(ctx context.Context, first bool) {
	sp.before.Store(new(underWay))
	sp.warming.helped()
	if !first {
		_ = sp.invalidateAll(ctx) // of a store in this process it cannot fail
	}
}

// backoff limits how often something is tried that PostgreSQL has to be asked for.
type backoff struct {
	min, max time.Duration

	mu    sync.Mutex // guards the fields below
	after time.Time
	wait  time.Duration
}

// due reports that it may be tried now, and puts the next try off.
func (b *backoff) due(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.after) {
		return false
	}
	b.wait = min(max(2*b.wait, b.min), b.max)
	b.after = now.Add(b.wait)
	return true
}

// helped makes the next try due at once.
func (b *backoff) helped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait, b.after = 0, time.Time{}
}
