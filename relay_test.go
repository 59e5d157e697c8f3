package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
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
		runRelay(f.Via, RelayOptions{Sink: r})
		f.Until("the event", func() bool { return len(r.all()) == 1 })
		e := r.all()[0]
		if want := connectorOf(f.DB).space().key.Identity.String(); e.Source != want || !strings.HasPrefix(e.ID, "outbox/") || e.Time.Before(before) {
			f.Errorf("got an event of %q with id %q of %v, want source %q", e.Source, e.ID, e.Time, want)
		}
		row := slices.IndexFunc(tagsOf(f, harness.UserByID, 1), func(tag store.Tag) bool { return tag.Kind == store.TagRow })
		if want := tagsOf(f, harness.UserByID, 1)[row]; !slices.Contains(e.Tags, want) {
			f.Errorf("got tags %v, want %v among them", e.Tags, want)
		}
		f.Until("the row to be gone", func() bool { return outboxSize(f) == 0 })
		if err := Apply(f.Ctx, f.Process("region").DB, r.all()...); err != nil {
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
		stop := runRelay(f.Via, RelayOptions{Sink: second, Problem: func(err error) { problems = append(problems, err) }})
		f.Until("the row to be gone", func() bool { return outboxSize(f) == 0 })
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
		runRelay(f.Via, RelayOptions{Sink: r})
		f.Until("the lag to be seen", func() bool {
			o := StatsOf(f.DB).Outbox
			return o.Waiting == 3 && o.Lag > 0 && strings.Contains(o.Problem, "the broker is down")
		})
		f.Known(harness.UserByID, 1) // queries go on
		if n := outboxSize(f); n != 3 {
			f.Errorf("%d rows wait, want 3", n)
		}
		close(works)
		f.Until("the events", func() bool { return len(r.all()) == 3 })
		f.Until("the lag to be over", func() bool { o := StatsOf(f.DB).Outbox; return o == OutboxStats{Posted: 3, Delivered: 3} })
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
		stop := runRelay(f.Via, RelayOptions{Sink: first, Batch: 5})
		<-taken
		stopSecond := runRelay(f.Process("second"), RelayOptions{Sink: second, Batch: 5})
		f.Until("the second to deliver what the first has not taken", func() bool { return len(second.all()) == events-5 })
		close(open)
		f.Until("the rows to be gone", func() bool { return outboxSize(f) == 0 })
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
		stop := runRelay(f.Via, RelayOptions{Sink: r, Problem: func(err error) { problems = append(problems, err.Error()) }})
		f.Until("the rows to be delivered", func() bool { return outboxSize(f) == 0 })
		f.Until("the other event", func() bool { return len(r.all()) == 4 })
		f.Miss(harness.UserByID, 2)
		stop()
		if n := f.Count("SELECT count(*) FROM cachedpg.outbox WHERE problem IS NOT NULL"); n != 4 {
			f.Errorf("%d rows were set aside, want 4", n)
		}
		o := StatsOf(f.DB).Outbox
		if o.SetAside != 4 || !strings.Contains(o.Problem, "set aside") || len(problems) != 4 || !strings.Contains(problems[0], "row ") {
			f.Errorf("got %+v and %q", o, problems)
		}
		for _, e := range r.all()[:3] {
			if !slices.Equal(e.Tags, everything) {
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
				runRelay(f.Via, RelayOptions{Sink: r, Interval: 5 * time.Millisecond})
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
			stop := runRelay(f.Via, RelayOptions{Sink: r})
			f.Until("the rows to be gone", func() bool { return outboxSize(f) == 0 })
			stop()
			if !slices.ContainsFunc(r.all(), func(e invalidation.Event) bool { return slices.Contains(e.Tags, everything[0]) }) {
				f.Errorf("%s: got %v, want the schema tag among them", name, r.all())
			}
			f.Exec("DROP TABLE other")
		}
	})
}

// A writer that invalidates after its commit and cannot: the event is in its
// transaction, and a relay does it.
func TestARelayTellsTheStoreForAnEventualWriter(t *testing.T) {
	for name, update := range map[string]func(f *harness.Fixture, writer harness.Via){
		"autocommit": func(f *harness.Fixture, writer harness.Via) {
			writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		},
		"a transaction": func(f *harness.Fixture, writer harness.Via) {
			tx, err := writer.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			writer.On(tx).Exec("UPDATE users SET name = 'anna' WHERE id = 1")
			f.Commit(tx)
		},
		"alone": func(f *harness.Fixture, writer harness.Via) {
			writer.Exec("UPDATE users SET name = 'anna' WHERE id = 1; SELECT 1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				setUpOutbox(f)
				p := r.Proxy()
				writer := f.Process("writer", "cache_store="+r.URLThrough(p), "cache_consistency=eventual")
				writer.Again(harness.UserByID, 1)
				f.Again(harness.UserByID, 1)
				p.Cut()
				f.Until("the outage to be noticed", func() bool { writer.Fresh(harness.UserByID, 1); return StatsOf(writer.DB).Shared.Down })
				update(f, writer)
				f.Via.Read(f.DB, harness.UserByID, []any{1}).Is("1 ann Oslo") // which is what eventual means
				writer.DB.Close()                                             // nobody else knows
				runRelay(f.Process("relay"), RelayOptions{})
				f.Until("the row to be gone", func() bool { return outboxSize(f) == 0 })
				f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
				f.Again(harness.UserByID, 1).Is("1 anna Oslo")
			})
		})
	}
}

