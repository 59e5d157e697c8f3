package space

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// loads has the catalog of a space loaded: in the background, one load at a time, over
// a connection of the driver's own. To load it takes as long as it has tables, and while
// somebody holds a lock on one of PostgreSQL's own tables it takes for ever. So it is
// under nobody's deadline and in nobody's transaction, and until it is there reads ask
// PostgreSQL.
//
// No read waits for it, neither in a process that has had no catalog yet nor after a change of the schema. In a
// process without one a Ping waits, and who begins a transaction, in which it could not be had later. Writes
// wait, each of them: what is planned without a catalog makes everything stale, and in the end the load itself
// out of date. Nobody waits for a load that has been under way for as long as patience.Load. After a
// load that has failed the next one begins no sooner than the back-off says.
//
// See docs/decisions/schema.md (D39, D43, D44).
type loads struct {
	space *Space
	retry *Backoff

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex        // guards the fields below
	done   chan struct{}     // closed when the load under way is over; nil while there is none
	began  time.Time         // when it did
	had    bool              // there was a catalog before
	last   *catalog.Snapshot // of the last load; belongs to the load under way
	failed error             // of the last one
	after  <-chan struct{}   // the next one begins when it is closed; nil if at once
}

// releasePatience is how long a load waits for the marks of the DDL before it.
const releasePatience = 100 * time.Millisecond

func newLoads(sp *Space) *loads {
	l := &loads{space: sp, retry: &Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *loads) close() {
	l.cancel()
	l.mu.Lock()
	done := l.done
	l.mu.Unlock()
	if done != nil {
		<-done
	}
}

// Begins reports that there was no catalog yet.
func (l *loads) Begins() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.had
}

// UnderWay reports that the catalog is being loaded.
func (l *loads) UnderWay() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done != nil
}

// Begin has the catalog loaded unless that is under way. It returns nil if the last load
// has failed and it is too soon for another.
func (l *loads) Begin() (done <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beginLocked()
}

func (l *loads) beginLocked() <-chan struct{} {
	switch {
	case l.done != nil:
		return l.done
	case l.ctx.Err() != nil || !l.retry.Due(time.Now()) && !l.warmedUp():
		return nil
	}
	l.done, l.began = make(chan struct{}), time.Now()
	go l.run(l.done)
	return l.done
}

// warmedUp reports that the last load has failed for a reason that is over.
func (l *loads) warmedUp() bool {
	k := l.space.Keeper
	return k != nil && k.Live.Load() && (errors.Is(l.failed, store.ErrCold) || errors.Is(l.failed, store.ErrDown))
}

// Follow makes the next load begin when the marks of a DDL are released: what is loaded while they stand is good for
// planning writes alone, and has to be loaded again. It does not wait for writers who may be long.
func (l *loads) Follow(released <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after = released
}

func (l *loads) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(l.ctx, catalogTimeout)
	l.mu.Lock()
	after := l.after
	l.after = nil
	l.mu.Unlock()
	if after != nil {
		within(ctx, after, releasePatience)
	}
	err := l.space.loadView(ctx)
	cancel()
	l.space.Problems.Note(WorkCatalog, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed, l.had = err, l.had || err == nil
	if err == nil || errors.Is(err, errMovingCatalog) {
		l.retry.Helped()
	}
	l.done = nil
	close(done)
}

// Await returns the catalog in use if it is another than old. Else it has it loaded, and
// waits no longer than limit: for a load that has begun before the call, which may be
// too old, and for one after it. It returns nil if there is no other catalog then.
func (l *loads) Await(ctx context.Context, old *View, limit time.Duration) *View {
	for range 2 {
		if v := l.space.View.Load(); v != nil && v != old {
			return v
		}
		done, left := l.join(limit)
		if done == nil || left <= 0 || !within(ctx, done, patience.For(ctx, left)) {
			break
		}
	}
	if v := l.space.View.Load(); v != old {
		return v
	}
	return nil
}

// join returns the load under way, and how much of limit is left since it has begun.
func (l *loads) join(limit time.Duration) (done <-chan struct{}, left time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done = l.beginLocked()
	return done, limit - time.Since(l.began)
}

// loadView loads the catalog and has it used. What others than the driver do meanwhile
// makes it begin again, see agree.
func (sp *Space) loadView(ctx context.Context) error {
	var generation uint64
	for range loadAttempts {
		v, used, err := sp.loadOnce(ctx, &generation)
		if err != nil || used {
			return err
		}
		if sp.Keeper != nil {
			// What moves may be the doing of writers who plan without a catalog or with
			// an old one. With this one they are sure again, and Mark compares it.
			v.Stamp = 0
			sp.use(v, generation)
		}
	}
	return errMovingCatalog
}

const loadAttempts = 4

var errMovingCatalog = errors.New("cachedpg: the schema changes faster than it can be loaded")

func (sp *Space) loadOnce(ctx context.Context, generation *uint64) (v *View, used bool, err error) {
	*generation = sp.Gens.Current()
	var stamps [2]store.Stamp
	// No entry has this key. The lookup mints the stamps, and they must be read
	// before the catalog is: a DDL that commits in between moves them.
	if _, _, err := sp.Lookup(ctx, store.Key{}, Everything, stamps[:]); err != nil {
		return nil, false, err
	}
	watch, number := sp.watched(ctx)
	snapshot, err := sp.Guard.LoadCatalogAside(ctx, sp.Loads.last)
	sp.Loads.last = snapshot
	if err != nil {
		return nil, false, err
	}
	if watch != nil {
		watch.saw(number, snapshot.Digest())
	}
	agreed, err := sp.agree(ctx, snapshot, &stamps, *generation, number)
	if err != nil {
		return nil, false, err
	}
	v = &View{Snapshot: snapshot, Stamp: stamps[0], Catalog: stamps[1]}
	return v, agreed && sp.use(v, *generation), nil
}

// use makes v the catalog to plan with, unless one of before a DDL of the driver's.
func (sp *Space) use(v *View, generation uint64) bool {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	if sp.Gens.Current() != generation || sp.Superseded.Load() {
		return false
	}
	if now := sp.View.Load(); now == nil || !now.equal(v) {
		sp.View.Store(v)
	}
	return true
}

// equal reports that nothing planned with v would be planned otherwise with w, or
// stored otherwise.
func (v *View) equal(w *View) bool {
	digest := v.Snapshot.Digest()
	return digest != (catalog.Digest{}) && digest == w.Snapshot.Digest() && v.Stamp == w.Stamp && v.Catalog == w.Catalog &&
		v.Snapshot.Incomplete() == w.Snapshot.Incomplete()
}
