package invalidation

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

func mustIntend(t *testing.T, w *Write, n ...int) {
	t.Helper()
	if err := w.Intend(ctx, tags(n...)); err != nil {
		t.Fatal(err)
	}
}

func closeNow(t *testing.T, c *Coordinator) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// I2: what is intended again is not sent again, what is new is.
func TestIntendAddsTags(t *testing.T) {
	s := newScripted()
	c := New(s, Options{Local: true})
	w := c.Begin()
	mustIntend(t, w)
	mustIntend(t, w, 1, 2, 1)
	mustIntend(t, w, 2, 1)
	mustIntend(t, w, 3, 2)
	s.want(t, "intend 1 2", "intend 3")
	w.Release()
	s.want(t, "release 1 2 3")
	w.Release()
	w.Abandon(nil)
	if err := w.Intend(ctx, tags(4)); err == nil {
		t.Error("Intend after Release")
	}
	s.want(t)
	if got := c.Stats(); got != (Stats{Intents: 2, Releases: 1}) {
		t.Errorf("stats: %+v", got)
	}
	closeNow(t, c)
}

// sparing is a scripted store that spares.
type sparing struct{ *scripted }

func (s sparing) Spare(_ context.Context, w store.WriterID, tags []store.Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record("spare", tags)
	if err := s.fails(); err != nil {
		return err
	}
	for _, t := range tags {
		delete(s.dirty, t)
	}
	return nil
}

// I27: what is spared is no part of the write any more, nothing else is spared, and what
// could not be is released.
func TestSpare(t *testing.T) {
	s := sparing{newScripted()}
	c := New(s, Options{Local: true})
	spare := func(w *Write, want error, n ...int) {
		t.Helper()
		if err := w.Spare(ctx, tags(n...)); err != want {
			t.Errorf("Spare: %v, want %v", err, want)
		}
	}
	w := c.Begin()
	spare(w, nil, 1)
	mustIntend(t, w, 1, 2, 3)
	mustIntend(t, w, 4)
	w.Remember(tags(5))
	spare(w, nil, 5, 6, 3, 1, 3)
	spare(w, nil, 3)
	s.failing = 1
	spare(w, errStore, 2)
	mustIntend(t, w, 3, 4) // sends what it remembers as well
	spare(w, nil, 5)
	s.want(t, "intend 1 2 3", "intend 4", "spare 3 1 3", "spare 2", "intend 5 3", "spare 5")
	s.failing = 1
	w.Release()
	spare(w, errOver, 2)
	c.Kick()
	closeNow(t, c)
	s.want(t, "release 2 4 3", "release 2 4 3")
	if got := c.Stats(); got != (Stats{Intents: 3, Spared: 3, Releases: 1, ReleaseFailures: 1}) {
		t.Errorf("stats: %+v", got)
	}
}

func TestSpareInAStoreThatCannot(t *testing.T) {
	s := newScripted()
	c := New(s, Options{Local: true})
	w := c.Begin()
	mustIntend(t, w, 1, 2)
	if err := w.Spare(ctx, tags(1)); err != nil {
		t.Error(err)
	}
	w.Release()
	s.want(t, "intend 1 2", "release 1 2")
	closeNow(t, c)
}

func TestIntendOfManyTags(t *testing.T) {
	s := newScripted()
	c := New(s, Options{Local: true})
	w := c.Begin()
	for i := range 100 {
		mustIntend(t, w, i, i/2, 100-i)
	}
	s.wantDirty(t, 101)
	w.Release()
	s.wantDirty(t, 0)
	closeNow(t, c)
}

func TestWriteWithoutTagsCostsNothing(t *testing.T) {
	s := newScripted()
	c := New(s, Options{})
	c.Begin().Release()
	c.Begin().Abandon(func(context.Context) (bool, error) { panic("nothing to ask for") })
	closeNow(t, c)
	s.want(t)
}

// I6
func TestWriterIDsAreUnique(t *testing.T) {
	c := New(newScripted(), Options{Local: true})
	seen := map[store.WriterID]bool{{}: true}
	for range 1000 {
		id := c.Begin().ID()
		if seen[id] {
			t.Fatalf("id %x twice", id)
		}
		seen[id] = true
	}
}

