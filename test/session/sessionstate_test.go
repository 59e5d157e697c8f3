package session

import (
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

const clockText = "SELECT at::text FROM clocks WHERE id = 1"

const (
	inUTC   = "2024-05-01 12:00:00+00"
	inTokyo = "2024-05-01 21:00:00+09"
)

// tokyo checks that the session has Tokyo's time, home that it has not.
func tokyo(v harness.Via) { v.F.Helper(); v.Fresh(clockText).Is(inTokyo); v.Hit(clockText).Is(inTokyo) }
func home(v harness.Via)  { v.F.Helper(); v.Fresh(clockText).Is(inUTC); v.Hit(clockText).Is(inUTC) }

// Every setting that the key holds.
func TestSettingsThatAreTracked(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`CREATE TABLE v (id int PRIMARY KEY, at timestamptz, line text, m money, n text); INSERT INTO v VALUES (1, '2024-05-01 12:00Z', 'the foxes', 5, NULL);
		CREATE VIEW seen AS SELECT id FROM v`, func(f *harness.Fixture) {
		s, _ := f.Session()
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
			if _, err := f.Plain.ExecContext(f.Ctx, "SET "+test.setting+" = '"+test.value+"'; RESET "+test.setting); err != nil {
				t.Logf("%s: this server does not know %s", test.setting, test.value)
				continue
			}
			first := s.Known(test.query).String()
			for _, set := range []string{
				"SET " + test.setting + " = '" + test.value + "'", "SET SESSION " + test.setting + " TO '" + test.value + "'",
				"SELECT set_config('" + test.setting + "', '" + test.value + "', false)",
			} {
				s.Both(set)
				analysed(s)
				if got := s.Fresh(test.query).String(); got == first {
					f.Errorf("%s: still %s", set, got)
				}
				s.Fresh(test.query)
				s.Both("RESET " + test.setting)
				analysed(s)
				s.Fresh(test.query).Is(first)
			}
			f.Hit(test.query).Is(first) // of another connection
		}
		s.Known("SELECT id FROM seen")
		if _, err := f.Plain.ExecContext(f.Ctx, "SET restrict_nonsystem_relation_kind = 'view'; RESET restrict_nonsystem_relation_kind"); err == nil {
			s.Both("SET restrict_nonsystem_relation_kind = 'view'")
			analysed(s)
			s.Fails("SELECT id FROM seen")
		}
	})
}

// analysed makes PostgreSQL read literals again in what plain pgx has prepared,
// by the settings of now; the driver does that by itself.
func analysed(v harness.Via) {
	v.F.Helper()
	if _, err := v.Truth.ExecContext(v.F.Ctx, "DISCARD PLANS"); err != nil {
		v.F.Fatal(err)
	}
}

// PostgreSQL reads the literals of a prepared statement once. What such a
// statement gives under other settings is not what others would get who ask anew.
func TestLiteralsOfPreparedStatements(t *testing.T) {
	harness.ScenarioInMemory(t, harness.Clocks, func(f *harness.Fixture) {
		harness.UTC(f)
		const query = "SELECT '2024-05-01 12:00'::timestamptz = at FROM clocks"
		s, conn := f.Session()
		stmt, err := conn.PrepareContext(f.Ctx, query)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		s.Known(query).Is("true")
		s.On(harness.Prepared{Stmt: stmt}).Fresh(query).Is("true")
		s.Both("SET TimeZone = 'Asia/Tokyo'")
		analysed(s)
		s.Fresh(query).Is("false")
		s.On(harness.Prepared{Stmt: stmt}).Fresh(query).Is("false")
		f.DSN = harness.WithKey(f.DSN, "timezone", "Asia/Tokyo")
		harness.Anew(f).Hit(query).Is("false")
		s.Both("BEGIN")
		s.Both("SET LOCAL TimeZone = 'UTC'")
		analysed(s)
		s.Exec("UPDATE clocks SET id = id")
		s.On(harness.Prepared{Stmt: stmt}).Fresh(query).Is("true")
		s.Both("COMMIT")
		analysed(s)
		s.On(harness.Prepared{Stmt: stmt}).Fresh(query).Is("false")
		harness.Anew(f).Known(query).Is("false")
	})
}

