package cachedpg

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// space is what all connections of this process to one database share: the
// store, the writers whose commit is under way, and the catalog. A second
// sql.DB on the same database must join it, or a write in one would leave
// stale entries in the other.
type space struct {
	id      identity
	store   entryStore
	writes  *invalidation.Coordinator
	gens    *invalidation.Generations
	flights flights

	// view is the catalog as far as it is known to be current; nil after a
	// DDL until someone loads it again.
	view    atomic.Pointer[view]
	loading chan struct{} // holds a token while nobody loads
	viewMu  sync.Mutex    // orders publishing a view and dropping it

	refresh *backoff

	// A commit that was under way when the cache began was marked by nobody, or
	// by a process that has died since; until it is over nothing is stored.
	began   string // PostgreSQL's clock when the space was made
	warm    atomic.Bool
	warming *backoff

	// users are connectors, dialled connections and writers whose outcome is
	// not known. While there is one a commit of ours may become visible, and a
	// new space would not hear of it. Guarded by spacesMu.
	users int
}

// entryStore is a store in this process. It is an interface so that a test can
// put one with faults in its place.
type entryStore interface {
	store.Store
	Grow(bytes int64)
	Stats() store.MemoryStats
}

// view is a catalog snapshot and the stamp that the schema tag had before it
// was loaded. A fill whose lookup saw another stamp planned with an old catalog.
type view struct {
	snapshot *catalog.Snapshot
	stamp    store.Stamp // zero when the tag was dirty: good for planning writes only
}

var (
	spacesMu sync.Mutex
	spaces   = make(map[identity]*space)
)

// joinSpace returns the space of a database and counts the caller in.
func joinSpace(id identity, now string, memory int64) *space {
	spacesMu.Lock()
	defer spacesMu.Unlock()
	sp := spaces[id]
	if sp == nil {
		s := store.NewMemory(store.Options{Bytes: memory})
		sp = &space{id: id, store: s, writes: invalidation.New(s, invalidation.Options{Local: true}),
			gens: invalidation.NewGenerations(), loading: make(chan struct{}, 1), began: now,
			refresh: &backoff{min: time.Second, max: time.Minute}, warming: &backoff{min: 5 * time.Millisecond, max: time.Second}}
		sp.loading <- struct{}{}
		spaces[id] = sp
	}
	sp.store.Grow(memory)
	sp.users++
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
	if last {
		delete(spaces, sp.id)
	}
	spacesMu.Unlock()
	if last {
		_ = sp.writes.Close()
		_ = sp.store.Close()
	}
}

// dropView forgets the catalog after a DDL whose outcome is known, before the
// schema tag is released: who plans from now on loads anew. Writers that
// planned before are waited for, see invalidation.Generations.
func (sp *space) dropView() (generation uint64) {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	sp.view.Store(nil)
	return sp.gens.Advance()
}

// invalidateAll makes everything stale, plans included.
func (sp *space) invalidateAll(ctx context.Context) error {
	write := sp.writes.Begin()
	err := write.Intend(ctx, []store.Tag{{Kind: store.TagSchema}})
	sp.gens.WhenOlderLeft(sp.dropView(), write.Release)
	return err
}

// staleView forgets v because the schema tag's stamp has moved past it.
func (sp *space) staleView(v *view) { sp.view.CompareAndSwap(v, nil) }

// loadView returns the current view, loading it with load if nobody has.
// Loads take turns; who waits honours its own context.
func (sp *space) loadView(ctx context.Context, load func(context.Context) (*catalog.Snapshot, error)) (*view, error) {
	select {
	case <-sp.loading:
		defer func() { sp.loading <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if v := sp.view.Load(); v != nil {
		return v, nil
	}
	generation := sp.gens.Current()
	tags := [1]store.Tag{{Kind: store.TagSchema}}
	var stamps [1]store.Stamp
	// No entry has this key. The lookup mints the stamp, and it must be read
	// before the catalog is: a DDL that commits in between moves it.
	if _, _, err := sp.store.Lookup(ctx, store.Key{}, tags[:], stamps[:]); err != nil {
		return nil, err
	}
	snapshot, err := load(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{snapshot: snapshot, stamp: stamps[0]}
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	if sp.gens.Current() == generation {
		sp.view.Store(v)
	}
	return v, nil
}

// isWarm reports that every commit which nobody marked is over. Backends with
// an open transaction or statement are waited for; one that is idle has
// nothing to commit that it has not been sent since.
func (sp *space) isWarm(ctx context.Context, in inner) bool {
	if sp.warm.Load() {
		return true
	}
	if in == nil || !sp.warming.due(time.Now()) {
		return false
	}
	over, err := in.text(ctx, "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()"+
		" AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()"+
		" AND (state <> 'idle' AND state NOT LIKE 'idle in%' AND query_start < to_timestamp("+sp.began+") OR backend_xid IS NOT NULL AND xact_start < to_timestamp("+sp.began+")))")
	if err != nil || over != "t" && over != "true" {
		return false
	}
	sp.warm.Store(true)
	return true
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
