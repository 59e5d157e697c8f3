package space

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/questions"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// asksAll asks what is asked of PostgreSQL for writers that died, for a new epoch and for a notice.
func asksAll(f *harness.Fixture) {
	f.Helper()
	k := keeperOf(f.Via)
	writers := []store.WriterID{store.NewTransactionWriter(3), store.NewBackendWriter(1, time.Unix(1, 0)), store.NewWriter()}
	if over := k.Guard.Over(f.Ctx, writers); len(over) != 2 {
		f.Errorf("%d writers of two are over", len(over))
	}
	ours := &Keeper{Store: k.Store, log: k.log}
	ours.Guard.ID = k.Guard.ID
	ours.Guard.Add(inside.Core(f.DB).(guard.Dialler))
	ours.watch.guard, ours.life = &ours.Guard, f.Ctx
	ours.Peers = peers.New(&ours.Guard, "", peers.SharedCamp(k.Store), "", nil)
	defer ours.Guard.Close()
	for range 2 {
		ours.orphaned(f.Ctx, writers)
	}
	if _, err := ours.sure(f.Ctx, store.Fresh{Epoch: "a new epoch", Marked: writers}); err != nil {
		f.Error(err)
	}
	if _, err := ours.sure(f.Ctx, store.Fresh{Epoch: "another", Kept: true}); err != nil {
		f.Error(err)
	}
	ours.Notice.Guard = &ours.Guard
	leave, err := ours.Notice.Stand(f.Ctx, nil, func() bool { return false })
	if err != nil {
		f.Fatal(err)
	}
	leave()
	ours.Notice.Lift()
}

// keeps has a keeper ask everything under a search_path, and look at what went over the wire.
func keeps(t *testing.T, path, prepare string, look func(w *pgtest.Wire)) {
	t.Helper()
	t.Parallel()
	database := pgtest.Database(t)
	if prepare != "" {
		pgtest.Exec(t, database, prepare)
	}
	wire := pgtest.Listen(t, harness.WithKey(database, "search_path", path))
	ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	defer cancel()
	f := &harness.Fixture{T: t, Ctx: ctx, DSN: wire.DSN, Keys: []string{"cache_store=" + redistest.Start(t).URL()}}
	f.Plain = f.Open("pgx", database)
	f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	f.Live(f.DB)
	asksAll(f)
	if err := f.DB.Close(); err != nil {
		t.Error(err)
	}
	look(wire)
}

func TestEveryQuestionOfTheKeeperNamesItsSchemas(t *testing.T) {
	keeps(t, "app,public", "", func(w *pgtest.Wire) {
		texts := w.Texts()
		if !slices.ContainsFunc(texts, func(text pgtest.Text) bool { return strings.Contains(text.SQL, "pg_current_xact_id") }) {
			t.Error("no question for a new epoch was seen")
		}
		for _, problem := range questions.NewQualification().Unqualified(texts) {
			t.Error(problem)
		}
	})
}

func TestNothingOfASchemaBeforePgCatalogRunsForTheKeeper(t *testing.T) {
	keeps(t, "shadow,pg_catalog", questions.Shadows, func(w *pgtest.Wire) {
		for _, said := range w.Warnings() {
			if strings.HasPrefix(said, "shadow: ") {
				t.Errorf("%s ran", said)
			}
		}
	})
}