// What was prepared while backslashes meant something else means that for ever.
func TestTextsUnderOtherRules(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People, func(f *harness.Fixture) {
		if f.Mode() == pgx.QueryExecModeSimpleProtocol {
			f.Skip("pgx refuses it")
		}
		const query = `SELECT 'a\\b', name FROM users WHERE id = 1`
		s, _ := f.Session()
		s.Both("SET standard_conforming_strings = off")
		s.Fresh(query).Is(`a\b ann`)
		s.Both("SET standard_conforming_strings = on")
		s.Fresh(query)
		f.Known(query).Is(`a\\b ann`)
	})
}

// The ways of setting something, and how each of them ends.
func TestWaysOfSetting(t *testing.T) {
	harness.Scenario(t, harness.Clocks+`
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
		CREATE VIEW setting AS SELECT set_config('TimeZone', 'Asia/Tokyo', false)`, func(f *harness.Fixture) {
		harness.UTC(f)
		f.Known(clockText)
		s, _ := f.Session()
		home(s)
		for i, set := range []string{
			"SET TimeZone = 'Asia/Tokyo'", "SET TIME ZONE 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
			"SELECT count(*), set_config('TimeZone', 'Asia/Tokyo', false) FROM clocks", "SELECT * FROM setting",
			"SELECT use('Asia/Tokyo', false)", "SELECT use_stable('Asia/Tokyo')", "SELECT use_dynamic('Asia/Tokyo')", "SELECT use_nested('Asia/Tokyo')",
			"CALL use_by_call('Asia/Tokyo')", "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$", "DO $$ BEGIN SET TimeZone = 'Asia/Tokyo'; END $$",
			"INSERT INTO log VALUES ('Asia/Tokyo')", "INSERT INTO late VALUES ('Asia/Tokyo')", "INSERT INTO defaulted (n) VALUES (1)",
			"SET LOCAL DateStyle = ISO; SET TimeZone = 'Asia/Tokyo'", "UPDATE clocks SET id = id WHERE set_config('TimeZone', 'Asia/Tokyo', false) <> ''",
			"BEGIN; SET TimeZone = 'Asia/Tokyo'; COMMIT",
		} {
			if f.Mode().String() != "simple protocol" && f.Mode().String() != "exec" && strings.Contains(set, "; SET") {
				continue // several statements have no extended protocol
			}
			s.Both(set)
			tokyo(s)
			resets := []string{"RESET TimeZone", "RESET ALL", "SET TimeZone TO DEFAULT", "SET TIME ZONE 'UTC'", "DISCARD ALL"}
			if f.Mode() == pgx.QueryExecModeCacheStatement {
				resets = resets[:4] // pgx does not know that its statements are gone
			}
			s.Both(resets[i%len(resets)])
			home(s)
		}
		home(f.Via)

		// What ends with the transaction, or with what it was rolled back to.
		for _, test := range []struct{ set, end string }{
			{"SET LOCAL TIME ZONE 'Asia/Tokyo'", "COMMIT"}, {"SET LOCAL TIME ZONE 'Asia/Tokyo'", "ROLLBACK"}, {"SET TIME ZONE 'Asia/Tokyo'", "ROLLBACK"},
			{"SELECT set_config('TimeZone', 'Asia/Tokyo', true)", "COMMIT"}, {"SELECT use('Asia/Tokyo', true)", "COMMIT"}, {"SELECT use('Asia/Tokyo', false)", "ROLLBACK"},
		} {
			s.Both("BEGIN")
			home(s)
			s.Both(test.set)
			tokyo(s)
			s.Both("SAVEPOINT a")
			s.Both("SET LOCAL TimeZone = 'Europe/Paris'")
			s.Fresh(clockText)
			s.Both("ROLLBACK TO SAVEPOINT a")
			s.Fresh(clockText).Is(inTokyo)
			s.Both("RELEASE SAVEPOINT a")
			s.Fresh(clockText).Is(inTokyo)
			s.Both(test.end)
			home(s)
		}
		s.Both("BEGIN")
		s.Both("SAVEPOINT a")
		s.Both("SET TimeZone = 'Asia/Tokyo'")
		s.Both("RELEASE SAVEPOINT a")
		s.Both("COMMIT")
		tokyo(s)
		s.Both("RESET TimeZone")
		s.Both("SELECT set_config('TimeZone', 'Asia/Tokyo', true)") // outside a transaction it ends at once
		home(s)

		// In the clause of a function it holds inside.
		s.Fresh("SELECT there()").Is(inTokyo)
		home(s)
		s.Warm("SELECT shown(at), at::text FROM clocks").Is(inTokyo + " " + inUTC)
		home(s)
		tx, err := f.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.On(tx).Exec("INSERT INTO late VALUES ('Asia/Tokyo')")
		f.Commit(tx)
	})
}

