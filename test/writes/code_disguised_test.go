package writes

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// Code whose text says less than it does, or something else. In each story the
// statements change a table that no statement names, and every read that was
// cached before must give what PostgreSQL gives after.
var disguises = []struct {
	name, setup string
	run         []string // each alone, on one connection
}{
	// A transaction that is to be asked, ended by a text of several statements.
	{"commit among others", "", []string{"BEGIN", "SELECT made_up()", "SELECT 1; COMMIT"}},
	{"commit before others", "", []string{"BEGIN", "SELECT made_up()", "COMMIT; SELECT 1"}},

	// A held cursor runs its query in COMMIT.
	{"held cursor in a text", `CREATE FUNCTION hold() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN EXECUTE 'DECLARE hc CURSOR WITH HOLD FOR SELECT bump()'; RETURN 1; END $$;`, []string{"SELECT hold()"}},
	{"held cursor in a transaction", `CREATE FUNCTION hold() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN EXECUTE 'DECLARE hc CURSOR WITH HOLD FOR SELECT bump()'; RETURN 1; END $$;`, []string{"BEGIN", "SELECT hold()", "COMMIT"}},
	{"held cursor in a body", `CREATE FUNCTION hold() RETURNS void LANGUAGE sql AS
		$$ DECLARE hc CURSOR WITH HOLD FOR SELECT made_up() $$;`, []string{"SELECT hold()"}},

	// A search_path that changes between the plan and the write.
	{"set_config in a body", `CREATE FUNCTION stray() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN PERFORM set_config('search_path', 'other', true); INSERT INTO log (line) VALUES ('r'); RETURN 1; END $$;`, []string{"SELECT stray()"}},
	{"SET in a body", `CREATE FUNCTION stray() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN SET LOCAL search_path = other; INSERT INTO log (line) VALUES ('r'); RETURN 1; END $$;`, []string{"SELECT stray()"}},
	{"SET in DO", "", []string{"DO $$ BEGIN SET LOCAL search_path = other; INSERT INTO log (line) VALUES ('r'); END $$"}},
	{"set_config beside a trigger", `CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO log (line) VALUES ('r'); RETURN NULL; END $$;
		CREATE TRIGGER logs AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION logs();`,
		[]string{"UPDATE acts SET note = set_config('search_path', 'other', true) WHERE id = 1"}},
	{"set_config among others", "", []string{"BEGIN; SELECT set_config('search_path', 'other', true); INSERT INTO log (line) VALUES ('r'); COMMIT"}},
	{"SET among others", "", []string{"SET search_path = other; INSERT INTO log (line) VALUES ('r'); SET search_path = cache_statement"}},
	{"set_config one call deeper", `CREATE FUNCTION sets() RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', 'other', true) $$;
		CREATE FUNCTION stray() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN PERFORM sets(); INSERT INTO log (line) VALUES ('r'); RETURN 1; END $$;`, []string{"SELECT stray()"}},
	{"set_config declared IMMUTABLE", `CREATE FUNCTION sets() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		$$ BEGIN PERFORM set_config('search_path', 'other', true); RETURN 1; END $$;`, []string{"BEGIN", "SELECT sets()", "INSERT INTO log (line) VALUES ('r')", "COMMIT"}},
	{"a function's role", `DROP ROLE IF EXISTS cachedpg_disguise; CREATE ROLE cachedpg_disguise SUPERUSER;
		CREATE FUNCTION stray() RETURNS int LANGUAGE plpgsql SET role = 'cachedpg_disguise' AS
		$$ BEGIN INSERT INTO log VALUES ('r'); RETURN 1; END $$;`, []string{`SET search_path = "$user", cache_statement`, "SELECT stray()"}},

	// A view and a kept tree are in the words of pg_catalog; what they call is not.
	{"BEGIN ATOMIC", `CREATE FUNCTION lower(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN bump(); END $$;
		CREATE FUNCTION inner_one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN lower(5); END $$;
		CREATE FUNCTION outer_one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT inner_one(); END;`, []string{"SELECT outer_one()"}},
	{"a view on two paths", `CREATE FUNCTION ins() RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO log (line) VALUES ('r'); RETURN 1; END $$;
		CREATE VIEW vi AS SELECT ins() AS x;
		CREATE FUNCTION other_path() RETURNS int LANGUAGE plpgsql SET search_path = other AS
		$$ BEGIN RETURN (SELECT x FROM cache_statement.vi); END $$;`, []string{"SELECT (SELECT x FROM vi), other_path()"}},
	{"a cast on another path", `CREATE TYPE ty AS (a int);
		CREATE FUNCTION tyc(ty) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (line) VALUES ('r'); RETURN 1; END $$;
		CREATE CAST (ty AS int) WITH FUNCTION tyc(ty) AS ASSIGNMENT;
		CREATE FUNCTION casts() RETURNS int LANGUAGE plpgsql SET search_path = other, cache_statement AS
		$$ DECLARE v int; x ty := ROW(1); BEGIN v := x; RETURN 1; END $$;`, []string{"SELECT casts()"}},

	// Code that no statement calls.
	{"event trigger", `CREATE MATERIALIZED VIEW mv AS SELECT 1 AS x;
		CREATE FUNCTION on_refresh() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM bump(); END $$;
		CREATE EVENT TRIGGER on_refresh ON ddl_command_end WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION on_refresh();`,
		[]string{"REFRESH MATERIALIZED VIEW mv"}},
	{"a text given to a STABLE function", "CREATE EXTENSION IF NOT EXISTS tablefunc;",
		[]string{"SELECT count(*) FROM crosstab('SELECT ''a''::text, ''b''::text, bump()') AS c(a text, b int)"}},
	{"defaults of defaults", `CREATE FUNCTION h(x int DEFAULT bump()) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
		CREATE FUNCTION g(x int DEFAULT h()) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
		CREATE FUNCTION f(x int DEFAULT g()) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
		CREATE FUNCTION e(x int DEFAULT f()) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';`, []string{"SELECT e()"}},
	{"check of an argument's domain", `CREATE FUNCTION chk(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM bump(); RETURN true; END';
		CREATE DOMAIN dm AS int CHECK (chk(VALUE));
		CREATE FUNCTION im(dm) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';`, []string{"SELECT im(5)"}},
	{"a change of the catalog that is not counted", `CREATE VIEW vt AS SELECT 1 AS x;
		CREATE FUNCTION redo() RETURNS int LANGUAGE plpgsql SET track_counts = off AS
		$$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW cache_statement.vt AS SELECT 2 AS x'; RETURN 1; END $$;`, []string{"SELECT redo()"}},

	// NEW under other spellings, in a trigger that alters a key.
	{"quoted NEW", altering(`"new".id := OLD.id + 10`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"INTO NEW", altering(`SELECT OLD.id + 10 INTO "new".id`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"labelled NEW", altering(`alters.new.id := OLD.id + 10`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"alias of NEW", altering(`DECLARE z ALIAS FOR "new"; BEGIN z.id := OLD.id + 10; END`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"alias of a labelled NEW", altering(`DECLARE z ALIAS FOR alters.new; BEGIN z.id := OLD.id + 10; END`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"a column beyond ASCII", altering(`NEW.Ä := OLD."Ä" + 10`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"a column that is cut", altering(`NEW.long_name_long_name_long_name_long_name_long_name_long_name_long_name := 7`), []string{"UPDATE par SET n = 5 WHERE id = 1"}},
	{"upsert that finds another row", `CREATE FUNCTION two() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "new".id := 2; RETURN NEW; END $$;
		CREATE TRIGGER two BEFORE INSERT ON par FOR EACH ROW EXECUTE FUNCTION two();`,
		[]string{"INSERT INTO par (id, n) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = 5"}},
}

// altering is a BEFORE UPDATE trigger on par with one statement.
func altering(statement string) string {
	return "CREATE FUNCTION alters() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN " + statement + `; RETURN NEW; END $f$;
		CREATE TRIGGER alters BEFORE UPDATE ON par FOR EACH ROW EXECUTE FUNCTION alters();`
}

func TestCodeInDisguise(t *testing.T) {
	const tables = harness.CodeTables + `
		DROP SCHEMA IF EXISTS other, cachedpg_disguise CASCADE;
		CREATE SCHEMA cachedpg_disguise; CREATE TABLE cachedpg_disguise.log (line text);
		CREATE SCHEMA other; CREATE TABLE other.log (id int GENERATED ALWAYS AS IDENTITY, line text);
		CREATE FUNCTION bump() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE totals SET n = n + 1 WHERE id = 1; RETURN 1; END';
		CREATE FUNCTION made_up() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE totals SET n = n + 1 WHERE id = 1'; RETURN 1; END $$;
		CREATE TABLE par (id int PRIMARY KEY, n int, "Ä" int UNIQUE, long_name_long_name_long_name_long_name_long_name_long_name_long_n int UNIQUE);
		INSERT INTO par VALUES (1, 0, 1, 1), (2, 0, 2, 2);
		CREATE TABLE kid (id int PRIMARY KEY, par int REFERENCES par ON UPDATE CASCADE, a int REFERENCES par("Ä") ON UPDATE CASCADE,
			l int REFERENCES par(long_name_long_name_long_name_long_name_long_name_long_name_long_n) ON UPDATE CASCADE);
		INSERT INTO kid VALUES (1, 1, 1, 1), (2, 2, 2, 2);`
	for _, d := range disguises {
		t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
			harness.ScenarioOnce(t, tables+d.setup, func(f *harness.Fixture) {
				reads := []string{harness.ReadTotals, harness.ReadLog, "SELECT count(*) FROM other.log", "SELECT par, a, l FROM kid WHERE id = 1",
					"SELECT id, n FROM par ORDER BY id", "SELECT n FROM par WHERE id = 2", "SELECT count(*) FROM cachedpg_disguise.log"}
				if strings.Contains(d.setup, "VIEW vt ") {
					reads = append(reads, "SELECT x FROM vt")
				}
				before := ""
				for _, read := range reads {
					f.Known(read)
					before += f.Read(f.Truth, read, nil).String() + "\n"
				}
				conn := f.Conn(f.DB)
				defer func() {
					conn.Close()
					if strings.Contains(d.setup, "CREATE ROLE") { // roles are those of all databases
						f.Plain.ExecContext(f.Ctx, "DROP ROLE IF EXISTS cachedpg_disguise")
					}
				}()
				for _, statement := range d.run {
					if _, err := conn.ExecContext(f.Ctx, statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
				after := ""
				for _, read := range reads {
					got, truth := f.Read(f.Ask, read, nil).String(), f.Read(f.Truth, read, nil).String()
					after += truth + "\n"
					if got != truth {
						t.Errorf("%s: got %s, PostgreSQL says %s", read, got, truth)
					}
				}
				if before == after {
					t.Errorf("nothing has changed, so nothing was tested:\n%s", after)
				}
			})
		})
	}
}
