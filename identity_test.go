package cachedpg

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestAnIdentityIsWhatPostgreSQLSays(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	name := connectorOf(f.db).base.Database + ` \'/é `
	quoted := `"` + name + `"`
	f.past("CREATE DATABASE " + quoted + " TEMPLATE template0")
	f.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP DATABASE "+quoted+" WITH (FORCE)") })
	config := *connectorOf(f.db).base
	config.Database = name
	for _, plain := range []string{"on", "off"} {
		config.RuntimeParams["standard_conforming_strings"] = plain
		c, err := NewConnector(config, Config{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := c.(*connector).dial(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		s, _, err := in.learn(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.id.name != name {
			t.Errorf("the database's name is %q, want %q", s.id.name, name)
		}
		if got, err := s.id.ask(f.ctx, in, "SELECT 'here'"); err != nil || got != "here" {
			t.Errorf("standard_conforming_strings=%s: got %q, %v", plain, got, err)
		}
		if answer, err := in.text(f.ctx, withIdentity("SELECT 'here'")); err != nil {
			t.Error(err)
		} else if where, rest := cutIdentity(answer); where != s.id.text() || rest != "here" || isStandby(where) {
			t.Errorf("%q says %q, want %q", where, rest, s.id.text())
		}
		other := s.id
		other.started += "1"
		if got, err := other.ask(f.ctx, in, "SELECT (1 / (SELECT count(*) - count(*) FROM pg_class))::text"); err != (elsewhere{other}) {
			t.Errorf("a question to another database is answered by %q, %v", got, err)
		}
	}
}
