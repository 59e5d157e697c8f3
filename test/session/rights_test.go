package session

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// A privilege that is taken away is not outlived by a hit, nor a role's
// membership, nor the right to see past a policy.
func TestPrivileges(t *testing.T) {
	names := make([]string, 2)
	for i := range names {
		names[i] = "cachedpg_" + strings.ToLower(rand.Text()[:12])
		pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+names[i])
		t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+names[i]) })
	}
	role, group := names[0], names[1]
	t.Run("", func(t *testing.T) {
		harness.ScenarioOnce(t, harness.People+`
			CREATE VIEW shown AS SELECT id, name FROM users; CREATE VIEW invoked AS SELECT id, name FROM users;
			CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
			CREATE TABLE mine (id int, owner text); INSERT INTO mine VALUES (1, 'a'), (2, 'b');
			DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`, `+group+`'; END $$;`, func(f *harness.Fixture) {
			version := 0
			if err := f.Plain.QueryRowContext(f.Ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
				f.Fatal(err)
			}
			f.Exec("GRANT " + group + " TO " + role)
			s, _ := f.Session()
			const query = "SELECT id, name FROM users WHERE id = 1"
			for _, test := range []struct{ query, grant, revoke string }{
				{query, "GRANT SELECT ON users TO " + role, "REVOKE SELECT ON users FROM " + role},
				{query, "GRANT SELECT ON users TO PUBLIC", "REVOKE ALL ON ALL TABLES IN SCHEMA cache_statement FROM PUBLIC"},
				{query, "GRANT SELECT (id, name) ON users TO " + role, "REVOKE SELECT (name) ON users FROM " + role},
				{query, "GRANT SELECT ON users TO " + group, "REVOKE " + group + " FROM " + role},
				{query, "GRANT " + group + " TO " + role, "ALTER ROLE " + role + " NOINHERIT; REVOKE " + group + " FROM " + role + "; GRANT " + group + " TO " + role},
				{query, "ALTER ROLE " + role + " SUPERUSER", "ALTER ROLE " + role + " NOSUPERUSER"},
				{query, "ALTER TABLE users OWNER TO " + role, "ALTER TABLE users OWNER TO CURRENT_USER"},
				{query, "GRANT SELECT ON users TO " + role, "REVOKE USAGE ON SCHEMA cache_statement FROM " + role + "; REVOKE ALL ON users FROM " + role},
				{"SELECT twice(4)", "GRANT USAGE ON SCHEMA cache_statement TO " + role, "REVOKE EXECUTE ON FUNCTION twice(int) FROM PUBLIC"},
				{"SELECT name FROM shown WHERE id = 1", "GRANT SELECT ON shown TO " + role, "REVOKE SELECT ON shown FROM " + role},
				{"SELECT name FROM invoked WHERE id = 1", "GRANT SELECT ON invoked, users TO " + role, "ALTER VIEW invoked SET (security_invoker); REVOKE SELECT ON users FROM " + role},
				{"SELECT name FROM users NATURAL JOIN mine", "GRANT SELECT ON users, mine TO " + role, "DROP OWNED BY " + role},
			} {
				if strings.Contains(test.revoke, "security_invoker") && version < 150000 {
					continue
				}
				f.Exec(test.grant)
				s.Both("SET ROLE " + role)
				s.Known(test.query)
				for _, revoke := range strings.Split(test.revoke, "; ") {
					f.Exec(revoke)
				}
				s.Fails(test.query)
				s.Both("RESET ROLE")
				s.Known(test.query)
			}

			// Row-level security that comes to a table.
			const rows = "SELECT id FROM mine ORDER BY id"
			f.Exec("GRANT USAGE ON SCHEMA cache_statement TO " + role)
			f.Exec("GRANT SELECT ON mine TO " + role)
			s.Both("SET ROLE " + role)
			s.Known(rows)
			f.Exec("CREATE POLICY own ON mine USING (owner = current_setting('app.owner', true))")
			s.Known(rows)
			f.Exec("ALTER TABLE mine ENABLE ROW LEVEL SECURITY")
			s.Bypass(keying.RowSecurity, rows).Is("")
			s.Both("SET app.owner = 'b'")
			s.Bypass(keying.RowSecurity, rows).Is("2")
			s.Both("RESET ROLE")
			s.Fresh(rows).Is("1, 2")
			f.Exec("ALTER ROLE " + role + " BYPASSRLS")
			s.Both("SET ROLE " + role)
			s.Fresh(rows).Is("1, 2")
			s.Both("RESET ROLE")
			f.Exec("ALTER ROLE " + role + " NOBYPASSRLS")
			f.Exec("ALTER TABLE mine OWNER TO " + role)
			s.Both("SET ROLE " + role)
			s.Fresh(rows).Is("1, 2")
			f.Exec("ALTER TABLE mine FORCE ROW LEVEL SECURITY")
			s.Fresh(rows).Is("2")
			s.Both("SET row_security = off")
			s.Fails(rows)
			s.Both("RESET row_security")
			f.Exec("ALTER TABLE mine DISABLE ROW LEVEL SECURITY")
			s.Known(rows).Is("1, 2")
			s.Both("RESET ROLE")
			f.Exec("ALTER TABLE mine OWNER TO CURRENT_USER")
			f.Exec("DROP OWNED BY " + role + ", " + group)
		})
	})
}

