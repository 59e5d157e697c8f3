package core

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// I1, I5: a SELECT took its snapshot before a write and ends after it.
func TestAFillThatBeganBeforeAWriteIsNeverUsed(t *testing.T) {
	for _, end := range []string{"commits", "rolls back", "commits and another one is begun"} {
		t.Run(end, func(t *testing.T) {
			play(t, func(s *script) {
				writer, slow, reader := s.session(), s.session(), s.session()
				slow.selects("old").Selected.Set()
				old := slow.aside(s.Context())
				synctest.Wait()
				tx := writer.transaction()
				if end == "rolls back" {
					writer.Mock.ExpectRollback()
					if err := tx.Rollback(); err != nil {
						s.Fatal(err)
					}
					slow.Selected.Let()
					s.is(old, "old")
					reader.gets("old") // nothing has changed: a rollback marks nothing
					return
				}
				writer.Mock.ExpectCommit()
				s.is(commit(tx), "")
				if end != "commits" {
					tx = writer.transaction()
				}
				slow.Selected.Let()
				s.is(old, "old")
				reader.selects("new").gets("new")
				reader.gets("new")
				slow.gets("new")
				if end != "commits" {
					writer.Mock.ExpectCommit()
					s.is(commit(tx), "")
					reader.selects("newer").gets("newer")
				}
			})
		})
	}
}

// I3: a SELECT that ran between intent and release is nobody else's.
func TestAFillBetweenIntentAndReleaseIsNeverUsed(t *testing.T) {
	play(t, func(s *script) {
		writer, slow, reader := s.session(), s.session(), s.session()
		tx := writer.transaction()
		writer.Mock.ExpectCommit()
		writer.Committing.Set()
		done := commit(tx)
		synctest.Wait()
		slow.selects("old").Selected.Set()
		old := slow.aside(s.Context())
		synctest.Wait()
		writer.Committing.Let()
		s.is(done, "")
		slow.Selected.Let()
		s.is(old, "old")
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// I8: a read that must see a write does not join a SELECT that began before it.
func TestAFollowerDoesNotJoinAFlightFromBeforeAWrite(t *testing.T) {
	play(t, func(s *script) {
		writer, slow, reader := s.session(), s.session(), s.session()
		slow.selects("old").Selected.Set()
		old := slow.aside(s.Context())
		synctest.Wait()
		tx := writer.transaction()
		writer.Mock.ExpectCommit()
		s.is(commit(tx), "")
		s.is(reader.selects("new").aside(s.Context()), "new")
		slow.Selected.Let()
		s.is(old, "old")
		slow.gets("new")
	})
}

// Misses of one thing share one SELECT.
func TestFollowersShareTheLeadersSelect(t *testing.T) {
	play(t, func(s *script) {
		leader, one, two := s.session(), s.session(), s.session()
		leader.selects("ann").Selected.Set()
		led := leader.aside(s.Context())
		synctest.Wait()
		first, second := one.aside(s.Context()), two.aside(s.Context())
		synctest.Wait()
		leader.Selected.Let()
		for _, got := range []<-chan harness.Answer{led, first, second} {
			s.is(got, "ann")
		}
		if n := s.d.stats.joined.Load(); n != 2 {
			s.Errorf("%d joined, want 2", n)
		}
	})
}

// A leader's end is its own affair.
func TestALeaderThatEndsWithoutAResultDoesNotHurtItsFollower(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(leader player, cancel func())
		want string
	}{
		{"cancelled", func(_ player, cancel func()) { cancel() }, "context canceled"},
		{"refused", func(leader player, _ func()) { leader.Selected.Let() }, "refused"},
		{"panicking", func(leader player, _ func()) { leader.Panics = true; leader.Selected.Let() }, "panic: scripted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			play(t, func(s *script) {
				leader, follower := s.session(), s.session()
				if tc.name == "refused" {
					leader.fails(errors.New("refused"))
				} else {
					leader.selects("ann")
				}
				leader.Selected.Set()
				leading, cancel := context.WithCancel(s.Context())
				defer cancel()
				led := leader.aside(leading)
				synctest.Wait()
				got := follower.selects("ann").aside(s.Context())
				synctest.Wait()
				if follower.Mock.ExpectationsWereMet() == nil {
					s.Error("the follower did not wait")
				}
				tc.play(leader, cancel)
				if err := s.failed(led); err == nil || err.Error() != tc.want {
					s.Errorf("the leader got %v, want %s", err, tc.want)
				}
				s.is(got, "ann")
				follower.gets("ann")
			})
		})
	}
}

// A follower has a context of its own.
func TestAFollowerHonoursItsOwnContext(t *testing.T) {
	play(t, func(s *script) {
		leader, follower := s.session(), s.session()
		leader.selects("ann").Selected.Set()
		led := leader.aside(s.Context())
		synctest.Wait()
		following, cancel := context.WithCancel(s.Context())
		got := follower.aside(following)
		synctest.Wait()
		cancel()
		if err := s.failed(got); err != context.Canceled {
			s.Errorf("the follower got %v, want context.Canceled", err)
		}
		leader.Selected.Let()
		s.is(led, "ann")
	})
}

// A transaction may hold the lock that the leader waits for; PostgreSQL cannot
// see a deadlock that runs through us.
func TestATransactionDoesNotWaitForALeader(t *testing.T) {
	play(t, func(s *script) {
		leader, other := s.session(), s.session()
		leader.selects("ann").Selected.Set()
		led := leader.aside(s.Context())
		synctest.Wait()
		other.Mock.ExpectBegin()
		tx, err := other.Conn.Begin(s.Context(), driver.TxOptions{})
		if err != nil {
			s.Fatal(err)
		}
		s.is(other.selects("ann").aside(s.Context()), "ann")
		other.Mock.ExpectCommit()
		s.is(commit(tx), "")
		leader.Selected.Let()
		s.is(led, "ann")
	})
}
