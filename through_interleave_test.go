package cachedpg

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

// storeGate runs something at a step of whoever comes to it next, once.
type storeGate struct {
	mu   sync.Mutex
	then map[string]func()
}

func (g *storeGate) next(at string, then func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.then == nil {
		g.then = make(map[string]func())
	}
	g.then[at] = then
}

func (g *storeGate) pass(at string) {
	g.mu.Lock()
	then := g.then[at]
	delete(g.then, at)
	g.mu.Unlock()
	if then != nil {
		then()
	}
}

// gatedMemory and gatedRedis are stores with gates around what a reader asks.
type gatedMemory struct {
	localStore
	*storeGate
}

func (s gatedMemory) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	s.pass("before lookup")
	defer s.pass("after lookup")
	return s.localStore.Lookup(ctx, key, tags, stamps)
}

func (s gatedMemory) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	s.pass("before fill")
	defer s.pass("after fill")
	return s.localStore.Fill(ctx, key, tags, stamps, entry, ttl)
}

type gatedRedis struct {
	*redis.Store
	*storeGate
}

func (s gatedRedis) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	s.pass("before lookup")
	defer s.pass("after lookup")
	return s.Store.Lookup(ctx, key, tags, stamps)
}

func (s gatedRedis) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	s.pass("before fill")
	defer s.pass("after fill")
	return s.Store.Fill(ctx, key, tags, stamps, entry, ttl)
}

func (s gatedRedis) Stored(ctx context.Context, key store.Key) error {
	s.pass("stored")
	return s.Store.Stored(ctx, key)
}

// gateStore puts gates around the store of v's process, which nobody is using.
func gateStore(v harness.Via) *storeGate {
	g := &storeGate{}
	sp := connectorOf(v.DB).space()
	switch s := sp.store.(type) {
	case localStore:
		sp.store = gatedMemory{s, g}
	case *redis.Store:
		sp.store = gatedRedis{s, g}
	}
	return g
}

// twoWriters is a story of two writers that refill: two processes on one Redis, and
// two connections of one process.
func twoWriters(t *testing.T, story func(f *harness.Fixture, one, two harness.Via)) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
		one := openThrough(f)
		story(f, one, one)
	})
	t.Run("redis", func(t *testing.T) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), usersThrough)
		two := f.Process("two")
		two.Known(harness.UserByID, 1)
		story(f, f.Via, two)
	})
}

const setCity = "UPDATE users SET city = $1 WHERE id = 1"

// I1, I5: whenever the second writer comes between the steps of the first one's
// refill, nothing but his value is ever read.
func TestARefillThatAnotherCommitOvertakesIsNeverRead(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, two harness.Via) {
		one.Known(harness.UserByID, 1)
		g := gateStore(one)
		for _, at := range []string{"before lookup", "after lookup", "before fill", "after fill"} {
			f.Step(at, func(f *harness.Fixture) {
				one, two := one, two
				one.F, two.F = f, f
				one.Known(harness.UserByID, 1)
				two.Known(harness.UserByID, 1)
				overtaken := false
				g.next(at, func() {
					overtaken = true
					two.Exec(setCity, "second "+at)
					two.Hit(harness.UserByID, 1).Is("1 ann second " + at)
				})
				one.Exec(setCity, "first "+at)
				if !overtaken {
					f.Fatal("nobody was overtaken")
				}
				one.Hit(harness.UserByID, 1).Is("1 ann second " + at)
				two.Hit(harness.UserByID, 1).Is("1 ann second " + at)
			})
		}
	})
}

// Two refills that are both late are stored in either order.
func TestTwoLateRefillsMayBeStoredInEitherOrder(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, two harness.Via) {
		one.Known(harness.UserByID, 1)
		g := gateStore(one)
		h := g
		if connectorOf(two.DB).space() != connectorOf(one.DB).space() {
			h = gateStore(two)
		}
		for _, lastIsOlder := range []bool{false, true} {
			one.Known(harness.UserByID, 1)
			two.Known(harness.UserByID, 1)
			atFill, stored, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			first, second := "first", "second"
			if lastIsOlder {
				first, second = "third", "fourth"
			}
			g.next("before fill", func() { // of the first
				h.next("before fill", func() { // of the second
					close(atFill)
					if !lastIsOlder {
						<-stored
					}
				})
				go func() {
					defer close(done)
					two.Exec(setCity, second)
				}()
				<-atFill
				if lastIsOlder {
					<-done
				}
			})
			one.Exec(setCity, first)
			close(stored)
			<-done
			two.Hit(harness.UserByID, 1).Is("1 ann " + second)
			one.Hit(harness.UserByID, 1).Is("1 ann " + second)
		}
	})
}

