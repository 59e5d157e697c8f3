package cachedpg

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestAnIdentityIsWhatPostgreSQLSays(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	name := connectorOf(f.DB).base.Database + ` \'/é `
	quoted := `"` + name + `"`
	f.Past("CREATE DATABASE " + quoted + " TEMPLATE template0")
	f.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP DATABASE "+quoted+" WITH (FORCE)") })
	config := *connectorOf(f.DB).base
	config.Database = name
	for _, plain := range []string{"on", "off"} {
		config.RuntimeParams["standard_conforming_strings"] = plain
		c, err := NewConnector(config, Config{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := c.(*connector).dial(f.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		s, _, err := in.learn(f.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.id.name != name {
			t.Errorf("the database's name is %q, want %q", s.id.name, name)
		}
		if got, err := s.id.ask(f.Ctx, in, "SELECT 'here'"); err != nil || got != "here" {
			t.Errorf("standard_conforming_strings=%s: got %q, %v", plain, got, err)
		}
		if answer, err := in.text(f.Ctx, withIdentity("SELECT 'here'")); err != nil {
			t.Error(err)
		} else if where, rest := cutIdentity(answer); where != s.id.text() || rest != "here" || isStandby(where) {
			t.Errorf("%q says %q, want %q", where, rest, s.id.text())
		}
		other := s.id
		other.started += "1"
		if got, err := other.ask(f.Ctx, in, "SELECT (1 / (SELECT count(*) - count(*) FROM pg_class))::text"); err != (elsewhere{other}) {
			t.Errorf("a question to another database is answered by %q, %v", got, err)
		}
	}
}
