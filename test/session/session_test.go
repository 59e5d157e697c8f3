package session

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// A name means what the search_path says.
func TestEqualNamesInTwoSchemas(t *testing.T) {
	harness.Scenario(t, harness.People+`
		DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other;
		CREATE TABLE other.users (id int PRIMARY KEY, name text, city text);
		INSERT INTO other.users VALUES (1, 'zoe', 'Nice');`, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1).Is("1 ann Oslo")
		f.Warm("SELECT name FROM other.users WHERE id = 1").Is("zoe")
		s, _ := f.Session()
		s.Both("SET search_path = other")
		s.Warm(harness.UserByID, 1).Is("1 zoe Nice")
		s.Exec("UPDATE users SET name = 'zoé' WHERE id = 1")
		s.Miss(harness.UserByID, 1).Is("1 zoé Nice")
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Miss("SELECT name FROM other.users WHERE id = 1").Is("zoé")
		s.Both("RESET search_path")
		s.Hit(harness.UserByID, 1).Is("1 ann Oslo")

		// A table that comes to stand in front of another of its name.
		s.Both("SET search_path = front, other")
		s.Known(harness.UserByID, 1)
		s.Exec("DROP SCHEMA IF EXISTS front CASCADE")
		s.Exec("CREATE SCHEMA front")
		s.Fresh(harness.UserByID, 1).Is("1 zoé Nice")
		s.Exec("CREATE TABLE front.users AS SELECT 1 AS id, 'first'::text AS name, ''::text AS city")
		s.Fresh("SELECT name, city FROM users WHERE id = 1").Is("first ")
		// PostgreSQL does not look again for a statement that it has prepared;
		// the driver makes it, and here pgx's connection is made to as well.
		s.Both("DISCARD PLANS")
		s.Known(harness.UserByID, 1)
		s.Exec("UPDATE other.users SET name = 'later' WHERE id = 1")
		s.Fresh(harness.UserByID, 1)
		s.Known(harness.UserByID, 1)
		s.Exec("UPDATE front.users SET name = 'still' WHERE id = 1")
		s.Fresh(harness.UserByID, 1)
		s.Known(harness.UserByID, 1)
		s.Exec("UPDATE other.users SET name = 'zoé' WHERE id = 1")
		s.Exec("DROP TABLE front.users")
		s.Fresh(harness.UserByID, 1).Is("1 zoé Nice")
	})
}

// What a session sets is part of the question; ORMs send SET, query, RESET on
// one connection.
func TestSettingsAreAPartOfTheQuestion(t *testing.T) {
	harness.Scenario(t, `CREATE TABLE v (at timestamptz, f float8, i interval, b bytea);
		INSERT INTO v VALUES ('2024-05-01 12:00Z', 1.0 / 3, '1 day 2 hours', '\x00ff')`, func(f *harness.Fixture) {
		const query = "SELECT at::text, f::text, i::text, b::text FROM v"
		first := f.Warm(query).String()
		s, _ := f.Session()
		for _, setting := range []struct{ set, reset string }{
			{"SET TIME ZONE 'Asia/Tokyo'", "RESET TIME ZONE"},
			{"SET timezone = 'Asia/Tokyo'", "RESET ALL"},
			{"SET datestyle = 'German'", "SET datestyle TO DEFAULT"},
			{"SET intervalstyle = 'iso_8601'", "RESET intervalstyle"},
			{"SET bytea_output = 'escape'", "RESET bytea_output"},
			{"SET extra_float_digits = -10", "RESET extra_float_digits"},
		} {
			for range 2 {
				s.Both(setting.set)
				if got := s.Known(query).String(); got == first {
					f.Errorf("%s: still %s", setting.set, got)
				}
				s.Both(setting.reset)
				s.Hit(query).Is(first)
			}
		}
		f.Hit(query).Is(first)

		// What ends with the transaction.
		for _, set := range []string{"SET LOCAL TIME ZONE 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"} {
			s.Both("BEGIN")
			s.Both(set)
			if got := s.Known(query).String(); got == first {
				f.Errorf("%s: still %s", set, got)
			}
			s.Both("COMMIT")
			s.Hit(query).Is(first)
		}
		// What a rollback undoes, the whole or up to a savepoint.
		s.Both("BEGIN")
		s.Both("SET TIME ZONE 'Asia/Tokyo'")
		s.Both("ROLLBACK")
		s.Hit(query).Is(first)
		s.Both("BEGIN")
		s.Both("SAVEPOINT a")
		s.Both("SET TIME ZONE 'Asia/Tokyo'")
		s.Known(query)
		s.Both("ROLLBACK TO a")
		s.Fresh(query).Is(first)
		s.Both("COMMIT")
		s.Fresh(query).Is(first)

		// A connection that goes back into the pool with its setting.
		one := f.With()
		one.DB.SetMaxOpenConns(1)
		one.Exec("SET TIME ZONE 'Asia/Tokyo'")
		plain := f.Open("pgx", f.DSN)
		plain.SetMaxOpenConns(1)
		if _, err := plain.ExecContext(f.Ctx, "SET TIME ZONE 'Asia/Tokyo'"); err != nil {
			f.Fatal(err)
		}
		one.Truth = plain
		one.Fresh(query)
		one.Hit(query)
		f.Hit(query).Is(first)
	})
}

