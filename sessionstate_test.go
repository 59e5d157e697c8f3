package cachedpg

import (
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// clocks is the setup of stories whose query shows which TimeZone holds.
const clocks = people + `CREATE TABLE clocks (id int PRIMARY KEY, at timestamptz); INSERT INTO clocks VALUES (1, '2024-05-01 12:00Z');
	CREATE TABLE log (line text);`

const clockText = "SELECT at::text FROM clocks WHERE id = 1"

const (
	inUTC   = "2024-05-01 12:00:00+00"
	inTokyo = "2024-05-01 21:00:00+09"
)

// tokyo checks that the session has Tokyo's time, home that it has not.
func (v via) tokyo() { v.f.Helper(); v.fresh(clockText).is(inTokyo); v.hit(clockText).is(inTokyo) }
func (v via) home()  { v.f.Helper(); v.fresh(clockText).is(inUTC); v.hit(clockText).is(inUTC) }

// utc makes a DSN whose sessions begin with a known TimeZone.
func (f *fixture) utc() {
	f.Helper()
	f.dsn = withKey(f.dsn, "timezone", "UTC")
	f.db, f.plain = f.open("cachedpg", withKeys(f.dsn, f.keys)), f.open("pgx", f.dsn)
	f.via = via{f: f, db: f.db, ask: f.db, truth: f.plain}
}

// Every setting that the key holds.
func TestSettingsThatAreTracked(t *testing.T) {
	scenarioOnce(t, people+`CREATE TABLE v (id int PRIMARY KEY, at timestamptz, line text, m money, n text); INSERT INTO v VALUES (1, '2024-05-01 12:00Z', 'the foxes', 5, NULL);
		CREATE VIEW seen AS SELECT id FROM v`, func(f *fixture) {
		s, _ := f.session()
		for _, test := range []struct{ setting, value, query string }{
			{"TimeZone", "Asia/Tokyo", "SELECT at::text FROM v"},
			{"TimeZone", "<+09>-09", "SELECT date_trunc('day', at)::text, extract(hour FROM at), at::date::text FROM v"},
			{"DateStyle", "German, DMY", "SELECT at::text, '1/2/2024'::date::text FROM v"},
			{"IntervalStyle", "iso_8601", "SELECT (at - '2024-01-01')::text FROM v"},
			{"extra_float_digits", "-10", "SELECT (1.0::float8 / 3)::text FROM v"},
			{"bytea_output", "escape", "SELECT line::bytea::text FROM v"},
			{"default_text_search_config", "pg_catalog.simple", "SELECT to_tsvector(line)::text, line @@ 'fox' FROM v"},
			{"array_nulls", "off", "SELECT ('{NULL}'::text[])[1] IS NULL FROM v"},
			{"transform_null_equals", "on", "SELECT n = NULL FROM v"},
			{"timezone_abbreviations", "Australia", "SELECT ('2024-05-01 12:00 EST'::timestamptz = '2024-05-01 12:00-05')::text FROM v"},
			{"lc_monetary", "en_US.utf8", "SELECT m::text FROM v"},
			{"lc_numeric", "de_DE.utf8", "SELECT to_char(1.5, '9D9') FROM v"},
			{"lc_time", "de_DE.utf8", "SELECT to_char(at, 'TMMonth') FROM v"},
		} {
			if _, err := f.plain.ExecContext(f.ctx, "SET "+test.setting+" = '"+test.value+"'; RESET "+test.setting); err != nil {
				t.Logf("%s: this server does not know %s", test.setting, test.value)
				continue
			}
			first := s.known(test.query).String()
			for _, set := range []string{
				"SET " + test.setting + " = '" + test.value + "'", "SET SESSION " + test.setting + " TO '" + test.value + "'",
				"SELECT set_config('" + test.setting + "', '" + test.value + "', false)",
			} {
				s.both(set)
				s.analysed()
				if got := s.fresh(test.query).String(); got == first {
					f.Errorf("%s: still %s", set, got)
				}
				s.fresh(test.query)
				s.both("RESET " + test.setting)
				s.analysed()
				s.fresh(test.query).is(first)
			}
			f.hit(test.query).is(first) // of another connection
		}
		s.known("SELECT id FROM seen")
		if _, err := f.plain.ExecContext(f.ctx, "SET restrict_nonsystem_relation_kind = 'view'; RESET restrict_nonsystem_relation_kind"); err == nil {
			s.both("SET restrict_nonsystem_relation_kind = 'view'")
			s.analysed()
			s.fails("SELECT id FROM seen")
		}
	})
}

// analysed makes PostgreSQL read literals again in what plain pgx has prepared,
// by the settings of now; the driver does that by itself.
func (v via) analysed() {
	v.f.Helper()
	if _, err := v.truth.ExecContext(v.f.ctx, "DISCARD PLANS"); err != nil {
		v.f.Fatal(err)
	}
}

// PostgreSQL reads the literals of a prepared statement once. What such a
// statement gives under other settings is not what others would get who ask anew.
func TestLiteralsOfPreparedStatements(t *testing.T) {
	scenarioInMemory(t, clocks, func(f *fixture) {
		f.utc()
		const query = "SELECT '2024-05-01 12:00'::timestamptz = at FROM clocks"
		s, conn := f.session()
		stmt, err := conn.PrepareContext(f.ctx, query)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		s.known(query).is("true")
		s.on(prepared{stmt}).fresh(query).is("true")
		s.both("SET TimeZone = 'Asia/Tokyo'")
		s.analysed()
		s.fresh(query).is("false")
		s.on(prepared{stmt}).fresh(query).is("false")
		f.dsn = withKey(f.dsn, "timezone", "Asia/Tokyo")
		f.anew().hit(query).is("false")
		s.both("BEGIN")
		s.both("SET LOCAL TimeZone = 'UTC'")
		s.analysed()
		s.exec("UPDATE clocks SET id = id")
		s.on(prepared{stmt}).fresh(query).is("true")
		s.both("COMMIT")
		s.analysed()
		s.on(prepared{stmt}).fresh(query).is("false")
		f.anew().known(query).is("false")
	})
}

// What was prepared while backslashes meant something else means that for ever.
func TestTextsUnderOtherRules(t *testing.T) {
	scenarioInMemory(t, people, func(f *fixture) {
		if f.mode() == pgx.QueryExecModeSimpleProtocol {
			f.Skip("pgx refuses it")
		}
		const query = `SELECT 'a\\b', name FROM users WHERE id = 1`
		s, _ := f.session()
		s.both("SET standard_conforming_strings = off")
		s.fresh(query).is(`a\b ann`)
		s.both("SET standard_conforming_strings = on")
		s.fresh(query)
		f.known(query).is(`a\\b ann`)
	})
}

// The ways of setting something, and how each of them ends.
func TestWaysOfSetting(t *testing.T) {
	scenario(t, clocks+`
		CREATE FUNCTION use(text, bool) RETURNS void LANGUAGE sql AS $$ SELECT set_config('TimeZone', $1, $2) $$;
		CREATE FUNCTION use_stable(text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT set_config('TimeZone', $1, false) $$;
		CREATE FUNCTION use_dynamic(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET TimeZone = %L', $1); END $$;
		CREATE FUNCTION use_nested(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM use($1, false); END $$;
		CREATE FUNCTION there() RETURNS text SET TimeZone = 'Asia/Tokyo' STABLE LANGUAGE sql AS $$ SELECT at::text FROM clocks $$;
		CREATE FUNCTION shown(timestamptz) RETURNS text SET TimeZone = 'Asia/Tokyo' IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN $1::text; END $$;
		CREATE PROCEDURE use_by_call(text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('TimeZone', $1, false); END $$;
		CREATE FUNCTION use_by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('TimeZone', NEW.line, false); RETURN NEW; END $$;
		CREATE TRIGGER use BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION use_by_trigger();
		CREATE TABLE late (line text);
		CREATE CONSTRAINT TRIGGER use AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION use_by_trigger();
		CREATE TABLE defaulted (line text DEFAULT use_stable('Asia/Tokyo'), n int);
		CREATE VIEW setting AS SELECT set_config('TimeZone', 'Asia/Tokyo', false)`, func(f *fixture) {
		f.utc()
		f.known(clockText)
		s, _ := f.session()
		s.home()
		for i, set := range []string{
			"SET TimeZone = 'Asia/Tokyo'", "SET TIME ZONE 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
			"SELECT count(*), set_config('TimeZone', 'Asia/Tokyo', false) FROM clocks", "SELECT * FROM setting",
			"SELECT use('Asia/Tokyo', false)", "SELECT use_stable('Asia/Tokyo')", "SELECT use_dynamic('Asia/Tokyo')", "SELECT use_nested('Asia/Tokyo')",
			"CALL use_by_call('Asia/Tokyo')", "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$", "DO $$ BEGIN SET TimeZone = 'Asia/Tokyo'; END $$",
			"INSERT INTO log VALUES ('Asia/Tokyo')", "INSERT INTO late VALUES ('Asia/Tokyo')", "INSERT INTO defaulted (n) VALUES (1)",
			"SET LOCAL DateStyle = ISO; SET TimeZone = 'Asia/Tokyo'", "UPDATE clocks SET id = id WHERE set_config('TimeZone', 'Asia/Tokyo', false) <> ''",
			"BEGIN; SET TimeZone = 'Asia/Tokyo'; COMMIT",
		} {
			if f.mode().String() != "simple protocol" && f.mode().String() != "exec" && strings.Contains(set, "; SET") {
				continue // several statements have no extended protocol
			}
			s.both(set)
			s.tokyo()
			resets := []string{"RESET TimeZone", "RESET ALL", "SET TimeZone TO DEFAULT", "SET TIME ZONE 'UTC'", "DISCARD ALL"}
			if f.mode() == pgx.QueryExecModeCacheStatement {
				resets = resets[:4] // pgx does not know that its statements are gone
			}
			s.both(resets[i%len(resets)])
			s.home()
		}
		f.home()

		// What ends with the transaction, or with what it was rolled back to.
		for _, test := range []struct{ set, end string }{
			{"SET LOCAL TIME ZONE 'Asia/Tokyo'", "COMMIT"}, {"SET LOCAL TIME ZONE 'Asia/Tokyo'", "ROLLBACK"}, {"SET TIME ZONE 'Asia/Tokyo'", "ROLLBACK"},
			{"SELECT set_config('TimeZone', 'Asia/Tokyo', true)", "COMMIT"}, {"SELECT use('Asia/Tokyo', true)", "COMMIT"}, {"SELECT use('Asia/Tokyo', false)", "ROLLBACK"},
		} {
			s.both("BEGIN")
			s.home()
			s.both(test.set)
			s.tokyo()
			s.both("SAVEPOINT a")
			s.both("SET LOCAL TimeZone = 'Europe/Paris'")
			s.fresh(clockText)
			s.both("ROLLBACK TO SAVEPOINT a")
			s.fresh(clockText).is(inTokyo)
			s.both("RELEASE SAVEPOINT a")
			s.fresh(clockText).is(inTokyo)
			s.both(test.end)
			s.home()
		}
		s.both("BEGIN")
		s.both("SAVEPOINT a")
		s.both("SET TimeZone = 'Asia/Tokyo'")
		s.both("RELEASE SAVEPOINT a")
		s.both("COMMIT")
		s.tokyo()
		s.both("RESET TimeZone")
		s.both("SELECT set_config('TimeZone', 'Asia/Tokyo', true)") // outside a transaction it ends at once
		s.home()

		// In the clause of a function it holds inside.
		s.fresh("SELECT there()").is(inTokyo)
		s.home()
		s.warm("SELECT shown(at), at::text FROM clocks").is(inTokyo + " " + inUTC)
		s.home()
		tx, err := f.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.on(tx).exec("INSERT INTO late VALUES ('Asia/Tokyo')")
		f.commit(tx)
	})
}

// Settings that a connection begins with.
func TestSettingsOfNewConnections(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role+" LOGIN SUPERUSER")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) {
		scenario(t, clocks, func(f *fixture) {
			f.dsn = withKey(f.dsn, "user", role)
			dsn := withKey(f.dsn, "cache_max_conns", "0") // with a bound a new connection is not a new session
			f.db, f.plain = f.open("cachedpg", withKeys(dsn, f.keys)), f.open("pgx", f.dsn)
			f.via = via{f: f, db: f.db, ask: f.db, truth: f.plain}
			f.exec("ALTER ROLE " + role + " RESET ALL")
			f.exec("ALTER ROLE " + role + " SET TimeZone = 'UTC'")
			renew := func(db *sql.DB) {
				db.SetMaxIdleConns(0) // closes those there are
				db.SetMaxIdleConns(2)
			}
			both := func() { renew(f.db); renew(f.plain) }
			both()
			f.home()
			old, _ := f.session()
			old.home()
			for _, alter := range []string{"ALTER ROLE " + role, "ALTER ROLE " + role + " IN DATABASE " + f.database()} {
				f.exec(alter + " SET TimeZone = 'Asia/Tokyo'")
				both()
				f.tokyo()
				old.home() // as it began
				both()
				f.hit(clockText).is(inTokyo)
				f.exec(alter + " SET TimeZone = 'UTC'")
				old.home()
				both()
				f.home()
			}
			f.exec("ALTER ROLE " + role + " RESET ALL")
			f.exec("ALTER ROLE " + role + " IN DATABASE " + f.database() + " RESET ALL")
			f.exec("ALTER DATABASE " + f.database() + " SET TimeZone = 'Asia/Tokyo'")
			both()
			f.tokyo()
			old.home()
			both()
			f.tokyo()
			f.exec("ALTER DATABASE " + f.database() + " RESET ALL")

			// Of the connection string.
			for _, key := range [][2]string{{"timezone", "Asia/Tokyo"}, {"options", "-cTimeZone=Asia/Tokyo"}} {
				dsn := withKey(f.dsn, key[0], key[1])
				v := f.asking(f.open("cachedpg", withKeys(dsn, f.keys)))
				v.truth = f.open("pgx", dsn)
				v.tokyo()
				old.home()
			}
		})
	})
}

