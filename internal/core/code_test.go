package core

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

func TestWhatATransactionSaysThatItWrote(t *testing.T) {
	harness.ScenarioOnce(t, harness.CodeTables+"CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);", func(f *harness.Fixture) {
		conn := f.Conn(f.Plain)
		ask := func(statements ...string) (writes, string) {
			f.Helper()
			tx, err := conn.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			defer tx.Rollback()
			for _, s := range statements {
				if _, err := tx.ExecContext(f.Ctx, s); err != nil {
					f.Fatalf("%s: %v", s, err)
				}
			}
			var answer string
			if err := tx.QueryRowContext(f.Ctx, transactionWrites).Scan(&answer); err != nil {
				f.Fatal(err)
			}
			w, err := parseWrites(answer)
			if err != nil {
				f.Fatal(err)
			}
			var names []string
			for _, oid := range w.relations {
				var name string
				if err := tx.QueryRowContext(f.Ctx, "SELECT relname FROM pg_class WHERE oid = $1", oid).Scan(&name); err != nil {
					f.Fatal(err)
				}
				names = append(names, name)
			}
			slices.Sort(names)
			return w, strings.Join(names, " ")
		}
		for _, tc := range []struct {
			statements, want string
			written, catalog bool
		}{
			{"SELECT * FROM acts FOR UPDATE", "", true, false}, // a lock has an id
			{"SELECT count(*) FROM acts, log", "", false, false},
			{"UPDATE acts SET note = 'x' WHERE id = 99", "acts", false, false},
			{"UPDATE acts SET note = 'x'", "acts", true, false},
			{"INSERT INTO parts VALUES (1)", "part parts", true, false},
			{"SAVEPOINT s;DELETE FROM acts;ROLLBACK TO s;INSERT INTO log (line) VALUES ('x')", "log", true, false},
			{"SELECT nextval('log_id_seq')", "", false, false},
			{"TRUNCATE totals", "totals", true, true},
			{"COMMENT ON TABLE calm IS 'x'", "pg_description", true, true},
			{"GRANT SELECT ON calm TO PUBLIC", "", true, true},
		} {
			if w, names := ask(strings.Split(tc.statements, ";")...); names != tc.want || tc.written && w.xid == "" || tc.catalog && !w.catalog {
				f.Errorf("%s: got %q, id %q, catalog %v", tc.statements, names, w.xid, w.catalog)
			}
		}
		first, _ := ask("SELECT 1")
		if changed, _ := ask("SET LOCAL TimeZone = 'Asia/Tokyo'"); changed.state == first.state {
			f.Error("SET LOCAL does not show")
		}
		if again, _ := ask("SELECT 2"); again.state != first.state {
			f.Error("the session's state has changed")
		}
	})
	for _, answer := range []string{"", "1|f|12||s|on", "1|f|x||s|on|f", "1|f|1,||s|on|f", "1|f|1|x|s|on|f"} {
		if _, err := parseWrites(answer); err == nil {
			t.Errorf("%q: no error", answer)
		}
	}
	if w, err := parseWrites("7|t|1,2|3|s|on|f"); err != nil || !w.catalog || len(w.relations) != 2 || len(w.gone) != 1 {
		t.Errorf("%+v, %v", w, err)
	}
}

// Code that runs as another role may have another search_path than the session:
// "$user" stands in it, and schemas that a role may not use are left out.
func TestCodeThatRunsAsAnotherRole(t *testing.T) {
	harness.ScenarioOnce(t, harness.CodeTables+`
		CREATE TABLE children (id int PRIMARY KEY, act int REFERENCES acts ON DELETE CASCADE); INSERT INTO children VALUES (1, 1), (2, 2);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log (line) VALUES (TG_OP); RETURN NULL; END';
		CREATE TRIGGER note AFTER DELETE ON children FOR EACH ROW EXECUTE FUNCTION note();
		CREATE FUNCTION owned(what text) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'INSERT INTO log (line) VALUES (what) RETURNING 1';
		CREATE FUNCTION fixed(what text) RETURNS int SECURITY DEFINER SET search_path = cache_statement, pg_temp
			LANGUAGE sql AS 'INSERT INTO log (line) VALUES (what) RETURNING 1';`, func(f *harness.Fixture) {
		plan := func(query string) *keying.Plan {
			f.Helper()
			conn := f.Conn(f.DB)
			var p *keying.Plan
			err := conn.Raw(func(c any) error {
				q := call{sql: query}
				err := connOf(c).plan(f.Ctx, &q)
				p = q.text.Plan
				return err
			})
			if err != nil {
				f.Fatal(err)
			}
			return p
		}
		harness.AwaitCaching(f.T, f.DB)
		texts := []string{"DELETE FROM acts WHERE id = 1", "SELECT owned('x')", "SELECT fixed('x')"}
		for _, text := range texts {
			if plan(text).Asks {
				f.Errorf("%s: not understood", text)
			}
		}
		harness.WarmAll(f)
		f.Exec(texts[0])
		f.Miss(harness.ReadLog).Is("1 DELETE")
		f.Runs(keying.WritingFunction, texts[1])
		f.Miss(harness.ReadLog).Is("2 x")
		f.Hit(harness.ReadTotals)

		// Another table of the name: which one is meant is not known.
		f.Exec("CREATE SCHEMA elsewhere")
		f.Exec("CREATE TABLE elsewhere.log (id int, line text)")
		for _, text := range texts {
			if !plan(text).Asks {
				f.Errorf("%s: understood, with two tables", text)
			}
		}
		harness.WarmAll(f)
		f.Exec("DELETE FROM acts WHERE id = 2")
		f.Miss(harness.ReadLog).Is("3 x")
		f.Hit(harness.ReadTotals)
		f.Runs(keying.WritingFunction, texts[2])
		f.Miss(harness.ReadLog).Is("4 x")
		f.Hit(harness.ReadTotals)
	})
}
