package cachedpg

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/keying"
)

// What runs beside the text of a statement: triggers, rules, functions,
// procedures. Each story has a table that is written, one that only code
// writes, and one that nobody writes and whose entry must survive.
const codeTables = `
	CREATE TABLE acts (id int PRIMARY KEY, note text, updated_at timestamptz);
	INSERT INTO acts VALUES (1, 'a'), (2, 'b'), (3, 'c');
	CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, line text);
	CREATE TABLE totals (id int PRIMARY KEY, n int); INSERT INTO totals VALUES (1, 0), (2, 0);
	CREATE TABLE calm (id int PRIMARY KEY, v text); INSERT INTO calm VALUES (1, 'calm');`

const (
	readAct    = "SELECT id, note FROM acts WHERE id = $1"
	readLog    = "SELECT count(*), max(line) FROM log"
	readTotals = "SELECT n FROM totals WHERE id = 1"
	readCalm   = "SELECT v FROM calm"
)

// warmAll caches everything, whatever of it is cached already.
func warmAll(f *fixture) {
	f.Helper()
	f.known(readAct, 1)
	f.known(readAct, 2)
	f.known(readLog)
	f.known(readTotals)
	f.known(readCalm)
}

func TestATriggerThatIsUnderstoodKeepsRowsApart(t *testing.T) {
	scenario(t, codeTables+`
		CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.updated_at := clock_timestamp();
			RETURN NEW;
		END $$;
		CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION touch();`, func(f *fixture) {
		warmAll(f)
		f.exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.miss(readAct, 1)
		for _, read := range []string{readLog, readTotals, readCalm} {
			f.hit(read)
		}
		f.hit(readAct, 2)
		f.exec("INSERT INTO acts (id, note) VALUES (2, 'y') ON CONFLICT (id) DO UPDATE SET note = excluded.note")
		f.miss(readAct, 2).is("2 y")
		f.known(readAct, 1)
		f.exec("DELETE FROM acts WHERE id = 2")
		f.hit(readAct, 1)
		f.miss(readAct, 2).is("")
	})
}

func TestATriggersOwnWritesAreFollowed(t *testing.T) {
	scenario(t, codeTables+`
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE
			what text := TG_OP || ' ' || coalesce(NEW.id, OLD.id);
		BEGIN
			IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
				RETURN NULL;
			END IF;
			INSERT INTO log (line) VALUES (what);
			RETURN NULL;
		EXCEPTION WHEN unique_violation THEN
			RAISE WARNING 'twice: %', what;
			RETURN NULL;
		END $$;
		CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON acts FOR EACH ROW EXECUTE FUNCTION note();
		CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE totals SET n = n + 1 WHERE id = 1; RETURN NULL; END';
		CREATE TRIGGER count_up AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION count_up();`, func(f *fixture) {
		warmAll(f)
		f.exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.miss(readAct, 1)
		f.miss(readLog).is("1 UPDATE 1")
		f.miss(readTotals).is("1")
		f.hit(readAct, 2)
		f.hit(readCalm)
		tx, commit := f.begin(nil)
		tx.exec("DELETE FROM acts WHERE id = 1")
		tx.runs(keying.InTransactionAfterWrite, readTotals).is("2")
		tx.hit(readCalm)
		f.commit(commit)
		f.miss(readTotals).is("2")
		f.hit(readAct, 2)
	})
}

// A text that is made while it runs can only be asked for.
const dynamic = `
	CREATE FUNCTION write(target text, what text) RETURNS int LANGUAGE plpgsql AS $$
	DECLARE n int;
	BEGIN
		EXECUTE format('INSERT INTO %I (line) VALUES ($1)', target) USING what;
		SELECT count(*) INTO n FROM log;
		RETURN n;
	END $$;
	CREATE FUNCTION run(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN 1; END';
	CREATE FUNCTION hidden() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN EXECUTE 'INSERT INTO log (line) VALUES ($1)' USING TG_OP; RETURN NULL; END $$;`