// What the driver makes of the texts of the settings is what PostgreSQL makes of them.
func TestTheStateOfASessionIsWhatPostgreSQLMakesOfIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	conn := f.conn(f.db)
	for _, set := range []string{"SELECT 1", `SET search_path = "A b", pg_catalog, "x""y"`, "SET TimeZone = '<+09>-09'",
		"SET default_transaction_isolation = serializable", "SET DateStyle = German"} {
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

// A connection that is dialled for a miss may begin as no other did, and nobody has noticed yet. What is read there is
// not stored for the others.
func TestADialledSessionFillsNoOthersEntry(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	f := newFixture(t, database, "cache_statement", clocks)
	role := f.newRole(database)
	f.past("ALTER ROLE " + role + " SET TimeZone = 'UTC'")
	dsn := withKey(f.dsn, "user", role)
	db := f.open("cachedpg", withKey(dsn, "cache_max_conns", "0"))
	old := f.asking(db).on(f.conn(db))
	old.truth = f.conn(f.open("pgx", dsn))
	old.home()
	const again = "SELECT at::text AS again FROM clocks WHERE id = 1"
	f.past("ALTER ROLE " + role + " SET TimeZone = 'Asia/Tokyo'")
	f.asking(db).read(f.conn(db), again, nil).is(inTokyo)
	old.known(again).is(inUTC)
}

func (f *fixture) database() (name string) {
	f.Helper()
	if err := f.plain.QueryRowContext(f.ctx, "SELECT quote_ident(current_database())").Scan(&name); err != nil {
		f.Fatal(err)
	}
	return name
}

// A reload of the configuration may change every session; all are asked again.
func TestReloadOfTheConfiguration(t *testing.T) {
	scenarioOnce(t, clocks, func(f *fixture) {
		f.known(clockText)
		f.runs(keying.SessionFunction, "SELECT pg_reload_conf()")
		f.until("it is on disk", func() bool { return connectorOf(f.db).space().writes.Stats().Pending == 0 }) // what it may have written
		f.miss(clockText)
	})
}

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
		scenarioOnce(t, people+`
			CREATE VIEW shown AS SELECT id, name FROM users; CREATE VIEW invoked AS SELECT id, name FROM users;
			CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
			CREATE TABLE mine (id int, owner text); INSERT INTO mine VALUES (1, 'a'), (2, 'b');
			DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA ' || current_schema || ' TO `+role+`, `+group+`'; END $$;`, func(f *fixture) {
			version := 0
			if err := f.plain.QueryRowContext(f.ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
				f.Fatal(err)
			}
			f.exec("GRANT " + group + " TO " + role)
			s, _ := f.session()
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
				f.exec(test.grant)
				s.both("SET ROLE " + role)
				s.known(test.query)
				for _, revoke := range strings.Split(test.revoke, "; ") {
					f.exec(revoke)
				}
				s.fails(test.query)
				s.both("RESET ROLE")
				s.known(test.query)
			}

			// Row-level security that comes to a table.
			const rows = "SELECT id FROM mine ORDER BY id"
			f.exec("GRANT USAGE ON SCHEMA cache_statement TO " + role)
			f.exec("GRANT SELECT ON mine TO " + role)
			s.both("SET ROLE " + role)
			s.known(rows)
			f.exec("CREATE POLICY own ON mine USING (owner = current_setting('app.owner', true))")
			s.known(rows)
			f.exec("ALTER TABLE mine ENABLE ROW LEVEL SECURITY")
			s.bypass(keying.RowSecurity, rows).is("")
			s.both("SET app.owner = 'b'")
			s.bypass(keying.RowSecurity, rows).is("2")
			s.both("RESET ROLE")
			s.fresh(rows).is("1, 2")
			f.exec("ALTER ROLE " + role + " BYPASSRLS")
			s.both("SET ROLE " + role)
			s.fresh(rows).is("1, 2")
			s.both("RESET ROLE")
			f.exec("ALTER ROLE " + role + " NOBYPASSRLS")
			f.exec("ALTER TABLE mine OWNER TO " + role)
			s.both("SET ROLE " + role)
			s.fresh(rows).is("1, 2")
			f.exec("ALTER TABLE mine FORCE ROW LEVEL SECURITY")
			s.fresh(rows).is("2")
			s.both("SET row_security = off")
			s.fails(rows)
			s.both("RESET row_security")
			f.exec("ALTER TABLE mine DISABLE ROW LEVEL SECURITY")
			s.known(rows).is("1, 2")
			s.both("RESET ROLE")
			f.exec("ALTER TABLE mine OWNER TO CURRENT_USER")
			f.exec("DROP OWNED BY " + role + ", " + group)
		})
	})
}

