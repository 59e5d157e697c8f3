package session

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// What the driver makes of the texts of the settings is what PostgreSQL makes of them.
func TestTheStateOfASessionIsWhatPostgreSQLMakesOfIt(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	conn := f.Conn(f.DB)
	for _, set := range []string{"SELECT 1", `SET search_path = "A b", pg_catalog, "x""y"`, "SET TimeZone = '<+09>-09'",
		"SET default_transaction_isolation = serializable", "SET DateStyle = German"} {
		if _, err := conn.ExecContext(f.Ctx, set); err != nil {
			t.Fatal(err)
		}
		err := conn.Raw(func(c any) error {
			in := inside.Inner(c)
			s, _, err := in.Learn(f.Ctx)
			if err != nil {
				return err
			}
			want, err := in.Ask(f.Ctx, "SELECT "+backend.StateSQL)
			if s.State != want {
				t.Errorf("after %s: got %s, want %s", set, s.State, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