// I11: what a failed Intend may have marked is released like the rest.
func TestFailedIntendIsReleased(t *testing.T) {
	s := newScripted()
	s.half = true
	c := New(s, Options{Local: true})
	w := c.Begin()
	mustIntend(t, w, 1)
	s.failing = 1
	if err := w.Intend(ctx, tags(2, 3)); !errors.Is(err, errStore) {
		t.Fatalf("Intend: %v", err)
	}
	s.wantDirty(t, 2)
	mustIntend(t, w, 2) // again: all that is not acknowledged is sent
	s.want(t, "intend 1", "intend 2 3", "intend 2 3")
	s.wantDirty(t, 3)
	w.Release()
	s.want(t, "release 1 2 3")
	s.wantDirty(t, 0)
	closeNow(t, c)
}

// I11: a local release is done when Release returns; one that fails is repeated
// all the same.
func TestReleaseIsRepeated(t *testing.T) {
	for _, local := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted()
			c := New(s, Options{Local: local})
			w := c.Begin()
			mustIntend(t, w, 1)
			s.failing = 20
			begin := time.Now()
			w.Release()
			if got := c.Stats().Pending; local && got != 1 {
				t.Errorf("local=%v: %d pending", local, got)
			}
			for i := range 8 {
				time.Sleep(c.releaser.maxWait)
				synctest.Wait()
				if got := c.Stats(); i < 4 && (got.Pending != 1 || got.Releases != 0 || got.Unresolved != 0) {
					t.Errorf("local=%v: %+v after %v", local, got, time.Since(begin))
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			s.wantDirty(t, 0)
			if got := c.Stats(); got.Pending != 0 || got.Releases != 1 || got.ReleaseFailures != 20 {
				t.Errorf("local=%v: %+v", local, got)
			}
			closeNow(t, c)
		})
	}
}

func TestRemoteReleaseDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		s.block = func(ctx context.Context) { time.Sleep(time.Second) }
		c := New(s, Options{})
		begin := time.Now()
		for i := range 100 {
			w := c.Begin()
			mustIntend(t, w, i)
			w.Release()
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("100 releases took the caller %v", d)
		}
		closeNow(t, c) // waits for them
		if d := time.Since(begin); d != time.Second {
			t.Errorf("100 releases took %v, want those of one", d)
		}
		s.wantDirty(t, 0)
	})
}

// I4: the intents stay while PostgreSQL cannot say that the transaction is
// over, for ever if need be.
func TestAbandonWaitsForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{})
		w := c.Begin()
		mustIntend(t, w, 1, 2)
		begin := time.Now()
		var mu sync.Mutex
		var asked []time.Duration
		askedAt := func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asked)
		}
		var over, fail atomic.Bool
		w.Abandon(func(ctx context.Context) (bool, error) {
			mu.Lock()
			asked = append(asked, time.Since(begin))
			mu.Unlock()
			if fail.Load() {
				return true, errors.New("connection refused") // an error is no answer
			}
			return over.Load(), nil
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s.wantDirty(t, 2)
		if got := c.Stats(); got.Unresolved != 1 || got.OldestUnresolved != 10*time.Minute || got.Pending != 0 {
			t.Errorf("stats: %+v", got)
		}
		at := askedAt()
		if len(at) < 120 || len(at) > 260 {
			t.Errorf("asked %d times in 10 minutes", len(at))
		}
		if at[0] > 20*time.Millisecond || at[1] > 80*time.Millisecond {
			t.Errorf("asked after %v", at[:2])
		}
		fail.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		s.wantDirty(t, 2)
		fail.Store(false)
		over.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		s.wantDirty(t, 0)
		n := len(askedAt())
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(askedAt()) != n {
			t.Error("asked again after the answer")
		}
		if got := c.Stats(); got != (Stats{Intents: 1, Releases: 1}) {
			t.Errorf("stats: %+v", got)
		}
		// Not closed: the bubble ends only because no goroutine is left.
	})
}

func TestKick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{})
		c.Kick()
		var over atomic.Bool
		for i := range 3 {
			w := c.Begin()
			mustIntend(t, w, i)
			w.Abandon(func(context.Context) (bool, error) { return over.Load(), nil })
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		over.Store(true)
		s.wantDirty(t, 3)
		begin := time.Now()
		c.Kick()
		synctest.Wait()
		s.wantDirty(t, 0)
		if d := time.Since(begin); d != 0 {
			t.Errorf("resolved %v after the kick", d)
		}
	})
}