// Without the table "auto" changes nothing, also for such a writer.
func TestAnEventualWriterWithoutAnOutbox(t *testing.T) {
	harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
		p := r.Proxy()
		writer := f.Process("writer", "cache_store="+r.URLThrough(p), "cache_consistency=eventual")
		writer.Again(harness.UserByID, 1)
		p.Cut()
		f.Until("the outage to be noticed", func() bool { writer.Fresh(harness.UserByID, 1); return StatsOf(writer.DB).Shared.Down })
		for _, statement := range []string{"UPDATE users SET name = 'anna' WHERE id = 1", "UPDATE users SET name = 'anne' WHERE id = 1; SELECT 1"} {
			writer.Exec(statement)
		}
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET name = 'ann' WHERE id = 1")
		f.Commit(tx)
		writer.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		p.Restore()
		writer.Released()
	})
}

// The driver's own tables are nobody's to cache: nothing invalidates for them.
func TestTheOutboxItselfIsNeverCached(t *testing.T) {
	posting(t, func(f *harness.Fixture) {
		for range 2 {
			f.Bypass(keying.PolicyOff, "SELECT count(*) FROM cachedpg.outbox")
			f.Exec(touchFirst)
		}
	})
}

// An outbox that is wanted and not there is an error that says what to do, and
// nothing was changed.
func TestAnOutboxThatIsNotThere(t *testing.T) {
	for name, tt := range map[string]struct{ setup, want string }{
		"no table":      {"", "cachedpg setup"},
		"no privileges": {"yes", "--role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			role := "outbox_" + strings.ReplaceAll(name, " ", "_")
			f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t), "cache_outbox=always")
			createRole(f, role)
			if tt.setup != "" {
				setUpOutbox(f)
			}
			writer := f.Process("writer", "user="+role)
			refused := func(what string, err error) {
				f.Helper()
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "cache_outbox") {
					f.Errorf("%s: got %v, want an error that says %q", what, err, tt.want)
				}
			}
			const update = "UPDATE users SET name = 'anna' WHERE id = 1"
			for _, statement := range []string{update, update + "; SELECT 1", "SELECT count(*) FROM (SELECT 1) a; " + update} {
				_, err := writer.DB.ExecContext(f.Ctx, statement)
				refused(statement, err)
			}
			refused("RETURNING", writer.DB.QueryRowContext(f.Ctx, update+" RETURNING id").Scan(new(int)))
			tx, err := writer.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			writer.On(tx).Exec(update)
			refused("Commit", tx.Commit())
			conn := f.Conn(writer.DB)
			writer.On(conn).Exec("BEGIN")
			writer.On(conn).Exec(update)
			_, err = conn.ExecContext(f.Ctx, "COMMIT")
			refused("COMMIT", err)
			conn.Close()
			writer.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			// An error of the statement itself stays what it is.
			_, want := f.Plain.ExecContext(f.Ctx, "UPDATE nothing SET name = 'x' WHERE id = 1")
			if tt.setup == "" {
				return // where it is not known which of two tables is missing
			}
			setUpOutbox(f, role)
			_, err = writer.DB.ExecContext(f.Ctx, "UPDATE nothing SET name = 'x' WHERE id = 1")
			harness.SameError(f, err, want)
			writer.Exec(update)
			f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		})
	}
}

// createRole makes a role that may use the tables of the story, and learn what the
// driver asks for.
func createRole(f *harness.Fixture, name string) {
	f.Helper()
	f.Past("CREATE ROLE " + name + " LOGIN")
	f.Past("GRANT USAGE ON SCHEMA cache_statement TO " + name)
	f.Past("GRANT ALL ON ALL TABLES IN SCHEMA cache_statement TO " + name)
	f.Cleanup(func() {
		if _, err := f.Plain.Exec("DROP OWNED BY " + name + " CASCADE; DROP ROLE " + name); err != nil {
			f.Error(err)
		}
	})
}

