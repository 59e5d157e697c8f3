package space

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Keeper looks after a store that processes share. It keeps the store's lease
// by asking PostgreSQL, warms the store up after it has lost its memory, and
// resolves the intents of writers that died.
type Keeper struct {
	Store  store.Shared
	log    *backend.Log
	Guard  guard.Guard
	watch  watch
	Notice guard.Notice
	Peers  *peers.Peers
	space  *Space
	Doors  Doorkeeper

	Live     atomic.Bool
	reached  atomic.Bool   // the store could be used at least once
	dirty    atomic.Bool   // a lookup has met an intent since the last sweep
	feeds    atomic.Bool   // no lease without a feed that is live, see feed.go
	feedless atomic.Bool   // and there was none when a renewal asked
	nudged   chan struct{} // a lookup has met the store cold, or a notice can be lifted

	mu    sync.Mutex    // guards first
	first chan struct{} // closed when a renewal was tried since the store was found cold

	// Of the goroutine alone.
	horizon  horizon
	suspects map[store.WriterID]time.Time // when a sweep saw the writer first
	orphans  []store.WriterID             // by whose ids nothing can be asked
	gone     horizon                      // what orphans wait for
	asked    bool                         // the renewal under way was to be made sure of
	deferred bool                         // one was left to others
	answers  bool                         // the store did, at the last renewal, whatever that found
	doubted  uint64                       // the watch's number when all was made stale, see sameCatalog
	life     context.Context
	unsure   []*unflushed // over, but not known to be on disk

	cancel context.CancelFunc
	done   chan struct{}
}

// A commit takes milliseconds: an intent that is older is worth a question.
const suspectAfter = time.Second

func newKeeper(s store.Shared, id backend.Identity, feeds bool, log *backend.Log, peers func(*guard.Guard) *peers.Peers) *Keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{Store: s, log: log, nudged: make(chan struct{}, 1), first: make(chan struct{}), cancel: cancel, done: make(chan struct{}),
		suspects: make(map[store.WriterID]time.Time)}
	k.Guard.ID = id
	k.feeds.Store(feeds)
	k.Notice.Guard, k.watch.guard = &k.Guard, &k.Guard
	k.life = ctx
	k.Peers = peers(&k.Guard)
	k.Doors.keeper = k
	k.Doors.Store, _ = s.(store.Closable)
	return k
}

// start begins the keeper's work for sp.
func (k *Keeper) start(sp *Space) {
	k.space = sp
	go k.run(k.life)
}

func (k *Keeper) close() {
	k.cancel()
	k.Peers.Close()
	<-k.done
	k.Notice.Close()
	k.Guard.Close()
}

// Abandon ends the keeper's work and leaves everything as it is, as if the process had died.
func (k *Keeper) Abandon() {
	k.cancel()
	<-k.done
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	defer k.Doors.rest()
	var wait time.Duration
	for {
		live := k.renew(ctx)
		switch {
		case live:
			wait = peers.RenewEvery/2 + rand.N(peers.RenewEvery/2)
		case k.Store.SharedStats().Down:
			wait = peers.RenewEvery
		default: // warming up: what it waits for is mostly a matter of milliseconds
			wait = min(max(2*wait, 2*time.Millisecond), peers.RenewEvery)
		}
		if k.dirty.Swap(false) || len(k.suspects) > 0 {
			k.sweep(ctx)
		}
		pause := wait
		if soon := live && k.Doors.tick(ctx); soon || len(k.unsure) > 0 {
			pause = min(wait, flushMaxWait)
		}
		k.Peers.Keep()
		k.Guard.Rest(guard.Rest)
		nudged := k.nudged
		if !live {
			nudged = nil // it is tried as often as makes sense
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-nudged:
			wait = 0
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// renew keeps the lease, or begins one. It reports whether one stands.
func (k *Keeper) renew(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	if k.Notice.Unused() || k.Notice.Idle() && k.answers && k.Store.Check(ctx) == nil {
		k.Notice.Lift() // nobody commits past the store any more
	}
	k.asked = false
	var unsure error
	live, err := k.Store.Renew(ctx, func(ctx context.Context, fresh store.Fresh) (sure bool, err error) {
		sure, err = k.sure(ctx, fresh)
		unsure = err
		return sure, err
	})
	k.space.Problems.Note(WorkWatch, unsure)
	if unsure == nil {
		k.space.Problems.Note(workStore, err)
	}
	k.answers = err == nil || unsure != nil
	k.deferred = k.deferred && k.asked
	if err == nil {
		k.reached.Store(true)
	}
	live = live && err == nil
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Live.Store(live)
	select {
	case <-k.first:
	default:
		close(k.first)
	}
	return live
}

// sure implements what store.Shared.Renew asks for.
func (k *Keeper) sure(ctx context.Context, fresh store.Fresh) (bool, error) {
	if k.feeds.Load() {
		led, err := k.Guard.Yes(ctx, "SELECT "+guard.Held(guard.LockFeed))
		if err == nil {
			k.feedless.Store(!led)
		}
		if err != nil || !led {
			return false, err
		}
	}
	if alone, err := k.Peers.Alone(); err != nil || !alone {
		return false, err
	}
	switch {
	case fresh.Epoch == "":
		k.asked = true
		return k.sameCatalog(ctx, fresh.Left)
	case k.watch.now() == 0:
		_, _ = k.watch.ask(ctx) // the catalog that is loaded next need not be loaded again
	}
	if fresh.Kept && !k.Peers.HasMet() {
		if ok, err := k.Guard.Yes(ctx, "SELECT "+nobodyPast); err != nil || !ok {
			return false, err
		}
		return new(backend.FlushPoint).Forced(ctx, k.log, k.Guard.Text) // who committed past the store may have died since
	}
	if k.horizon.epoch != fresh.Epoch {
		h, err := k.newHorizon(ctx, fresh.Epoch)
		if err != nil {
			return false, err
		}
		k.horizon = h
	}
	return k.horizon.over(ctx, &k.Guard, k.log, fresh.Marked)
}

// storeReason is the bypass reason of an error of the store.
func storeReason(err error) keying.Reason {
	switch {
	case errors.Is(err, store.ErrCold):
		return keying.Warming
	case errors.Is(err, store.ErrDown):
		return keying.StoreDown
	}
	return keying.StoreError
}

// StoreReason is the bypass reason of an error of the space's store.
func (sp *Space) StoreReason(err error) keying.Reason {
	reason := storeReason(err)
	if reason == keying.Warming && sp.Keeper != nil {
		return sp.Keeper.coldBecause()
	}
	return reason
}