// Roles see what they may see.
func TestRoles(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role)
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) { // ends, and drops its database, before the role goes
		harness.Scenario(t, harness.People+`
		CREATE TABLE tenants (id int, tenant text);
		INSERT INTO tenants VALUES (1, 'a'), (2, 'b');
		ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON tenants USING (tenant = current_setting('app.tenant'));
		DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`'; END $$;
		GRANT SELECT ON tenants TO `+role, func(f *harness.Fixture) {
			s, _ := f.Session()
			s.Warm(harness.UserByID, 1)
			s.Both("SET ROLE " + role)
			s.Fails(harness.UserByID, 1) // permission denied, though the cache has it
			for _, tenant := range []string{"a", "b", "a"} {
				s.Both("SET app.tenant = '" + tenant + "'")
				s.Bypass(keying.RowSecurity, "SELECT id, tenant FROM tenants")
			}
			s.Both("RESET ROLE")
			s.Hit(harness.UserByID, 1)
			s.Fresh("SELECT id, tenant FROM tenants ORDER BY id").Is("1 a, 2 b")
			s.Both("SET SESSION AUTHORIZATION " + role)
			s.Fails(harness.UserByID, 1)
			s.Both("RESET SESSION AUTHORIZATION")
			s.Hit(harness.UserByID, 1)

			// A grant that is taken back.
			s.Exec("GRANT SELECT ON users TO " + role)
			s.Both("SET ROLE " + role)
			s.Known(harness.UserByID, 1)
			f.Exec("REVOKE SELECT ON users FROM " + role)
			s.Fails(harness.UserByID, 1)
			s.Both("RESET ROLE")
		})
	})
}

// A temporary table belongs to one session and may hide a table of the same name.
func TestTemporaryTables(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		s, _ := f.Session()
		s.Hit(harness.UserByID, 1)
		s.Both("CREATE TEMPORARY TABLE users (id int, name text, city text)")
		s.Fresh(harness.UserByID, 1).Is("")
		s.Both("INSERT INTO users VALUES (1, 'mine', '')")
		s.Fresh(harness.UserByID, 1).Is("1 mine ")
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		f.Known(harness.UserByID, 1)
		s.Fresh(harness.UserByID, 1).Is("1 mine ")
		s.Both("DROP TABLE users")
		s.Fresh(harness.UserByID, 1).Is("1 ann Oslo")

		s.Both("CREATE TEMPORARY TABLE mine AS SELECT 1 AS x")
		s.Fresh("SELECT x FROM mine")
		s.Both("INSERT INTO mine VALUES (2)")
		s.Fresh("SELECT x FROM mine").Is("1, 2")
		s.Both("DISCARD ALL")
		s.Fails("SELECT x FROM mine")
	})
}
