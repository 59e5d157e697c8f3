package outbox

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

const touchFirst = "UPDATE users SET name = name || 'x' WHERE id = 1"

func ids(events []invalidation.Event) (ids []string) {
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

// What a sink gets says whose it is, what changed and when.
func TestASinkGetsTheEvents(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		before := time.Now().Add(-time.Minute)
		f.Exec(touchFirst)
		r := &recorder{}
		runRelay(f.Via, cachedpg.RelayOptions{Sink: r})
		f.Until("the event", func() bool { return len(r.all()) == 1 })
		e := r.all()[0]
		origin, err := cachedpg.OriginOf(f.Ctx, f.DB)
		if err != nil {
			f.Fatal(err)
		}
		if want := origin.Source; e.Source != want || !strings.HasPrefix(e.ID, "outbox/") || e.Time.Before(before) {
			f.Errorf("got an event of %q with id %q of %v, want source %q", e.Source, e.ID, e.Time, want)
		}
		row := slices.IndexFunc(f.TagsOf(harness.UserByID, 1), func(tag store.Tag) bool { return tag.Kind == store.TagRow })
		if want := f.TagsOf(harness.UserByID, 1)[row]; !slices.Contains(e.Tags, want) {
			f.Errorf("got tags %v, want %v among them", e.Tags, want)
		}
		f.Until("the row to be gone", func() bool { return f.OutboxSize() == 0 })
		if err := cachedpg.Apply(f.Ctx, f.Process("region").DB, r.all()...); err != nil {
			f.Error(err)
		}
	})
}

// A relay that dies between the delivery and the deletion delivers again.
func TestARelayThatDiesDeliversAgain(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		killed := false
		r := &recorder{}
		f.Exec(touchFirst)
		var problems []error
		second := &recorder{before: func(ctx context.Context, events []invalidation.Event) error {
			_ = r.Send(ctx, events) // it has them
			if !killed {
				killed = true
				f.Past("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"+
					" WHERE datname = current_database()) AND objid = $1::int8", int64(lockRelay))
			}
			return nil
		}}
		stop := runRelay(f.Via, cachedpg.RelayOptions{Sink: second, Problem: func(err error) { problems = append(problems, err) }})
		f.Until("the row to be gone", func() bool { return f.OutboxSize() == 0 })
		stop()
		if got := ids(r.all()); len(got) != 2 || got[0] != got[1] {
			f.Errorf("delivered %v, want one event twice", got)
		}
		if len(problems) == 0 {
			f.Error("nobody was told of the lost connection")
		}
		f.Again(harness.UserByID, 1)
	})
}

// A sink that fails is asked again, the rows stay, and the lag says so.
func TestASinkThatFailsIsAskedAgain(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		works := make(chan struct{})
		r := &recorder{before: func(context.Context, []invalidation.Event) error {
			select {
			case <-works:
				return nil
			default:
				return errors.New("the broker is down")
			}
		}}
		for range 3 {
			f.Exec(touchFirst)
		}
		runRelay(f.Via, cachedpg.RelayOptions{Sink: r})
		f.Until("the lag to be seen", func() bool {
			o := cachedpg.StatsOf(f.DB).Outbox
			return o.Waiting == 3 && o.Lag > 0 && strings.Contains(o.Problem, "the broker is down")
		})
		f.Known(harness.UserByID, 1) // queries go on
		if n := f.OutboxSize(); n != 3 {
			f.Errorf("%d rows wait, want 3", n)
		}
		close(works)
		f.Until("the events", func() bool { return len(r.all()) == 3 })
		f.Until("the lag to be over", func() bool {
			o := cachedpg.StatsOf(f.DB).Outbox
			return o == cachedpg.OutboxStats{Posted: 3, Delivered: 3}
		})
	})
}

// Several relays share the rows: what one has taken the others pass by.
func TestRelaysShareTheRows(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		const events = 20
		for range events {
			f.Exec(touchFirst)
		}
		taken, open := make(chan struct{}), make(chan struct{})
		first := &recorder{before: func(ctx context.Context, events []invalidation.Event) error {
			select {
			case <-open:
				return nil
			default:
			}
			close(taken)
			<-open
			return nil
		}}
		second := &recorder{}
		stop := runRelay(f.Via, cachedpg.RelayOptions{Sink: first, Batch: 5})
		<-taken
		stopSecond := runRelay(f.Process("second"), cachedpg.RelayOptions{Sink: second, Batch: 5})
		f.Until("the second to deliver what the first has not taken", func() bool { return len(second.all()) == events-5 })
		close(open)
		f.Until("the rows to be gone", func() bool { return f.OutboxSize() == 0 })
		stop()
		stopSecond()
		got := append(ids(first.all()), ids(second.all())...)
		slices.Sort(got)
		if all := len(got); all != events || len(slices.Compact(got)) != events {
			f.Errorf("%d deliveries, want each of %d events once", all, events)
		}
	})
}