// A new unknown outcome does not wait for the back-off of an old one.
func TestAbandonBesideAnOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{})
		old := c.Begin()
		mustIntend(t, old, 1)
		old.Abandon(func(context.Context) (bool, error) { return false, nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		for range 10 { // wherever in its back-off the old one is
			time.Sleep(700 * time.Millisecond)
			young := c.Begin()
			mustIntend(t, young, 2)
			young.Abandon(func(context.Context) (bool, error) { return true, nil })
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if got := c.Stats().Unresolved; got != 1 {
				t.Fatalf("%d outcomes unknown after the shortest back-off", got)
			}
		}
		if err := c.Close(); err == nil {
			t.Error("Close with an unknown outcome: no error")
		}
	})
}

// What happens while the resolver is asking may be newer than the answer.
func TestKickWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{})
		asking, answer := make(chan struct{}), make(chan bool)
		w := c.Begin()
		mustIntend(t, w, 1)
		w.Abandon(func(context.Context) (bool, error) {
			asking <- struct{}{}
			return <-answer, nil
		})
		for range 20 {
			<-asking
			answer <- false
		}
		<-asking
		begin := time.Now()
		c.Kick()
		answer <- false
		<-asking
		if d := time.Since(begin); d != 0 {
			t.Errorf("asked again only %v after the kick", d)
		}
		answer <- true
		synctest.Wait()
		s.wantDirty(t, 0)
	})
}

// One question that is never answered delays the others by its timeout, no more.
func TestHungQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{Timeout: time.Second})
		hung, fine := c.Begin(), c.Begin()
		mustIntend(t, hung, 1)
		mustIntend(t, fine, 2)
		hung.Abandon(func(ctx context.Context) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		})
		fine.Abandon(func(context.Context) (bool, error) { return true, nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s.wantDirty(t, 1)
		if err := c.Close(); err == nil {
			t.Error("Close with an unknown outcome: no error")
		}
		s.wantDirty(t, 1)
	})
}

func TestCloseTriesPendingReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		c := New(s, Options{})
		w := c.Begin()
		mustIntend(t, w, 1)
		s.failing = 15 // the back-off is at its longest then
		w.Release()
		for c.Stats().ReleaseFailures < 15 {
			time.Sleep(10 * time.Millisecond)
		}
		begin := time.Now()
		closeNow(t, c)
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close took %v", d)
		}
		s.wantDirty(t, 0)
	})
}

func TestCloseGivesUpAStoreThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		s.block = func(ctx context.Context) { <-ctx.Done() }
		c := New(s, Options{Timeout: time.Second})
		for i := range 3 {
			w := c.Begin()
			mustIntend(t, w, i)
			w.Release()
		}
		synctest.Wait()
		begin := time.Now()
		err := c.Close()
		if err == nil || err.Error() != "cachedpg: the tags of 3 writes stay marked in the store" {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestWritesAfterClose(t *testing.T) {
	for _, local := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted()
			c := New(s, Options{Local: local})
			closeNow(t, c)
			w := c.Begin()
			mustIntend(t, w, 1)
			w.Release()
			s.wantDirty(t, 0)
			w = c.Begin()
			mustIntend(t, w, 2)
			s.failing = 1
			w.Release()
			w = c.Begin()
			mustIntend(t, w, 3)
			w.Abandon(func(context.Context) (bool, error) { panic("asked after Close") })
			time.Sleep(time.Hour)
			s.wantDirty(t, 2)
			if err := c.Close(); err == nil {
				t.Error("a second Close knows nothing of what is left")
			}
		})
	}
}

// The whole path with the real store, where it must not cost much.
func BenchmarkWrite(b *testing.B) {
	s := store.NewMemory(store.Options{})
	c := New(s, Options{Local: true})
	g := NewGenerations()
	two := tags(1, 2)
	b.ReportAllocs()
	for b.Loop() {
		leave := g.Enter()
		w := c.Begin()
		if err := w.Intend(ctx, two); err != nil {
			b.Fatal(err)
		}
		w.Release()
		leave()
	}
}
