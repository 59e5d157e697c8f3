package core

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/flight"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/patience"
)

// asks reports that the session's SELECT has reached PostgreSQL, which answers
// when it is let.
func (c player) asks() bool {
	synctest.Wait()
	return c.Mock.ExpectationsWereMet() == nil
}

// held: the SELECT of the last expectation waits in PostgreSQL.
func (c player) held() player {
	c.Selected.Set()
	return c
}

func refusedWith(code string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: code, Message: "scripted"}
}

// following is a leader whose SELECT is under way, and some who follow it.
func (s *script) following(leader player, followers ...player) (led <-chan harness.Answer, got []<-chan harness.Answer) {
	s.Helper()
	led = leader.held().aside(s.Context())
	if !leader.asks() {
		s.Fatal("the leader's SELECT was not sent")
	}
	for _, f := range followers {
		got = append(got, f.aside(s.Context()))
	}
	synctest.Wait()
	return led, got
}

// Who has waited for one that failed waits for nobody else.
func TestEqualQueriesThatFailDoNotWaitForEachOther(t *testing.T) {
	for name, err := range map[string]error{
		"statement_timeout": refusedWith("57014"),
		"lock_timeout":      refusedWith("55P03"),
		"too many clients":  refusedWith("53300"),
		"connection lost":   io.ErrUnexpectedEOF,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *script) {
				leader, one, two, three := s.session(), s.session(), s.session(), s.session()
				leader.fails(err)
				led, got := s.following(leader, one.fails(err).held(), two.fails(err).held(), three.selects("ann").held())
				if one.asks() || two.asks() || three.asks() {
					s.Error("a follower did not wait")
				}
				leader.Selected.Let()
				if failed := s.failed(led); !errors.Is(failed, err) {
					s.Errorf("the leader got %v", failed)
				}
				if !one.asks() || !two.asks() || !three.asks() {
					s.Error("a follower waits for another one")
				}
				late := s.session()
				joined := late.aside(s.Context()) // waits for those, as for any other
				for _, f := range []player{one, two, three} {
					f.Selected.Let()
					synctest.Wait()
				}
				for _, failed := range got[:2] {
					if failed := s.failed(failed); !errors.Is(failed, err) {
						s.Errorf("a follower got %v", failed)
					}
				}
				s.is(got[2], "ann")
				if a := <-joined; a.Err == nil && a.Value != "ann" {
					s.Errorf("who came late got %q", a.Value)
				}
			})
		})
	}
}

// An error of the data or of the text is what each of them would get.
func TestAnErrorOfTheDataIsTheFollowersToo(t *testing.T) {
	for _, code := range []string{"22012", "42501", "21000", "P0001"} {
		t.Run(code, func(t *testing.T) {
			play(t, func(s *script) {
				leader, follower := s.session(), s.session()
				err := refusedWith(code)
				led, got := s.following(leader.fails(err), follower)
				leader.Selected.Let()
				theirs, ours := s.failed(led), s.failed(got[0])
				var refused *pgconn.PgError
				if !errors.As(ours, &refused) || refused.Code != code || ours.Error() != theirs.Error() {
					s.Errorf("the follower got %v, the leader %v", ours, theirs)
				}
				if ours == theirs {
					s.Error("two callers have one error")
				}
				follower.selects("ann").gets("ann") // it was not kept
			})
		})
	}
}

// But not for a caller who wrote it otherwise: it may name a position.
func TestAnErrorNamesAPositionInItsOwnText(t *testing.T) {
	play(t, func(s *script) {
		leader, follower := s.session(), s.session()
		led, _ := s.following(leader.fails(refusedWith("22012")))
		text := strings.Replace(nameByID, " ", "  ", 1)
		follower.Mock.ExpectQuery(text).WithArgs(int64(1)).WillReturnRows(sqlmock.NewRows([]string{"name"}).AddRow("ann"))
		got := make(chan error, 1)
		go func() {
			rows, err := follower.Conn.Query(s.Context(), text, user1())
			if err == nil {
				err = rows.Close()
			}
			got <- err
		}()
		if follower.asks() {
			s.Error("the follower did not wait")
		}
		leader.Selected.Let()
		s.failed(led)
		if err := <-got; err != nil {
			s.Error(err)
		}
	})
}

// An error after some rows comes after the same rows to those who follow.
func TestAnErrorAfterRowsIsTheFollowersToo(t *testing.T) {
	play(t, func(s *script) {
		leader, follower := s.session(), s.session()
		leader.Mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnRows(
			sqlmock.NewRows([]string{"name"}).AddRow("ann").AddRow("bob").RowError(1, refusedWith("22012")))
		leader.Selected.Set()
		read := func(c player) <-chan string {
			done := make(chan string, 1)
			go func() {
				rows, err := c.Conn.Query(s.Context(), nameByID, user1())
				var all []string
				for value := make([]driver.Value, 1); err == nil; {
					if err = rows.Next(value); err == nil {
						all = append(all, fmt.Sprint(value[0]))
					}
				}
				done <- fmt.Sprint(all, err)
			}()
			return done
		}
		led := read(leader)
		synctest.Wait()
		followed := read(follower)
		synctest.Wait()
		leader.Selected.Let()
		theirs, ours := <-led, <-followed
		if want := "[ann] " + refusedWith("22012").Error(); theirs != want || ours != want {
			s.Errorf("got %q and %q, want %q", theirs, ours, want)
		}
	})
}