// A row that nobody can read is set aside, counted and named. Others go on, and
// what it may have meant is invalidated.
func TestARowThatCannotBeReadIsSetAside(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 2)
		for _, garbage := range []string{"''", `'\x00'`, `'\x0102030405060708090a0b0c0d0e0f101112'`} {
			f.Past("INSERT INTO cachedpg.outbox (tags) VALUES (" + garbage + ")")
		}
		f.Past(`INSERT INTO cachedpg.outbox (tags, xid, writer) VALUES ('\x0102030405060708090a0b0c0d0e0f1011', '3', '\x01')`)
		f.Exec(touchFirst)
		r := &recorder{}
		var problems []string
		stop := runRelay(f.Via, cachedpg.RelayOptions{Sink: r, Problem: func(err error) { problems = append(problems, err.Error()) }})
		f.Until("the rows to be delivered", func() bool { return f.OutboxSize() == 0 })
		f.Until("the other event", func() bool { return len(r.all()) == 4 })
		f.Miss(harness.UserByID, 2)
		stop()
		if n := f.Count("SELECT count(*) FROM cachedpg.outbox WHERE problem IS NOT NULL"); n != 4 {
			f.Errorf("%d rows were set aside, want 4", n)
		}
		o := cachedpg.StatsOf(f.DB).Outbox
		if o.SetAside != 4 || !strings.Contains(o.Problem, "set aside") || len(problems) != 4 || !strings.Contains(problems[0], "row ") {
			f.Errorf("got %+v and %q", o, problems)
		}
		for _, e := range r.all()[:3] {
			if !slices.Equal(e.Tags, harness.Everything) {
				f.Errorf("got tags %v, want everything", e.Tags)
			}
		}
	})
}

// The event of a statement that runs outside of transactions is not delivered
// before the statement is over.
func TestAnEventWaitsForAStatementThatRunsAlone(t *testing.T) {
	for _, consistency := range []string{"strict", "eventual"} {
		t.Run(consistency, func(t *testing.T) {
			posting(t, func(f *harness.Fixture) {
				r := &recorder{}
				runRelay(f.Via, cachedpg.RelayOptions{Sink: r, Interval: 5 * time.Millisecond})
				relays(f, 1)
				g := f.CloseGate()
				done := make(chan error, 1)
				go func() {
					_, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'anna' WHERE id = 1; SELECT pg_advisory_lock_shared(1)")
					done <- err
				}()
				g.Await(1)
				f.Past("INSERT INTO cachedpg.outbox (tags) VALUES (" + encodeTags([]store.Tag{{Relation: 7}}) + ")")
				f.Until("the other event", func() bool {
					return slices.ContainsFunc(r.all(), func(e invalidation.Event) bool { return e.Tags[0].Relation == 7 })
				})
				if got := ids(r.all()); len(got) != 1 {
					f.Errorf("%v were delivered, want the last of them alone", got)
				}
				g.Open()
				if err := <-done; err != nil {
					f.Fatal(err)
				}
				f.Until("the event", func() bool { return len(r.all()) == 2 })
			}, "cache_consistency="+consistency)
		})
	}
}

// I10: an event whose tags were planned with an old catalog stands for everything.
func TestAnEventSaysThatItsTagsAreNotSure(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		writer := f.Process("writer")
		for name, write := range map[string]func(ddl func()){
			"autocommit": func(ddl func()) {
				ddl()
				writer.Exec(touchFirst)
			},
			"a transaction": func(ddl func()) {
				tx, err := writer.DB.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				writer.On(tx).Exec(touchFirst)
				ddl()
				f.Commit(tx)
			},
		} {
			f.Exec("CREATE TABLE other (id int)")
			writer.Again(harness.UserByID, 1)
			var unlock func()
			write(func() {
				unlock = f.LockedCatalog("pg_rewrite") // so that the writer has no newer one
				f.Exec("ALTER TABLE other RENAME COLUMN id TO number")
				f.Released()
				f.Past("DELETE FROM cachedpg.outbox")
			})
			unlock()
			writer.Released()
			r := &recorder{}
			stop := runRelay(f.Via, cachedpg.RelayOptions{Sink: r})
			f.Until("the rows to be gone", func() bool { return f.OutboxSize() == 0 })
			stop()
			if !slices.ContainsFunc(r.all(), func(e invalidation.Event) bool { return slices.Contains(e.Tags, harness.Everything[0]) }) {
				f.Errorf("%s: got %v, want the schema tag among them", name, r.all())
			}
			f.Exec("DROP TABLE other")
		}
	})
}