// I3: while another writer has its marks set, nothing is refilled; and what was
// looked up before them is not found after.
func TestARefillMeetsTheMarksOfAnotherWriter(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, two harness.Via) {
		one.Known(harness.UserByID, 1)
		two.Known(harness.UserByID, 1)
		f.Fresh(harness.UserByID, 1)
		tags := tagsOf(f, harness.UserByID, 1)
		g := gateStore(one)
		for _, at := range []string{"before lookup", "after lookup", "before fill"} {
			f.Step(at, func(f *harness.Fixture) {
				one, two := one, two
				one.F, two.F = f, f
				one.Known(harness.UserByID, 1)
				write := connectorOf(two.DB).space().writes.Begin()
				g.next(at, func() {
					if err := write.Intend(f.Ctx, tags); err != nil {
						f.Error(err)
					}
				})
				before := StatsOf(one.DB)
				one.Exec(setCity, at)
				switch at {
				case "before lookup":
					refills(one, before, 0, 1, 0)
				default:
					refills(one, before, 1, 0, 0)
				}
				hits := StatsOf(one.DB).Hits
				one.Fresh(harness.UserByID, 1).Is("1 ann " + at)
				f.Past(setCity, at+" past") // what the writer commits
				one.Fresh(harness.UserByID, 1).Is("1 ann " + at + " past")
				if StatsOf(one.DB).Hits != hits {
					f.Error("a hit while the other writer's marks stand")
				}
				write.Release()
				one.Released()
				two.Released()
				one.Miss(harness.UserByID, 1).Is("1 ann " + at + " past")
				two.Known(harness.UserByID, 1)
			})
		}
	})
}

// A reader that misses while the writer is refilling shares its SELECT, or has its
// own; the writer waits for neither.
func TestARefillIsLeftToAReaderWhoIsThereAlready(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, _ harness.Via) {
		one.Known(harness.UserByID, 1)
		g := gateStore(one)
		reading, go_ := make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		g.next("before lookup", func() {
			g.next("before fill", func() { // of the reader
				close(reading)
				<-go_
			})
			go func() {
				defer close(done)
				one.Fresh(harness.UserByID, 1).Is("1 ann read")
			}()
			<-reading
		})
		before := StatsOf(one.DB)
		one.Exec(setCity, "read")
		refills(one, before, 0, 1, 0)
		close(go_)
		<-done
		one.Hit(harness.UserByID, 1).Is("1 ann read")
	})
}

// I3: the writer's own marks are gone when it looks up, or it would leave everything
// to the next read.
func TestARefillComesAfterTheRelease(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, _ harness.Via) {
		one.Known(harness.UserByID, 1)
		g := gateStore(one)
		writes := connectorOf(one.DB).space().writes
		for range 5 {
			one.Known(harness.UserByID, 1)
			g.next("before lookup", func() {
				if n := writes.Stats().Pending; n != 0 {
					f.Errorf("%d releases are on their way", n)
				}
			})
			before := StatsOf(one.DB)
			one.Exec(setCity, "after")
			refills(one, before, 1, 0, 0)
		}
	})
}

// A store takes entries in the background; other processes find them when the commit returns.
func TestARefillHasArrivedWhenTheCommitReturns(t *testing.T) {
	twoWriters(t, func(f *harness.Fixture, one, two harness.Via) {
		one.Known(harness.UserByID, 1)
		arrived := f.InMemory()
		gateStore(one).next("stored", func() { arrived = true })
		one.Exec(setCity, "there")
		if !arrived {
			f.Error("nobody has waited for it")
		}
		two.Hit(harness.UserByID, 1).Is("1 ann there")
	})
}
