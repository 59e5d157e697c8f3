package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

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
		ends := func(name string, v harness.Via, o cachedpg.RelayOptions, want string) {
			f.Helper()
			ctx, cancel := context.WithTimeout(f.Ctx, 20*time.Second)
			defer cancel()
			if err := cachedpg.Relay(ctx, v.DB, o); err == nil || !strings.Contains(err.Error(), want) {
				f.Errorf("%s: got %v, want an error that says %q", name, err, want)
			}
		}
		ends("a store of the process alone", memory, cachedpg.RelayOptions{}, "cache_store=memory is not shared")
		ends("another driver", plain, cachedpg.RelayOptions{}, "not a database opened with the cachedpg driver")
		ends("a DB that is closed", closed, cachedpg.RelayOptions{}, "closed")
		ends("no batch", f.Via, cachedpg.RelayOptions{Batch: -1}, "batch")
		ends("no interval", f.Via, cachedpg.RelayOptions{Interval: -1}, "interval")
		ends("no table", f.Via, cachedpg.RelayOptions{}, "cachedpg setup")
		outside.SetUpOutbox(f)
		ends("no privileges", without, cachedpg.RelayOptions{}, "42501")
		outside.SetUpOutbox(f, "outbox_relay")
		runRelay(without, cachedpg.RelayOptions{})
		relays(f, 1)
	})
}

// Behind a pooler that gives every transaction another backend nobody could say
// that a relay is there.
func TestARelayBehindAPooler(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		outside.SetUpOutbox(f)
		through := pgtest.PgbouncerTo(f.T, f.DSN, "transaction")
		db := f.Open("cachedpg", harness.WithKeys(through, append(slices.Clone(f.Keys), "default_query_exec_mode=exec")))
		const pooled = "cachedpg: relay: the connection is one of a pooler that keeps no session"
		if err := cachedpg.Relay(f.Ctx, db, cachedpg.RelayOptions{}); err == nil || !strings.Contains(err.Error(), pooled) {
			f.Errorf("got %v, want %v", err, pooled)
		}
	})
}

func TestSetup(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	var all sync.WaitGroup
	for range 4 { // at once, and again
		all.Go(func() {
			if err := cachedpg.Setup(f.Ctx, f.Plain); err != nil {
				f.Error(err)
			}
		})
	}
	all.Wait()
	outside.SetUpOutbox(f)
	f.Past(cachedpg.SetupSQL()) // and by hand
	createRole(f, "outbox_user")
	user := f.Open("pgx", harness.WithKey(f.DSN, "user", "outbox_user"))
	if err := cachedpg.Setup(f.Ctx, user); err != nil {
		f.Errorf("%v: a role that makes nothing needs no privilege", err)
	}
	f.Past("DROP SCHEMA cachedpg CASCADE")
	err := cachedpg.Setup(f.Ctx, user)
	if err == nil || !strings.Contains(err.Error(), "--print") || !strings.Contains(err.Error(), "42501") {
		f.Errorf("got %v, want what to run", err)
	}
	if n := f.Count("SELECT count(*) FROM pg_namespace WHERE nspname = 'cachedpg'"); n != 0 {
		f.Error("something was left behind")
	}
	err = cachedpg.Setup(f.Ctx, f.Plain, `no "such" role`)
	if err == nil || !strings.Contains(err.Error(), "create the role first") {
		f.Errorf("got %v, want what to do", err)
	}
	f.Past(cachedpg.SetupSQL("outbox_user"))
	if _, err := user.ExecContext(f.Ctx, "INSERT INTO cachedpg.outbox (tags) VALUES ('')"); err != nil {
		f.Error(err)
	}
}

func BenchmarkOutbox(b *testing.B) {
	for _, outbox := range []string{"off", "always"} {
		for _, form := range []string{"autocommit", "transaction"} {
			b.Run(fmt.Sprintf("%s/%s", form, outbox), func(b *testing.B) {
				database := pgtest.Database(b)
				pgtest.Exec(b, database, harness.People+";"+cachedpg.SetupSQL())
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
