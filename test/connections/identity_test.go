package connections

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestAnIdentityIsWhatPostgreSQLSays(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	config := harness.ParsedDSN(f, f.DSN)
	name := config.Database + ` \'/é `
	quoted := `"` + name + `"`
	f.Past("CREATE DATABASE " + quoted + " TEMPLATE template0")
	f.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP DATABASE "+quoted+" WITH (FORCE)") })
	config.Database = name
	for _, plain := range []string{"on", "off"} {
		config.RuntimeParams["standard_conforming_strings"] = plain
		c, err := cachedpg.NewConnector(config, cachedpg.Config{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := inside.Dial(f.Ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		s, _, err := in.Learn(f.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.ID.Name != name {
			t.Errorf("the database's name is %q, want %q", s.ID.Name, name)
		}
		if got, err := s.ID.Ask(f.Ctx, in, "SELECT 'here'"); err != nil || got != "here" {
			t.Errorf("standard_conforming_strings=%s: got %q, %v", plain, got, err)
		}
		if answer, err := in.Ask(f.Ctx, backend.WithIdentity("SELECT 'here'")); err != nil {
			t.Error(err)
		} else if where, rest := backend.CutIdentity(answer); where != s.ID.Text() || rest != "here" || backend.IsStandby(where) {
			t.Errorf("%q says %q, want %q", where, rest, s.ID.Text())
		}
		other := s.ID
		other.Started += "1"
		if got, err := other.Ask(f.Ctx, in, "SELECT (1 / (SELECT count(*) - count(*) FROM pg_class))::text"); err != (backend.Elsewhere{ID: other}) {
			t.Errorf("a question to another database is answered by %q, %v", got, err)
		}
	}
}
