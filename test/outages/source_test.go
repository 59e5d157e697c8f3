package outages

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

func TestOriginNamesTheDatabaseAndTheStore(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	o, err := cachedpg.OriginOf(f.Ctx, f.DB)
	if err != nil {
		t.Fatal(err)
	}
	if parts := strings.Split(o.Source, "/"); len(parts) != 5 || o.Shared {
		t.Errorf("in memory: %+v", o)
	}
	shared := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	o2, err := cachedpg.OriginOf(f.Ctx, shared.DB)
	if err != nil || !o2.Shared || o2.Source == o.Source {
		t.Errorf("shared: %+v, %v; the other database is %+v", o2, err, o)
	}

	off := f.Open("cachedpg", harness.WithKey(shared.DSN+"", "cache_store", "off"))
	if o, err := cachedpg.OriginOf(f.Ctx, off); err != nil || o != o2 {
		t.Errorf("cache_store=off beside others: %+v, %v: its events concern them", o, err)
	}
	if _, err := cachedpg.OriginOf(f.Ctx, f.Plain); err == nil {
		t.Error("a DB of another driver has an origin")
	}
	ended, cancel := context.WithCancel(f.Ctx)
	cancel()
	if _, err := cachedpg.OriginOf(ended, f.DB); err == nil {
		t.Error("an origin was asked for with a context that has ended")
	}
}

// Applying to nothing must not look like success: the events would be gone.
func TestEventsForADatabaseThatIsNotCachedAreRefused(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	db, err := sql.Open("cachedpg", harness.WithKey(database, "cache_store", "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := cachedpg.OriginOf(t.Context(), db); err == nil || !strings.Contains(err.Error(), "cache_store") {
		t.Errorf("OriginOf: %v", err)
	}
	e := invalidation.Event{Source: "1/00000001/1", Tags: []store.Tag{{Kind: store.TagSchema}}}
	if err := cachedpg.Apply(t.Context(), db, e); err == nil || !strings.Contains(err.Error(), "cache_store") {
		t.Errorf("Apply: %v", err)
	}
}

// A process that has asked for nothing yet invalidates what others have stored.
func TestInvalidateByWhoHasCachedNothing(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
		other, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(f.DSN, f.Keys))
		if err != nil {
			t.Fatal(err)
		}
		inside.Process(other, "other")
		if err := cachedpg.Invalidate(f.Ctx, harness.OpenDB(f, other)); err != nil {
			t.Fatal(err)
		}
		f.Again(harness.UserByID, 1).Is("1 ann Bergen")
	})
}