func TestCodeThatIsNotUnderstoodIsAskedFor(t *testing.T) {
	scenario(t, codeTables+dynamic+`
		CREATE TRIGGER hidden AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION hidden();`, func(f *fixture) {
		warmAll(f)
		f.exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.miss(readAct, 1)
		f.miss(readAct, 2) // locks tell the table, not the row
		f.miss(readLog).is("1 UPDATE")
		f.hit(readTotals)
		f.hit(readCalm)

		// A function called by a query, alone and in a transaction.
		f.runs(keying.WritingFunction, "SELECT write('log', 'alone')").is("2")
		f.miss(readLog).is("2 alone")
		f.hit(readTotals)
		tx, commit := f.begin(nil)
		tx.runs(keying.WritingFunction, "SELECT write($1, $2)", "log", "zz")
		tx.bypass(keying.InTransactionAfterWrite, readTotals)
		f.commit(commit)
		f.miss(readLog).is("3 zz")
		f.hit(readTotals)

		// What is rolled back was not written.
		tx, back := f.begin(nil)
		tx.runs(keying.WritingFunction, "SELECT write('log', 'no')")
		f.rollback(back)
		f.hit(readLog)
		tx, commit = f.begin(nil)
		tx.exec("SAVEPOINT s")
		tx.runs(keying.WritingFunction, "SELECT write('log', 'no')")
		tx.exec("ROLLBACK TO s")
		f.commit(commit)
		f.hit(readLog)

		// Code that only reads invalidates nothing.
		f.runs(keying.WritingFunction, "SELECT run('SELECT 1 FROM log')")
		f.hit(readLog)
		f.hit(readCalm)

		// A transaction begun and ended by texts.
		_, conn := f.session()
		on := f.on(conn)
		on.exec("BEGIN")
		on.runs(keying.WritingFunction, "SELECT write('log', 'zzz')")
		on.exec("COMMIT")
		f.miss(readLog).is("4 zzz")
		f.hit(readCalm)
	})
}

func TestCodeThatChangesTheCatalogOrTheSessionIsNoticed(t *testing.T) {
	scenario(t, codeTables+dynamic+`
		CREATE TABLE other (line text);
		CREATE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 7';`, func(f *fixture) {
		const whole = "SELECT row_to_json(c)::text FROM calm c"
		f.known(whole)
		f.runs(keying.WritingFunction, "SELECT run('ALTER TABLE calm ADD w int DEFAULT 5')")
		f.fresh(whole).is(`{"id":1,"v":"calm","w":5}`)

		// No lock of the transaction tells of a new function.
		f.known("SELECT seven() FROM calm")
		f.runs(keying.WritingFunction, "SELECT run('CREATE OR REPLACE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS ''SELECT 8''')")
		f.fresh("SELECT seven() FROM calm").is("8")
		tx, commit := f.begin(nil)
		tx.runs(keying.WritingFunction, "SELECT run('CREATE OR REPLACE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS ''SELECT 9''')")
		tx.fresh("SELECT count(*) FROM calm")
		f.commit(commit)
		f.fresh("SELECT seven() FROM calm").is("9")

		// A new table of the same name, in front of the old one.
		f.known(readCalm)
		v, conn := f.session()
		v.both("SELECT run('CREATE TEMP TABLE calm AS SELECT ''hidden'' AS v')")
		v.fresh(readCalm).is("hidden")
		_ = conn

		w, _ := f.session()
		w.known("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.both("SELECT run('SET TimeZone = ''Asia/Tokyo''')")
		w.fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.both("BEGIN")
		w.both("SELECT run('SET LOCAL TimeZone = ''America/Lima''')")
		w.fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.both("COMMIT")
		w.fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
	})
}

func TestDeferredTriggersAreRunBeforeTheQuestion(t *testing.T) {
	scenario(t, codeTables+dynamic+`
		CREATE CONSTRAINT TRIGGER hidden AFTER UPDATE ON acts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hidden();
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF NEW.note = 'bad' THEN EXECUTE 'SELECT 1'; RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();`, func(f *fixture) {
		warmAll(f)
		f.exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.miss(readLog).is("1 UPDATE")
		tx, commit := f.begin(nil)
		tx.exec("UPDATE acts SET note = 'y' WHERE id = 1")
		f.hit(readLog)
		f.commit(commit)
		f.miss(readLog).is("2 UPDATE")
		f.hit(readCalm)

		// An error that COMMIT would give comes as it comes through pgx, and the
		// transaction is over after it.
		const bad = "UPDATE acts SET note = 'bad' WHERE id = 1"
		f.known(readAct, 1)
		want := failure(f, f.plain, bad)
		if got := failure(f, f.db, bad); got != want {
			f.Errorf("got %q, want %q", got, want)
		}
		for _, db := range []*sql.DB{f.plain, f.db} {
			tx, err := db.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, bad); err != nil {
				f.Fatal(err)
			}
			if err := tx.Commit(); err == nil || !strings.Contains(err.Error(), "refused (SQLSTATE 23514)") {
				f.Errorf("COMMIT gives %v", err)
			}
		}
		f.hit(readAct, 1)
		_, conn := f.session()
		on := f.on(conn)
		on.exec("BEGIN")
		on.exec(bad)
		if _, err := conn.ExecContext(f.ctx, "COMMIT"); err == nil || !strings.Contains(err.Error(), "refused") {
			f.Errorf("COMMIT by its text gives %v", err)
		}
		on.exec("UPDATE acts SET note = 'good' WHERE id = 1") // in no failed transaction
		f.miss(readAct, 1).is("1 good")
	})
}