// Settings that a connection begins with.
func TestSettingsOfNewConnections(t *testing.T) {
	role := "cachedpg_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role+" LOGIN SUPERUSER")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	t.Run("", func(t *testing.T) {
		harness.Scenario(t, harness.Clocks, func(f *harness.Fixture) {
			f.DSN = harness.WithKey(f.DSN, "user", role)
			dsn := harness.WithKey(f.DSN, "cache_max_conns", "0") // with a bound a new connection is not a new session
			f.DB, f.Plain = f.Open("cachedpg", harness.WithKeys(dsn, f.Keys)), f.Open("pgx", f.DSN)
			f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
			f.Exec("ALTER ROLE " + role + " RESET ALL")
			f.Exec("ALTER ROLE " + role + " SET TimeZone = 'UTC'")
			renew := func(db *sql.DB) {
				db.SetMaxIdleConns(0) // closes those there are
				db.SetMaxIdleConns(2)
			}
			both := func() { renew(f.DB); renew(f.Plain) }
			both()
			home(f.Via)
			old, _ := f.Session()
			home(old)
			for _, alter := range []string{"ALTER ROLE " + role, "ALTER ROLE " + role + " IN DATABASE " + database(f)} {
				f.Exec(alter + " SET TimeZone = 'Asia/Tokyo'")
				both()
				tokyo(f.Via)
				home(old) // as it began
				both()
				f.Hit(clockText).Is(inTokyo)
				f.Exec(alter + " SET TimeZone = 'UTC'")
				home(old)
				both()
				home(f.Via)
			}
			f.Exec("ALTER ROLE " + role + " RESET ALL")
			f.Exec("ALTER ROLE " + role + " IN DATABASE " + database(f) + " RESET ALL")
			f.Exec("ALTER DATABASE " + database(f) + " SET TimeZone = 'Asia/Tokyo'")
			both()
			tokyo(f.Via)
			home(old)
			both()
			tokyo(f.Via)
			f.Exec("ALTER DATABASE " + database(f) + " RESET ALL")

			// Of the connection string.
			for _, key := range [][2]string{{"timezone", "Asia/Tokyo"}, {"options", "-cTimeZone=Asia/Tokyo"}} {
				dsn := harness.WithKey(f.DSN, key[0], key[1])
				v := f.Asking(f.Open("cachedpg", harness.WithKeys(dsn, f.Keys)))
				v.Truth = f.Open("pgx", dsn)
				tokyo(v)
				home(old)
			}
		})
	})
}

// A connection that is dialled for a miss may begin as no other did, and nobody has noticed yet. What is read there is
// not stored for the others.
func TestADialledSessionFillsNoOthersEntry(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	f := harness.New(t, database, "cache_statement", harness.Clocks)
	role := f.NewRole(database)
	f.Past("ALTER ROLE " + role + " SET TimeZone = 'UTC'")
	dsn := harness.WithKey(f.DSN, "user", role)
	db := f.Open("cachedpg", harness.WithKey(dsn, "cache_max_conns", "0"))
	old := f.Asking(db).On(f.Conn(db))
	old.Truth = f.Conn(f.Open("pgx", dsn))
	home(old)
	const again = "SELECT at::text AS again FROM clocks WHERE id = 1"
	f.Past("ALTER ROLE " + role + " SET TimeZone = 'Asia/Tokyo'")
	f.Asking(db).Read(f.Conn(db), again, nil).Is(inTokyo)
	old.Known(again).Is(inUTC)
}

func database(f *harness.Fixture) (name string) {
	f.Helper()
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT quote_ident(current_database())").Scan(&name); err != nil {
		f.Fatal(err)
	}
	return name
}

// A reload of the configuration may change every session; all are asked again.
func TestReloadOfTheConfiguration(t *testing.T) {
	harness.ScenarioOnce(t, harness.Clocks, func(f *harness.Fixture) {
		f.Known(clockText)
		f.Runs(keying.SessionFunction, "SELECT pg_reload_conf()")
		f.Until("it is on disk", func() bool { n, _ := inside.Pending(f.DB); return n == 0 }) // what it may have written
		f.Miss(clockText)
	})
}
