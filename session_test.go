package cachedpg

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// A name means what the search_path says.
func TestEqualNamesInTwoSchemas(t *testing.T) {
	scenario(t, people+`
		DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other;
		CREATE TABLE other.users (id int PRIMARY KEY, name text, city text);
		INSERT INTO other.users VALUES (1, 'zoe', 'Nice');`, func(f *fixture) {
		f.warm(userByID, 1).is("1 ann Oslo")
		f.warm("SELECT name FROM other.users WHERE id = 1").is("zoe")
		s, _ := f.session()
		s.both("SET search_path = other")
		s.warm(userByID, 1).is("1 zoe Nice")
		s.exec("UPDATE users SET name = 'zoé' WHERE id = 1")
		s.miss(userByID, 1).is("1 zoé Nice")
		f.hit(userByID, 1).is("1 ann Oslo")
		f.miss("SELECT name FROM other.users WHERE id = 1").is("zoé")
		s.both("RESET search_path")
		s.hit(userByID, 1).is("1 ann Oslo")

		// A table that comes to stand in front of another of its name.
		s.both("SET search_path = front, other")
		s.known(userByID, 1)
		s.exec("DROP SCHEMA IF EXISTS front CASCADE")
		s.exec("CREATE SCHEMA front")
		s.fresh(userByID, 1).is("1 zoé Nice")
		s.exec("CREATE TABLE front.users AS SELECT 1 AS id, 'first'::text AS name, ''::text AS city")
		s.fresh("SELECT name, city FROM users WHERE id = 1").is("first ")
		// PostgreSQL does not look again for a statement that it has prepared;
		// the driver makes it, and here pgx's connection is made to as well.
		s.both("DISCARD PLANS")
		s.known(userByID, 1)
		s.exec("UPDATE other.users SET name = 'later' WHERE id = 1")
		s.fresh(userByID, 1)
		s.known(userByID, 1)
		s.exec("UPDATE front.users SET name = 'still' WHERE id = 1")
		s.fresh(userByID, 1)
		s.known(userByID, 1)
		s.exec("UPDATE other.users SET name = 'zoé' WHERE id = 1")
		s.exec("DROP TABLE front.users")
		s.fresh(userByID, 1).is("1 zoé Nice")
	})
}

// What a session sets is part of the question; ORMs send SET, query, RESET on
// one connection.
func TestSettingsAreAPartOfTheQuestion(t *testing.T) {
	scenario(t, `CREATE TABLE v (at timestamptz, f float8, i interval, b bytea);
		INSERT INTO v VALUES ('2024-05-01 12:00Z', 1.0 / 3, '1 day 2 hours', '\x00ff')`, func(f *fixture) {
		const query = "SELECT at::text, f::text, i::text, b::text FROM v"
		first := f.warm(query).String()
		s, _ := f.session()
		for _, setting := range []struct{ set, reset string }{
			{"SET TIME ZONE 'Asia/Tokyo'", "RESET TIME ZONE"},
			{"SET timezone = 'Asia/Tokyo'", "RESET ALL"},
			{"SET datestyle = 'German'", "SET datestyle TO DEFAULT"},
			{"SET intervalstyle = 'iso_8601'", "RESET intervalstyle"},
			{"SET bytea_output = 'escape'", "RESET bytea_output"},
			{"SET extra_float_digits = -10", "RESET extra_float_digits"},
		} {
			for range 2 {
				s.both(setting.set)
				if got := s.known(query).String(); got == first {
					f.Errorf("%s: still %s", setting.set, got)
				}
				s.both(setting.reset)
				s.hit(query).is(first)
			}
		}
		f.hit(query).is(first)

		// What ends with the transaction.
		for _, set := range []string{"SET LOCAL TIME ZONE 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"} {
			s.both("BEGIN")
			s.both(set)
			if got := s.known(query).String(); got == first {
				f.Errorf("%s: still %s", set, got)
			}
			s.both("COMMIT")
			s.hit(query).is(first)
		}
		// What a rollback undoes, the whole or up to a savepoint.
		s.both("BEGIN")
		s.both("SET TIME ZONE 'Asia/Tokyo'")
		s.both("ROLLBACK")
		s.hit(query).is(first)
		s.both("BEGIN")
		s.both("SAVEPOINT a")
		s.both("SET TIME ZONE 'Asia/Tokyo'")
		s.known(query)
		s.both("ROLLBACK TO a")
		s.fresh(query).is(first)
		s.both("COMMIT")
		s.fresh(query).is(first)

		// A connection that goes back into the pool with its setting.
		one := f.with()
		one.db.SetMaxOpenConns(1)
		one.exec("SET TIME ZONE 'Asia/Tokyo'")
		plain := f.open("pgx", f.dsn)
		plain.SetMaxOpenConns(1)
		if _, err := plain.ExecContext(f.ctx, "SET TIME ZONE 'Asia/Tokyo'"); err != nil {
			f.Fatal(err)
		}
		one.truth = plain
		one.fresh(query)
		one.hit(query)
		f.hit(query).is(first)
	})
}

// Roles see what they may see.
func TestRoles(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role)
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) { // ends, and drops its database, before the role goes
		scenario(t, people+`
		CREATE TABLE tenants (id int, tenant text);
		INSERT INTO tenants VALUES (1, 'a'), (2, 'b');
		ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON tenants USING (tenant = current_setting('app.tenant'));
		DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`'; END $$;
		GRANT SELECT ON tenants TO `+role, func(f *fixture) {
			s, _ := f.session()
			s.warm(userByID, 1)
			s.both("SET ROLE " + role)
			s.fails(userByID, 1) // permission denied, though the cache has it
			for _, tenant := range []string{"a", "b", "a"} {
				s.both("SET app.tenant = '" + tenant + "'")
				s.bypass(keying.RowSecurity, "SELECT id, tenant FROM tenants")
			}
			s.both("RESET ROLE")
			s.hit(userByID, 1)
			s.fresh("SELECT id, tenant FROM tenants ORDER BY id").is("1 a, 2 b")
			s.both("SET SESSION AUTHORIZATION " + role)
			s.fails(userByID, 1)
			s.both("RESET SESSION AUTHORIZATION")
			s.hit(userByID, 1)

			// A grant that is taken back.
			s.exec("GRANT SELECT ON users TO " + role)
			s.both("SET ROLE " + role)
			s.known(userByID, 1)
			f.exec("REVOKE SELECT ON users FROM " + role)
			s.fails(userByID, 1)
			s.both("RESET ROLE")
		})
	})
}

// A temporary table belongs to one session and may hide a table of the same name.
func TestTemporaryTables(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		s, _ := f.session()
		s.hit(userByID, 1)
		s.both("CREATE TEMPORARY TABLE users (id int, name text, city text)")
		s.fresh(userByID, 1).is("")
		s.both("INSERT INTO users VALUES (1, 'mine', '')")
		s.fresh(userByID, 1).is("1 mine ")
		f.fresh(userByID, 1).is("1 ann Oslo")
		f.known(userByID, 1)
		s.fresh(userByID, 1).is("1 mine ")
		s.both("DROP TABLE users")
		s.fresh(userByID, 1).is("1 ann Oslo")

		s.both("CREATE TEMPORARY TABLE mine AS SELECT 1 AS x")
		s.fresh("SELECT x FROM mine")
		s.both("INSERT INTO mine VALUES (2)")
		s.fresh("SELECT x FROM mine").is("1, 2")
		s.both("DISCARD ALL")
		s.fails("SELECT x FROM mine")
	})
}