// Who follows runs the SELECT itself after a quarter of its time, whoever sets that.
func TestAFollowerHasALimitOfItsOwn(t *testing.T) {
	for name, tc := range map[string]struct{ session, caller time.Duration }{
		"of its session":  {session: 400 * time.Millisecond},
		"of its caller":   {caller: 400 * time.Millisecond},
		"the shorter one": {session: 400 * time.Millisecond, caller: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *script) {
				leader, patient := s.session(), s.session()
				s.Limit = tc.session
				follower := s.session()
				led, got := s.following(leader.selects("ann"), patient)
				ctx := s.Context()
				if tc.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.caller)
					defer cancel()
				}
				got = append(got, follower.selects("ann").held().aside(ctx))
				synctest.Wait()
				time.Sleep(99 * time.Millisecond)
				if follower.asks() {
					s.Error("the follower did not wait")
				}
				time.Sleep(2 * time.Millisecond)
				if !follower.asks() {
					s.Error("the follower still waits")
				}
				follower.Selected.Let() // its result is everybody's
				s.is(got[1], "ann")
				s.is(got[0], "ann")
				leader.Selected.Let()
				s.is(led, "ann")
			})
		})
	}
}

// A leader that is held up holds nobody up for longer than a SELECT should take, and not
// everybody runs one that is slow.
func TestALeaderThatIsHeldUpDoesNotHoldUpTheRest(t *testing.T) {
	play(t, func(s *script) {
		leader, one, two, three := s.session(), s.session(), s.session(), s.session()
		led, got := s.following(leader.selects("ann"), one.selects("ann").held())
		time.Sleep(patience.Flight - time.Millisecond)
		if one.asks() {
			s.Error("the follower did not wait")
		}
		time.Sleep(2 * time.Millisecond)
		if !one.asks() {
			s.Error("the follower still waits")
		}
		got = append(got, two.aside(s.Context()), three.aside(s.Context()))
		synctest.Wait()
		time.Sleep(2*patience.Flight - 2*time.Millisecond) // a SELECT of theirs is not in the script
		one.Selected.Let()
		for _, answer := range got {
			s.is(answer, "ann")
		}
		leader.Selected.Let()
		s.is(led, "ann")
	})
}

// Who takes over from a leader that was called off is waited for only as long as
// the SELECT should take.
func TestALeaderThatIsCalledOffIsReplacedOnce(t *testing.T) {
	play(t, func(s *script) {
		leader, second, third := s.session(), s.session(), s.session()
		leading, cancel := context.WithCancel(s.Context())
		led := leader.selects("ann").held().aside(leading)
		synctest.Wait()
		first := second.selects("ann").held().aside(s.Context())
		synctest.Wait()
		cancel()
		if err := s.failed(led); err != context.Canceled {
			s.Errorf("the leader got %v", err)
		}
		if !second.asks() {
			s.Error("nobody took over")
		}
		got := third.aside(s.Context())
		synctest.Wait()
		second.Selected.Let()
		s.is(first, "ann")
		s.is(got, "ann")
	})
}

// A result that is too large is read first by one, and waited for once.
func TestAResultThatIsTooLargeIsReadFirstOnce(t *testing.T) {
	play(t, func(s *script) {
		s.d.Config.MaxEntry = 20
		sessions := []player{s.session(), s.session(), s.session()}
		large := func(c player) player {
			rows := sqlmock.NewRows([]string{"name"})
			for range 3 {
				rows.AddRow("12345678") // 12 bytes each as it is kept
			}
			c.Mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnRows(rows)
			return c
		}
		read := func(c player, rows int) <-chan string {
			done := make(chan string, 1)
			go func() {
				r, err := c.Conn.Query(s.Context(), nameByID, user1())
				if err != nil {
					done <- err.Error()
					return
				}
				defer r.Close()
				if n := r.(*Rows).entry.Rows; n != rows {
					s.Errorf("%d rows were read first, want %d", n, rows)
				}
				n, value := 0, make([]driver.Value, 1)
				for r.Next(value) == nil {
					n++
				}
				done <- fmt.Sprint(n, " rows")
			}()
			return done
		}
		leader := large(sessions[0]).held()
		led := read(leader, 2)
		if !leader.asks() {
			s.Fatal("the leader's SELECT was not sent")
		}
		var got []<-chan string
		for _, c := range sessions[1:] {
			got = append(got, read(large(c).held(), 1))
		}
		if sessions[1].asks() || sessions[2].asks() {
			s.Error("a follower did not wait")
		}
		leader.Selected.Let()
		if !sessions[1].asks() || !sessions[2].asks() {
			s.Error("a follower waits for another one")
		}
		sessions[1].Selected.Let()
		sessions[2].Selected.Let()
		for _, answer := range append(got, led, read(large(leader), 1)) {
			if a := <-answer; a != "3 rows" {
				s.Errorf("got %s", a)
			}
		}
		if n := s.d.stats.tooLarge.Load(); n != 4 {
			s.Errorf("%d results were too large, want 4", n)
		}
		time.Sleep(2 * flight.OversizeFor)
		leader.selects("ann").gets("ann") // it is found out again
		leader.gets("ann")
	})
}

// What has become small again is read as a whole next time.
func TestAResultThatIsNoLongerTooLargeIsKept(t *testing.T) {
	play(t, func(s *script) {
		s.d.Config.MaxEntry = 8
		c := s.session()
		c.selects("too large").gets("too large")
		c.selects("").gets("")
		c.selects("ann").gets("ann")
		c.gets("ann")
	})
}
