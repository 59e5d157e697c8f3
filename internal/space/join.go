package space

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

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
