package through

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

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
		if inside.Writes(two.DB) != inside.Writes(one.DB) {
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
		tags := f.TagsOf(harness.UserByID, 1)
		g := gateStore(one)
		for _, at := range []string{"before lookup", "after lookup", "before fill"} {
			f.Step(at, func(f *harness.Fixture) {
				one, two := one, two
				one.F, two.F = f, f
				one.Known(harness.UserByID, 1)
				write := inside.Writes(two.DB).Begin()
				g.next(at, func() {
					if err := write.Intend(f.Ctx, tags); err != nil {
						f.Error(err)
					}
				})
				before := cachedpg.StatsOf(one.DB)
				one.Exec(setCity, at)
				switch at {
				case "before lookup":
					refills(one, before, 0, 1, 0)
				default:
					refills(one, before, 1, 0, 0)
				}
				hits := cachedpg.StatsOf(one.DB).Hits
				one.Fresh(harness.UserByID, 1).Is("1 ann " + at)
				f.Past(setCity, at+" past") // what the writer commits
				one.Fresh(harness.UserByID, 1).Is("1 ann " + at + " past")
				if cachedpg.StatsOf(one.DB).Hits != hits {
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
		before := cachedpg.StatsOf(one.DB)
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
		writes := inside.Writes(one.DB)
		for range 5 {
			one.Known(harness.UserByID, 1)
			g.next("before lookup", func() {
				if n := writes.Stats().Pending; n != 0 {
					f.Errorf("%d releases are on their way", n)
				}
			})
			before := cachedpg.StatsOf(one.DB)
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