// failure is the error of a statement outside of a transaction.
func failure(f *fixture, db *sql.DB, query string) string {
	f.Helper()
	_, err := db.ExecContext(f.ctx, query)
	if err == nil {
		f.Fatalf("%s: no error", query)
	}
	return err.Error()
}

func TestProceduresAndDo(t *testing.T) {
	scenario(t, codeTables+dynamic+`
		CREATE PROCEDURE plain(what text) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (line) VALUES (what); END $$;
		CREATE PROCEDURE twice(what text) LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO log (line) VALUES (what); COMMIT; UPDATE totals SET n = n + 1; END $$;
		CREATE PROCEDURE outer_one(what text) LANGUAGE plpgsql AS $$ BEGIN CALL twice(what); END $$;
		CREATE PROCEDURE blind(what text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'INSERT INTO log (line) VALUES ($1)' USING what; END $$;`, func(f *fixture) {
		warmAll(f)
		f.exec("CALL plain('a')")
		f.miss(readLog).is("1 a")
		f.hit(readTotals)
		f.exec("DO $$ BEGIN INSERT INTO log (line) VALUES ('b'); END $$")
		f.miss(readLog).is("2 b")
		f.hit(readTotals)
		f.exec("DO $$ BEGIN EXECUTE 'INSERT INTO log (line) VALUES (''c'')'; END $$")
		f.miss(readLog).is("3 c")
		f.hit(readTotals)
		f.hit(readCalm)
		for i, call := range []string{"CALL twice('d')", "CALL outer_one('e')", "DO $$ BEGIN INSERT INTO log (line) VALUES ('f'); COMMIT; UPDATE totals SET n = 3; END $$"} {
			warmAll(f)
			f.exec(call)
			f.fresh(readLog)
			f.fresh(readTotals).is([]string{"1", "2", "3"}[i])
		}
		warmAll(f)
		f.exec("CALL blind('g')")
		f.miss(readLog).is("7 g")

		tx, commit := f.begin(nil)
		tx.exec("CALL blind('h')")
		tx.exec("CALL plain('i')")
		f.commit(commit)
		warmAll(f)
		f.fresh(readLog).is("9 i")
	})
}