// "$user" on the search_path is the current user's schema, if there is one.
func TestTheUsersSchema(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role+" SUPERUSER")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) {
		harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
			s, _ := f.Session()
			s.Both(`SET search_path = "$user", cache_statement`)
			s.Known(harness.UserByID, 1)
			s.Both("SET ROLE " + role)
			s.Known(harness.UserByID, 1).Is("1 ann Oslo")
			f.Exec("CREATE SCHEMA " + role)
			f.Exec("CREATE TABLE " + role + ".users AS SELECT 1 AS id, 'own'::text AS name, ''::text AS city")
			s.Both("DISCARD PLANS")
			s.Known(harness.UserByID, 1).Is("1 own ")
			s.Both("RESET ROLE")
			s.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			s.Both("SET SESSION AUTHORIZATION " + role)
			s.Fresh(harness.UserByID, 1).Is("1 own ")
			s.Both("SET ROLE postgres")
			s.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			s.Both("RESET SESSION AUTHORIZATION")
			s.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			f.Exec("DROP OWNED BY " + role)
			f.Exec("DROP SCHEMA IF EXISTS " + role + " CASCADE")
		})
	})
}

// A setting of the user's own, which only what is never cached can read.
func TestCustomSettings(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People+`
		CREATE FUNCTION tenant() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;
		CREATE VIEW own AS SELECT * FROM users WHERE name = tenant();
		CREATE VIEW set AS SELECT * FROM users WHERE name = current_setting('app.tenant', true)`, func(f *harness.Fixture) {
		s, _ := f.Session()
		s.Known(harness.UserByID, 1)
		for _, name := range []string{"ann", "bob", "ann"} {
			s.Both("SET app.tenant = '" + name + "'")
			s.Hit(harness.UserByID, 1)
			s.Bypass(keying.UserFunction, "SELECT name FROM own").Is(name)
			s.Bypass(keying.StableFunction, "SELECT name FROM set").Is(name)
			s.Bypass(keying.StableFunction, "SELECT current_setting('app.tenant')").Is(name)
		}
		// Of an extension that is asked for the nearest rows.
		s.Known("SELECT id FROM users ORDER BY id LIMIT 2")
		s.Both("SET hnsw.ef_search = 200")
		s.Miss("SELECT id FROM users ORDER BY id LIMIT 2")
		s.Both("RESET hnsw.ef_search")
	})
}
