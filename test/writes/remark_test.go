package writes

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// What changes the catalog and no plan leaves the cache and the catalog as they are.
func TestWhatChangesNoPlanInvalidatesNone(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		database := pgtest.Database(t)
		f := harness.New(t, database, "cache_statement", harness.People+`
			CREATE TABLE days (id int, day int) PARTITION BY RANGE (day); CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);`, keys...)
		f.Again(harness.UserByID, 1)
		planned := inside.Catalog(f.DB)
		role := "remarked_" + strings.ToLower(rand.Text())
		f.Cleanup(func() { pgtest.Exec(t, database, "DROP ROLE IF EXISTS "+role) })
		for _, text := range []string{"COMMENT ON TABLE users IS 'people'", "COMMENT ON COLUMN users.name IS 'theirs'", "CREATE ROLE " + role,
			"CREATE INDEX users_city ON users USING brin (city, name)", "CREATE INDEX days_id ON days USING brin (id)", "REINDEX TABLE users", "CLUSTER users USING users_pkey",
			"CREATE STATISTICS users_both ON name, city FROM users", "ALTER STATISTICS users_both SET STATISTICS 7", "DROP STATISTICS users_both", "ALTER TABLE users SET (fillfactor = 70, autovacuum_enabled = off)"} {
			f.Exec(text)
			f.Hit(harness.UserByID, 1)
		}
		tx, end := f.Begin(nil)
		tx.Exec("COMMENT ON TABLE users IS NULL")
		tx.Hit(harness.UserByID, 1)
		f.Commit(end)
		f.Hit(harness.UserByID, 1)
		remains(f, planned)

		// Nor do they change the digest by which whoever loads the catalog finds that it is another.
		<-inside.Load(f.DB)
		f.Hit(harness.UserByID, 1)
		remains(f, planned)

		f.Exec("GRANT SELECT ON users TO " + role) // which changes who gets rows
		f.Exec("REVOKE SELECT ON users FROM " + role)
		f.Exec(`CREATE FUNCTION renames() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET name = name || '!' WHERE id = 1; END $$`)
		f.Exec("CREATE EVENT TRIGGER " + role + " ON ddl_command_end EXECUTE FUNCTION renames()")
		f.Again(harness.UserByID, 1)
		f.Exec("COMMENT ON TABLE users IS 'people again'")
		f.Fresh(harness.UserByID, 1)
		f.Exec("DROP EVENT TRIGGER " + role)
	})
}

// Reads depend on rows by the columns that indexes lead.
func TestAnIndexReplacesPlans(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People+`
			CREATE TABLE days (id int, day int) PARTITION BY RANGE (day); CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);`, keys...)
		for _, text := range []string{"CREATE INDEX users_city ON users (city, name DESC) INCLUDE (id)", "CREATE INDEX users_name ON users USING hash (name)", "CREATE INDEX days_id ON days (id)",
			"REINDEX INDEX CONCURRENTLY users_city", "DROP INDEX users_city", "DROP INDEX CONCURRENTLY users_name", "DROP INDEX days_id"} {
			f.Again(harness.UserByID, 1)
			planned := inside.Catalog(f.DB)
			f.Exec(text)
			f.Fresh(harness.UserByID, 1)
			if inside.Catalog(f.DB) == planned {
				f.Errorf("%s: the catalog remains", text)
			}
		}
	})
}

// remains: the catalog in use is the one of before.
func remains(f *harness.Fixture, planned any) {
	f.Helper()
	if inside.Catalog(f.DB) != planned {
		f.Error("the catalog was replaced")
	}
}
