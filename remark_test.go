package cachedpg

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// What changes the catalog and no plan leaves the cache and the catalog as they are.
func TestWhatChangesNoPlanInvalidatesNone(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		database := pgtest.Database(t)
		f := newFixture(t, database, "cache_statement", people+`
			CREATE TABLE days (id int, day int) PARTITION BY RANGE (day); CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);`, keys...)
		f.again(userByID, 1)
		planned := connectorOf(f.db).space().view.Load()
		role := "remarked_" + strings.ToLower(rand.Text())
		f.Cleanup(func() { pgtest.Exec(t, database, "DROP ROLE IF EXISTS "+role) })
		for _, text := range []string{"COMMENT ON TABLE users IS 'people'", "COMMENT ON COLUMN users.name IS 'theirs'", "CREATE ROLE " + role,
			"CREATE INDEX users_city ON users (city, name DESC) INCLUDE (id)", "CREATE INDEX users_name ON users USING hash (name)", "CREATE INDEX days_id ON days (id)", "REINDEX TABLE users", "CLUSTER users USING users_pkey",
			"CREATE STATISTICS users_both ON name, city FROM users", "ALTER STATISTICS users_both SET STATISTICS 7", "DROP STATISTICS users_both", "ALTER TABLE users SET (fillfactor = 70, autovacuum_enabled = off)"} {
			f.exec(text)
			f.hit(userByID, 1)
		}
		tx, end := f.begin(nil)
		tx.exec("COMMENT ON TABLE users IS NULL")
		tx.hit(userByID, 1)
		f.commit(end)
		f.hit(userByID, 1)
		f.remains(planned)

		// Nor do they change the digest by which whoever loads the catalog finds that it is another.
		<-connectorOf(f.db).space().loads.begin()
		f.hit(userByID, 1)
		f.remains(planned)

		f.exec("GRANT SELECT ON users TO " + role) // which changes who gets rows
		f.exec("REVOKE SELECT ON users FROM " + role)
		f.exec(`CREATE FUNCTION renames() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET name = name || '!' WHERE id = 1; END $$`)
		f.exec("CREATE EVENT TRIGGER " + role + " ON ddl_command_end EXECUTE FUNCTION renames()")
		f.again(userByID, 1)
		f.exec("COMMENT ON TABLE users IS 'people again'")
		f.fresh(userByID, 1)
		f.exec("DROP EVENT TRIGGER " + role)
	})
}

// remains: the catalog in use is the one of before.
func (f *fixture) remains(planned *view) {
	f.Helper()
	if connectorOf(f.db).space().view.Load() != planned {
		f.Error("the catalog was replaced")
	}
}
