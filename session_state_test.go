package cachedpg

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// What the driver makes of the texts of the settings is what PostgreSQL makes of them.
func TestTheStateOfASessionIsWhatPostgreSQLMakesOfIt(t *testing.T) {
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	conn := f.conn(f.db)
	for _, set := range []string{"SELECT 1", `SET search_path = "A b", pg_catalog, "x""y"`, "SET TimeZone = '<+09>-09'", "SET default_transaction_isolation = serializable", `SET DateStyle = German`} {
		if _, err := conn.ExecContext(f.ctx, set); err != nil {
			t.Fatal(err)
		}
		err := conn.Raw(func(c any) error {
			in := c.(*Conn).inner
			s, _, err := in.learn(f.ctx)
			if err != nil {
				return err
			}
			want, err := in.text(f.ctx, "SELECT "+sessionState)
			if s.state != want {
				t.Errorf("after %s: got %s, want %s", set, s.state, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