// "$user" on the search_path is the current user's schema, if there is one.
func TestTheUsersSchema(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role+" SUPERUSER")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) {
		scenarioOnce(t, people, func(f *fixture) {
			s, _ := f.session()
			s.both(`SET search_path = "$user", cache_statement`)
			s.known(userByID, 1)
			s.both("SET ROLE " + role)
			s.known(userByID, 1).is("1 ann Oslo")
			f.exec("CREATE SCHEMA " + role)
			f.exec("CREATE TABLE " + role + ".users AS SELECT 1 AS id, 'own'::text AS name, ''::text AS city")
			s.both("DISCARD PLANS")
			s.known(userByID, 1).is("1 own ")
			s.both("RESET ROLE")
			s.fresh(userByID, 1).is("1 ann Oslo")
			s.both("SET SESSION AUTHORIZATION " + role)
			s.fresh(userByID, 1).is("1 own ")
			s.both("SET ROLE postgres")
			s.fresh(userByID, 1).is("1 ann Oslo")
			s.both("RESET SESSION AUTHORIZATION")
			s.fresh(userByID, 1).is("1 ann Oslo")
			f.exec("DROP OWNED BY " + role)
			f.exec("DROP SCHEMA IF EXISTS " + role + " CASCADE")
		})
	})
}

// A setting of the user's own, which only what is never cached can read.
func TestCustomSettings(t *testing.T) {
	scenarioInMemory(t, people+`
		CREATE FUNCTION tenant() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;
		CREATE VIEW own AS SELECT * FROM users WHERE name = tenant();
		CREATE VIEW set AS SELECT * FROM users WHERE name = current_setting('app.tenant', true)`, func(f *fixture) {
		s, _ := f.session()
		s.known(userByID, 1)
		for _, name := range []string{"ann", "bob", "ann"} {
			s.both("SET app.tenant = '" + name + "'")
			s.hit(userByID, 1)
			s.bypass(keying.UserFunction, "SELECT name FROM own").is(name)
			s.bypass(keying.StableFunction, "SELECT name FROM set").is(name)
			s.bypass(keying.StableFunction, "SELECT current_setting('app.tenant')").is(name)
		}
		// Of an extension that is asked for the nearest rows.
		s.known("SELECT id FROM users ORDER BY id LIMIT 2")
		s.both("SET hnsw.ef_search = 200")
		s.miss("SELECT id FROM users ORDER BY id LIMIT 2")
		s.both("RESET hnsw.ef_search")
	})
}