func TestRulesAndViewsThatWriteElsewhere(t *testing.T) {
	scenario(t, codeTables+`
		CREATE VIEW notes AS SELECT id, note FROM acts;
		CREATE FUNCTION renote() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE acts SET note = NEW.note WHERE id = OLD.id;
			INSERT INTO log (line) VALUES (NEW.note);
			RETURN NEW;
		END $$;
		CREATE TRIGGER renote INSTEAD OF UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION renote();
		CREATE RULE gone AS ON DELETE TO totals DO ALSO INSERT INTO log (line) VALUES ('gone ' || OLD.id);`, func(f *fixture) {
		warmAll(f)
		f.exec("UPDATE notes SET note = 'n' WHERE id = 1")
		f.miss(readAct, 1).is("1 n")
		f.miss(readLog).is("1 n")
		f.hit(readTotals)
		f.hit(readCalm)
		f.exec("DELETE FROM totals WHERE id = 1")
		f.miss(readTotals).is("")
		f.miss(readLog)
		f.hit(readCalm)
		f.hit(readAct, 1)
	})
}

func TestFunctionsThatPostgreSQLKeepsParsed(t *testing.T) {
	scenarioOnce(t, codeTables+`
		CREATE FUNCTION atomic(what text) RETURNS bigint BEGIN ATOMIC
			INSERT INTO log (line) VALUES (what);
			SELECT count(*) FROM log;
		END;
		CREATE FUNCTION short(what text) RETURNS bigint RETURN atomic(what) + 1;`, func(f *fixture) {
		warmAll(f)
		f.runs(keying.WritingFunction, "SELECT atomic('a')").is("1")
		f.miss(readLog).is("1 a")
		f.hit(readTotals)
		f.runs(keying.WritingFunction, "SELECT short('b')").is("3")
		f.miss(readLog).is("2 b")
		f.hit(readTotals)
		f.hit(readCalm)
	})
}

