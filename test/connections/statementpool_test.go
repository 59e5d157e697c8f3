package connections

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Behind a pooler in statement mode the driver works as pgx does, and opens no
// transaction but one, by which it finds out. Others get no stale row for that.
func TestBehindAPoolerInStatementMode(t *testing.T) {
	t.Parallel()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		const setup = harness.People + `CREATE TABLE log (line text);
			CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'INSERT INTO log VALUES ($1)' USING NEW.name; RETURN NEW; END $$;
			CREATE TABLE noted (id int PRIMARY KEY, name text);
			CREATE TRIGGER note BEFORE INSERT OR UPDATE ON noted FOR EACH ROW EXECUTE FUNCTION note();
			INSERT INTO noted VALUES (1, 'a')`
		for _, mode := range harness.Modes[1:] { // pgx' named statements do not work there
			t.Run(mode, func(t *testing.T) {
				database := pgtest.Database(t)
				pgtest.Exec(t, database, setup)
				f := harness.New(t, database, "exec", "", keys...)
				f.DSN = harness.WithKey(harness.WithKey(database, "search_path", "public"), "default_query_exec_mode", mode)
				f.Plain = f.Open("pgx", f.DSN)
				direct := f.Beside("direct", keys...)
				behind := *f
				behind.DSN = harness.WithKey(pgtest.PgbouncerTo(t, database, "statement"), "default_query_exec_mode", mode)
				v := behind.Beside("behind", keys...)
				first := f.Conn(v.DB) // of which nobody makes another when it is lost
				const byID, logged = "SELECT name FROM users WHERE id = 1", "SELECT count(*) FROM log"
				direct.Caches(byID)
				direct.Caches(logged)
				write := func(i int, text string) {
					t.Helper()
					if strings.HasSuffix(text, "RETURNING name") {
						var name string
						if err := first.QueryRowContext(f.Ctx, text).Scan(&name); err != nil || name != fmt.Sprint("x", i) {
							t.Errorf("write %d gives %s, %v", i, name, err)
						}
					} else if _, err := first.ExecContext(f.Ctx, text); err != nil {
						t.Errorf("write %d: %v", i, err)
					}
					for range 2 {
						direct.Fresh(byID)
						direct.Fresh(logged)
						v.Fresh(byID)
						v.On(first).Fresh(logged)
					}
				}
				for i, text := range []string{
					"UPDATE users SET name = 'x%d' WHERE id = 1",
					"UPDATE noted SET name = 'x%d' WHERE id = 1",
					"UPDATE users SET name = 'x%d' WHERE id = 1 RETURNING name",
					"UPDATE noted SET name = 'x%d' WHERE id = 1 RETURNING name",
					"DO $$ BEGIN UPDATE users SET name = 'x%d'; END $$",
				} {
					write(i, fmt.Sprintf(text, i))
				}
				if err := v.DB.PingContext(f.Ctx); !errors.Is(err, cachedpg.ErrWithheld) || !strings.Contains(err.Error(), "pool_mode=transaction") {
					t.Errorf("Ping says %v", err)
				}
			})
		}
	})
}