func TestARelayThatCannotWorkSaysWhy(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		memory := f.With("cache_store=memory")
		plain := harness.Via{F: f, DB: f.Plain}
		closed := f.With()
		closed.DB.Close()
		createRole(f, "outbox_relay")
		without := f.Process("without", "user=outbox_relay")
		ends := func(name string, v harness.Via, o RelayOptions, want string) {
			f.Helper()
			ctx, cancel := context.WithTimeout(f.Ctx, 20*time.Second)
			defer cancel()
			if err := Relay(ctx, v.DB, o); err == nil || !strings.Contains(err.Error(), want) {
				f.Errorf("%s: got %v, want an error that says %q", name, err, want)
			}
		}
		ends("a store of the process alone", memory, RelayOptions{}, "cache_store=memory is not shared")
		ends("another driver", plain, RelayOptions{}, "not a database opened with the cachedpg driver")
		ends("a DB that is closed", closed, RelayOptions{}, "closed")
		ends("no batch", f.Via, RelayOptions{Batch: -1}, "batch")
		ends("no interval", f.Via, RelayOptions{Interval: -1}, "interval")
		ends("no table", f.Via, RelayOptions{}, "cachedpg setup")
		setUpOutbox(f)
		ends("no privileges", without, RelayOptions{}, "42501")
		setUpOutbox(f, "outbox_relay")
		runRelay(without, RelayOptions{})
		relays(f, 1)
	})
}

// Behind a pooler that gives every transaction another backend nobody could say
// that a relay is there.
func TestARelayBehindAPooler(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		setUpOutbox(f)
		pooled := pgtest.PgbouncerTo(f.T, f.DSN, "transaction")
		db := f.Open("cachedpg", harness.WithKeys(pooled, append(slices.Clone(f.Keys), "default_query_exec_mode=exec")))
		if err := Relay(f.Ctx, db, RelayOptions{}); !errors.Is(err, errPooled) {
			f.Errorf("got %v, want %v", err, errPooled)
		}
	})
}

func TestSetup(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	var all sync.WaitGroup
	for range 4 { // at once, and again
		all.Go(func() {
			if err := Setup(f.Ctx, f.Plain); err != nil {
				f.Error(err)
			}
		})
	}
	all.Wait()
	setUpOutbox(f)
	f.Past(SetupSQL()) // and by hand
	createRole(f, "outbox_user")
	user := f.Open("pgx", harness.WithKey(f.DSN, "user", "outbox_user"))
	if err := Setup(f.Ctx, user); err != nil {
		f.Errorf("%v: a role that makes nothing needs no privilege", err)
	}
	f.Past("DROP SCHEMA cachedpg CASCADE")
	err := Setup(f.Ctx, user)
	if err == nil || !strings.Contains(err.Error(), "--print") || !strings.Contains(err.Error(), "42501") {
		f.Errorf("got %v, want what to run", err)
	}
	if n := f.Count("SELECT count(*) FROM pg_namespace WHERE nspname = 'cachedpg'"); n != 0 {
		f.Error("something was left behind")
	}
	err = Setup(f.Ctx, f.Plain, `no "such" role`)
	if err == nil || !strings.Contains(err.Error(), "create the role first") {
		f.Errorf("got %v, want what to do", err)
	}
	f.Past(SetupSQL("outbox_user"))
	if _, err := user.ExecContext(f.Ctx, "INSERT INTO cachedpg.outbox (tags) VALUES ('')"); err != nil {
		f.Error(err)
	}
}

func BenchmarkOutbox(b *testing.B) {
	for _, outbox := range []string{"off", "always"} {
		for _, form := range []string{"autocommit", "transaction"} {
			b.Run(fmt.Sprintf("%s/%s", form, outbox), func(b *testing.B) {
				database := pgtest.Database(b)
				pgtest.Exec(b, database, harness.People+";"+SetupSQL())
				db, err := sql.Open("cachedpg", harness.WithKey(harness.WithKey(database, "cache_store", pgtest.Redis(b)), "cache_outbox", outbox))
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				ctx := context.Background()
				const update = "UPDATE users SET city = $1 WHERE id = $2"
				if _, err := db.ExecContext(ctx, update, "x", 1); err != nil {
					b.Fatal(err)
				}
				for i := 0; b.Loop(); i++ {
					if form == "autocommit" {
						if _, err := db.ExecContext(ctx, update, "x", i%3+1); err != nil {
							b.Fatal(err)
						}
						continue
					}
					tx, err := db.BeginTx(ctx, nil)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := tx.ExecContext(ctx, update, "x", i%3+1); err != nil {
						b.Fatal(err)
					}
					if err := tx.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
