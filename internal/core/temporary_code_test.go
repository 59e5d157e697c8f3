package core

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// changesOfSchema are changes that others see, and of temporary objects.
var changesOfSchema = []struct {
	name, permanent string
}{
	{"a table", "CREATE TABLE more (id int)"},
	{"a view", "CREATE VIEW more AS SELECT 1 AS one"},
	{"an index", "CREATE UNIQUE INDEX ON items (name)"},
	{"a schema", "CREATE SCHEMA more"},
	{"a type", "CREATE TYPE more AS (a int)"},
	{"an enum", "CREATE TYPE more AS ENUM ('a')"},
	{"a domain", "CREATE DOMAIN more AS int"},
	{"a check of a domain", "ALTER DOMAIN lone ADD CHECK (value > 0)"},
	{"a function", "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'"},
	{"a trigger", "CREATE TRIGGER more AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION keeps()"},
	{"a rule", "CREATE RULE more AS ON DELETE TO items DO INSTEAD NOTHING"},
	{"a policy", "CREATE POLICY more ON items USING (true)"},
	{"a column", "ALTER TABLE items ADD more int"},
	{"a check", "ALTER TABLE items ADD CHECK (id > 0)"},
	{"a child", "CREATE TABLE more () INHERITS (items)"},
	{"a right", "GRANT SELECT ON items TO PUBLIC"},
	{"a right to a column", "GRANT SELECT (id) ON items TO PUBLIC"},
	{"a right in a savepoint", "SAVEPOINT s; GRANT SELECT ON items TO PUBLIC; RELEASE s"},
	{"a right to a schema", "GRANT USAGE ON SCHEMA bare TO PUBLIC"},
	{"a right to a type", "REVOKE USAGE ON TYPE lone FROM PUBLIC"},
	{"no table", "DROP TABLE items"},
	{"no view", "DROP VIEW seen"},
	{"no sequence", "DROP SEQUENCE alone"},
	{"no index", "DROP INDEX by_name"},
	{"no key", "ALTER TABLE items DROP CONSTRAINT items_pkey"},
	{"no schema", "DROP SCHEMA bare"},
	{"no domain", "DROP DOMAIN lone"},
	{"no type", "DROP TYPE pair"},
	{"no function", "DROP FUNCTION work"},
	{"no trigger", "DROP TRIGGER quiet ON items"},
	{"no rule", "DROP RULE still ON items"},
	{"no rows", "TRUNCATE items"},
	{"a row of the catalog", "DELETE FROM pg_description"},
}

// A transaction tells changes of what is everybody's from those of what is its session's, whatever else it has done.
func TestATransactionTellsWhoseSchemaItChanged(t *testing.T) {
	const setup = harness.TemporaryWork + `
		CREATE SEQUENCE alone; CREATE SCHEMA bare; CREATE DOMAIN lone AS int; CREATE TYPE pair AS (a int); CREATE INDEX by_name ON items (name); COMMENT ON TABLE items IS 'x';
		CREATE TRIGGER quiet AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION keeps(); CREATE RULE still AS ON UPDATE TO items DO ALSO NOTHING;`
	const temporary = `CREATE TEMP TABLE mine (id serial PRIMARY KEY, name text DEFAULT 'x' UNIQUE, n int CHECK (n > 0)); CREATE INDEX ON mine (abs(n)); INSERT INTO mine VALUES (1, 'y', 2);
		CREATE TRIGGER k BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION keeps(); CREATE RULE r AS ON DELETE TO mine DO INSTEAD NOTHING; CREATE POLICY p ON mine USING (true);
		ALTER TABLE mine ADD COLUMN more text DEFAULT 'x', ALTER n SET NOT NULL, ENABLE ROW LEVEL SECURITY; CREATE TEMP VIEW ours AS SELECT users.id FROM mine, users; CREATE TEMP SEQUENCE own;
		CREATE DOMAIN pg_temp.d AS int CHECK (value > 0); CREATE TEMP TABLE rest (id int REFERENCES mine); UPDATE users SET city = 'x' WHERE id = 1;`
	const drops = temporary + "DROP TABLE mine CASCADE; DROP TABLE rest; DROP DOMAIN pg_temp.d; DROP SEQUENCE own;"
	harness.ScenarioOnce(t, setup, func(f *harness.Fixture) {
		f.Plain.SetMaxIdleConns(0) // each case has a session of its own: the counts last a while
		f.Fresh(harness.ItemByID, 1)
		snapshot := dbOf(f.DB).space().View.Load().Snapshot
		ask := func(statements string) (w writes, changed bool) {
			f.Helper()
			tx, err := f.Plain.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			defer tx.Rollback()
			var answer string
			for statement := range strings.SplitSeq(statements, ";") {
				if _, err := tx.ExecContext(f.Ctx, statement); err != nil {
					f.Fatalf("%s: %v", statement, err)
				}
			}
			if err := tx.QueryRowContext(f.Ctx, transactionWrites).Scan(&answer); err != nil {
				f.Fatal(err)
			}
			if w, err = parseWrites(answer); err != nil {
				f.Fatal(err)
			}
			return w, w.catalog || slices.ContainsFunc(w.gone, snapshot.Permanent)
		}
		users := snapshot.Resolve([]string{"cache_statement"}, "", "users").OID
		for _, before := range []string{"", temporary, drops, "SAVEPOINT s;" + drops + "RELEASE s;"} {
			for _, c := range changesOfSchema {
				if _, changed := ask(before + c.permanent); !changed {
					f.Errorf("%s: not told, after %q", c.name, before)
				}
			}
			if before == "" {
				continue
			}
			if w, changed := ask(strings.TrimSuffix(before, ";")); changed || w.xid == "" || len(w.relations) != 1 || w.relations[0] != users {
				f.Errorf("of temporary objects alone: %+v, want the table %d, after %q", w, users, before)
			}
		}
	})
}
