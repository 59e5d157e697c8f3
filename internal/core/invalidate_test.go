package core

import (
	"errors"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// To invalidate by name says so if nobody can be told.
func TestInvalidateWithoutTheStoreFails(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		db := f.Open("cachedpg", harness.WithKey(f.DSN, "cache_store", "redis://127.0.0.1:1"))
		if err := invalidate(f.Ctx, db, "users"); err == nil {
			f.Error("no error though the store cannot be reached")
		}
		if err := invalidate(f.Ctx, db, "nowhere"); !errors.Is(err, errNoRelation) {
			f.Errorf("got %v, want %v", err, errNoRelation)
		}
	})
}