func TestWhatATransactionSaysThatItWrote(t *testing.T) {
	scenarioOnce(t, codeTables+"CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);", func(f *fixture) {
		conn := f.conn(f.plain)
		ask := func(statements ...string) (writes, string) {
			f.Helper()
			tx, err := conn.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			defer tx.Rollback()
			for _, s := range statements {
				if _, err := tx.ExecContext(f.ctx, s); err != nil {
					f.Fatalf("%s: %v", s, err)
				}
			}
			var answer string
			if err := tx.QueryRowContext(f.ctx, transactionWrites).Scan(&answer); err != nil {
				f.Fatal(err)
			}
			w, err := parseWrites(answer)
			if err != nil {
				f.Fatal(err)
			}
			var names []string
			for _, oid := range w.relations {
				var name string
				if err := tx.QueryRowContext(f.ctx, "SELECT relname FROM pg_class WHERE oid = $1", oid).Scan(&name); err != nil {
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

func TestATransactionThatOnlyRanCodeWhileTheSchemaChanged(t *testing.T) {
	scenario(t, codeTables+dynamic, func(f *fixture) {
		warmAll(f)
		tx, commit := f.begin(nil)
		tx.runs(keying.WritingFunction, "SELECT write('log', 'x')")
		f.exec("CREATE TABLE another (id int)")
		f.commit(commit)
		f.fresh(readLog).is("1 x")
		warmAll(f)
	})
}

func TestAnUnknownNameEmptiesNothing(t *testing.T) {
	scenario(t, codeTables, func(f *fixture) {
		warmAll(f)
		f.fails("SELECT no_such_function(1)")
		f.fails("INSERT INTO no_such_table VALUES (1) RETURNING 1")
		for _, read := range []string{readLog, readTotals, readCalm} {
			f.hit(read)
		}
	})
}

// A held cursor's query runs in COMMIT, when nothing can be asked any more.
func TestAHeldCursorThatWrites(t *testing.T) {
	scenario(t, codeTables+dynamic, func(f *fixture) {
		warmAll(f)
		_, conn := f.session()
		on := f.on(conn)
		on.exec("BEGIN")
		on.exec("DECLARE c CURSOR WITH HOLD FOR SELECT write('log', 'held')")
		on.exec("COMMIT")
		on.exec("CLOSE c")
		f.fresh(readLog).is("1 held")
	})
}

// A function that can open a connection of its own writes where its
// transaction does not show it.
func TestWhatLeavesTheTransaction(t *testing.T) {
	scenarioOnce(t, codeTables+"CREATE EXTENSION dblink;"+dynamic+`
		CREATE FUNCTION far() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM dblink_exec(current_setting('app.far'), format('INSERT INTO %I.log (line) VALUES (''far'')', TG_TABLE_SCHEMA));
			RETURN NULL;
		END $$;
		CREATE TRIGGER far AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION far();`, func(f *fixture) {
		warmAll(f)
		_, conn := f.session()
		on := f.on(conn)
		on.exec("SELECT set_config('app.far', format('host=%s port=%s user=%s dbname=%s', $1::text, current_setting('port'), current_user, current_database()), false)",
			hostOf(f))
		on.exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.fresh(readLog).is("1 far")
	})
}

// hostOf is the address that the test database is reached by.
func hostOf(f *fixture) string {
	f.Helper()
	var host string
	err := f.plain.QueryRowContext(context.Background(), "SELECT coalesce(host(inet_server_addr()), '/tmp')").Scan(&host)
	if err != nil {
		f.Fatal(err)
	}
	return host
}

// Code that runs as another role may have another search_path than the session:
// "$user" stands in it, and schemas that a role may not use are left out.
func TestCodeThatRunsAsAnotherRole(t *testing.T) {
	scenarioOnce(t, codeTables+`
		CREATE TABLE children (id int PRIMARY KEY, act int REFERENCES acts ON DELETE CASCADE); INSERT INTO children VALUES (1, 1), (2, 2);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log (line) VALUES (TG_OP); RETURN NULL; END';
		CREATE TRIGGER note AFTER DELETE ON children FOR EACH ROW EXECUTE FUNCTION note();
		CREATE FUNCTION owned(what text) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'INSERT INTO log (line) VALUES (what) RETURNING 1';
		CREATE FUNCTION fixed(what text) RETURNS int SECURITY DEFINER SET search_path = cache_statement, pg_temp
			LANGUAGE sql AS 'INSERT INTO log (line) VALUES (what) RETURNING 1';`, func(f *fixture) {
		plan := func(query string) *keying.Plan {
			f.Helper()
			conn := f.conn(f.db)
			var p *keying.Plan
			err := conn.Raw(func(c any) error {
				q := call{sql: query}
				err := c.(*Conn).plan(f.ctx, &q)
				p = q.text.plan
				return err
			})
			if err != nil {
				f.Fatal(err)
			}
			return p
		}
		awaitCaching(f.T, f.db)
		texts := []string{"DELETE FROM acts WHERE id = 1", "SELECT owned('x')", "SELECT fixed('x')"}
		for _, text := range texts {
			if plan(text).Asks {
				f.Errorf("%s: not understood", text)
			}
		}
		warmAll(f)
		f.exec(texts[0])
		f.miss(readLog).is("1 DELETE")
		f.runs(keying.WritingFunction, texts[1])
		f.miss(readLog).is("2 x")
		f.hit(readTotals)

		// Another table of the name: which one is meant is not known.
		f.exec("CREATE SCHEMA elsewhere")
		f.exec("CREATE TABLE elsewhere.log (id int, line text)")
		for _, text := range texts {
			if !plan(text).Asks {
				f.Errorf("%s: understood, with two tables", text)
			}
		}
		warmAll(f)
		f.exec("DELETE FROM acts WHERE id = 2")
		f.miss(readLog).is("3 x")
		f.hit(readTotals)
		f.runs(keying.WritingFunction, texts[2])
		f.miss(readLog).is("4 x")
		f.hit(readTotals)
	})
}
