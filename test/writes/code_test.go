package writes

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

func TestATriggerThatIsUnderstoodKeepsRowsApart(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+`
		CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.updated_at := clock_timestamp();
			RETURN NEW;
		END $$;
		CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION touch();`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.Miss(harness.ReadAct, 1)
		for _, read := range []string{harness.ReadLog, harness.ReadTotals, harness.ReadCalm} {
			f.Hit(read)
		}
		f.Hit(harness.ReadAct, 2)
		f.Exec("INSERT INTO acts (id, note) VALUES (2, 'y') ON CONFLICT (id) DO UPDATE SET note = excluded.note")
		f.Miss(harness.ReadAct, 2).Is("2 y")
		f.Known(harness.ReadAct, 1)
		f.Exec("DELETE FROM acts WHERE id = 2")
		f.Hit(harness.ReadAct, 1)
		f.Miss(harness.ReadAct, 2).Is("")
	})
}

func TestATriggersOwnWritesAreFollowed(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+`
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
		CREATE TRIGGER count_up AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION count_up();`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.Miss(harness.ReadAct, 1)
		f.Miss(harness.ReadLog).Is("1 UPDATE 1")
		f.Miss(harness.ReadTotals).Is("1")
		f.Hit(harness.ReadAct, 2)
		f.Hit(harness.ReadCalm)
		tx, commit := f.Begin(nil)
		tx.Exec("DELETE FROM acts WHERE id = 1")
		tx.Runs(keying.InTransactionAfterWrite, harness.ReadTotals).Is("2")
		tx.Hit(harness.ReadCalm)
		f.Commit(commit)
		f.Miss(harness.ReadTotals).Is("2")
		f.Hit(harness.ReadAct, 2)
	})
}

func TestCodeThatIsNotUnderstoodIsAskedFor(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode+`
		CREATE TRIGGER hidden AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION hidden();`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.Miss(harness.ReadAct, 1)
		f.Miss(harness.ReadAct, 2) // locks tell the table, not the row
		f.Miss(harness.ReadLog).Is("1 UPDATE")
		f.Hit(harness.ReadTotals)
		f.Hit(harness.ReadCalm)

		// A function called by a query, alone and in a transaction.
		f.Runs(keying.WritingFunction, "SELECT write('log', 'alone')").Is("2")
		f.Miss(harness.ReadLog).Is("2 alone")
		f.Hit(harness.ReadTotals)
		tx, commit := f.Begin(nil)
		tx.Runs(keying.WritingFunction, "SELECT write($1, $2)", "log", "zz")
		tx.Bypass(keying.InTransactionAfterWrite, harness.ReadTotals)
		f.Commit(commit)
		f.Miss(harness.ReadLog).Is("3 zz")
		f.Hit(harness.ReadTotals)

		// What is rolled back was not written.
		tx, back := f.Begin(nil)
		tx.Runs(keying.WritingFunction, "SELECT write('log', 'no')")
		f.Rollback(back)
		f.Hit(harness.ReadLog)
		tx, commit = f.Begin(nil)
		tx.Exec("SAVEPOINT s")
		tx.Runs(keying.WritingFunction, "SELECT write('log', 'no')")
		tx.Exec("ROLLBACK TO s")
		f.Commit(commit)
		f.Hit(harness.ReadLog)

		// Code that only reads invalidates nothing.
		f.Runs(keying.WritingFunction, "SELECT run('SELECT 1 FROM log')")
		f.Hit(harness.ReadLog)
		f.Hit(harness.ReadCalm)

		// A transaction begun and ended by texts.
		_, conn := f.Session()
		on := f.On(conn)
		on.Exec("BEGIN")
		on.Runs(keying.WritingFunction, "SELECT write('log', 'zzz')")
		on.Exec("COMMIT")
		f.Miss(harness.ReadLog).Is("4 zzz")
		f.Hit(harness.ReadCalm)
	})
}

func TestCodeThatChangesTheCatalogOrTheSessionIsNoticed(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode+`
		CREATE TABLE other (line text);
		CREATE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 7';`, func(f *harness.Fixture) {
		const whole = "SELECT row_to_json(c)::text FROM calm c"
		f.Known(whole)
		f.Runs(keying.WritingFunction, "SELECT run('ALTER TABLE calm ADD w int DEFAULT 5')")
		f.Fresh(whole).Is(`{"id":1,"v":"calm","w":5}`)

		// No lock of the transaction tells of a new function.
		f.Known("SELECT seven() FROM calm")
		f.Runs(keying.WritingFunction, "SELECT run('CREATE OR REPLACE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS ''SELECT 8''')")
		f.Fresh("SELECT seven() FROM calm").Is("8")
		tx, commit := f.Begin(nil)
		tx.Runs(keying.WritingFunction, "SELECT run('CREATE OR REPLACE FUNCTION seven() RETURNS int IMMUTABLE LANGUAGE sql AS ''SELECT 9''')")
		tx.Fresh("SELECT count(*) FROM calm")
		f.Commit(commit)
		f.Fresh("SELECT seven() FROM calm").Is("9")

		// A new table of the same name, in front of the old one.
		f.Known(harness.ReadCalm)
		v, conn := f.Session()
		v.Both("SELECT run('CREATE TEMP TABLE calm AS SELECT ''hidden'' AS v')")
		v.Fresh(harness.ReadCalm).Is("hidden")
		_ = conn

		w, _ := f.Session()
		w.Known("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.Both("SELECT run('SET TimeZone = ''Asia/Tokyo''')")
		w.Fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.Both("BEGIN")
		w.Both("SELECT run('SET LOCAL TimeZone = ''America/Lima''')")
		w.Fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
		w.Both("COMMIT")
		w.Fresh("SELECT timestamptz '2024-01-01 12:00:00+00'::text, v FROM calm")
	})
}

func TestDeferredTriggersAreRunBeforeTheQuestion(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode+`
		CREATE CONSTRAINT TRIGGER hidden AFTER UPDATE ON acts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hidden();
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF NEW.note = 'bad' THEN EXECUTE 'SELECT 1'; RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.Miss(harness.ReadLog).Is("1 UPDATE")
		tx, commit := f.Begin(nil)
		tx.Exec("UPDATE acts SET note = 'y' WHERE id = 1")
		f.Hit(harness.ReadLog)
		f.Commit(commit)
		f.Miss(harness.ReadLog).Is("2 UPDATE")
		f.Hit(harness.ReadCalm)

		// An error that COMMIT would give comes as it comes through pgx, and the
		// transaction is over after it.
		const bad = "UPDATE acts SET note = 'bad' WHERE id = 1"
		f.Known(harness.ReadAct, 1)
		want := failure(f, f.Plain, bad)
		if got := failure(f, f.DB, bad); got != want {
			f.Errorf("got %q, want %q", got, want)
		}
		for _, db := range []*sql.DB{f.Plain, f.DB} {
			tx, err := db.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.Ctx, bad); err != nil {
				f.Fatal(err)
			}
			if err := tx.Commit(); err == nil || !strings.Contains(err.Error(), "refused (SQLSTATE 23514)") {
				f.Errorf("COMMIT gives %v", err)
			}
		}
		f.Hit(harness.ReadAct, 1)
		_, conn := f.Session()
		on := f.On(conn)
		on.Exec("BEGIN")
		on.Exec(bad)
		if _, err := conn.ExecContext(f.Ctx, "COMMIT"); err == nil || !strings.Contains(err.Error(), "refused") {
			f.Errorf("COMMIT by its text gives %v", err)
		}
		on.Exec("UPDATE acts SET note = 'good' WHERE id = 1") // in no failed transaction
		f.Miss(harness.ReadAct, 1).Is("1 good")
	})
}

// failure is the error of a statement outside of a transaction.
func failure(f *harness.Fixture, db *sql.DB, query string) string {
	f.Helper()
	_, err := db.ExecContext(f.Ctx, query)
	if err == nil {
		f.Fatalf("%s: no error", query)
	}
	return err.Error()
}

func TestProceduresAndDo(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode+`
		CREATE PROCEDURE plain(what text) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (line) VALUES (what); END $$;
		CREATE PROCEDURE twice(what text) LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO log (line) VALUES (what); COMMIT; UPDATE totals SET n = n + 1; END $$;
		CREATE PROCEDURE outer_one(what text) LANGUAGE plpgsql AS $$ BEGIN CALL twice(what); END $$;
		CREATE PROCEDURE blind(what text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'INSERT INTO log (line) VALUES ($1)' USING what; END $$;`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("CALL plain('a')")
		f.Miss(harness.ReadLog).Is("1 a")
		f.Hit(harness.ReadTotals)
		f.Exec("DO $$ BEGIN INSERT INTO log (line) VALUES ('b'); END $$")
		f.Miss(harness.ReadLog).Is("2 b")
		f.Hit(harness.ReadTotals)
		f.Exec("DO $$ BEGIN EXECUTE 'INSERT INTO log (line) VALUES (''c'')'; END $$")
		f.Miss(harness.ReadLog).Is("3 c")
		f.Hit(harness.ReadTotals)
		f.Hit(harness.ReadCalm)
		for i, call := range []string{"CALL twice('d')", "CALL outer_one('e')", "DO $$ BEGIN INSERT INTO log (line) VALUES ('f'); COMMIT; UPDATE totals SET n = 3; END $$"} {
			harness.WarmAll(f)
			f.Exec(call)
			f.Fresh(harness.ReadLog)
			f.Fresh(harness.ReadTotals).Is([]string{"1", "2", "3"}[i])
		}
		harness.WarmAll(f)
		f.Exec("CALL blind('g')")
		f.Miss(harness.ReadLog).Is("7 g")

		tx, commit := f.Begin(nil)
		tx.Exec("CALL blind('h')")
		tx.Exec("CALL plain('i')")
		f.Commit(commit)
		harness.WarmAll(f)
		f.Fresh(harness.ReadLog).Is("9 i")
	})
}

func TestRulesAndViewsThatWriteElsewhere(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+`
		CREATE VIEW notes AS SELECT id, note FROM acts;
		CREATE FUNCTION renote() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE acts SET note = NEW.note WHERE id = OLD.id;
			INSERT INTO log (line) VALUES (NEW.note);
			RETURN NEW;
		END $$;
		CREATE TRIGGER renote INSTEAD OF UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION renote();
		CREATE RULE gone AS ON DELETE TO totals DO ALSO INSERT INTO log (line) VALUES ('gone ' || OLD.id);`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Exec("UPDATE notes SET note = 'n' WHERE id = 1")
		f.Miss(harness.ReadAct, 1).Is("1 n")
		f.Miss(harness.ReadLog).Is("1 n")
		f.Hit(harness.ReadTotals)
		f.Hit(harness.ReadCalm)
		f.Exec("DELETE FROM totals WHERE id = 1")
		f.Miss(harness.ReadTotals).Is("")
		f.Miss(harness.ReadLog)
		f.Hit(harness.ReadCalm)
		f.Hit(harness.ReadAct, 1)
	})
}

func TestFunctionsThatPostgreSQLKeepsParsed(t *testing.T) {
	harness.ScenarioOnce(t, harness.CodeTables+`
		CREATE FUNCTION atomic(what text) RETURNS bigint BEGIN ATOMIC
			INSERT INTO log (line) VALUES (what);
			SELECT count(*) FROM log;
		END;
		CREATE FUNCTION short(what text) RETURNS bigint RETURN atomic(what) + 1;`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Runs(keying.WritingFunction, "SELECT atomic('a')").Is("1")
		f.Miss(harness.ReadLog).Is("1 a")
		f.Hit(harness.ReadTotals)
		f.Runs(keying.WritingFunction, "SELECT short('b')").Is("3")
		f.Miss(harness.ReadLog).Is("2 b")
		f.Hit(harness.ReadTotals)
		f.Hit(harness.ReadCalm)
	})
}

func TestATransactionThatOnlyRanCodeWhileTheSchemaChanged(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode, func(f *harness.Fixture) {
		harness.WarmAll(f)
		tx, commit := f.Begin(nil)
		tx.Runs(keying.WritingFunction, "SELECT write('log', 'x')")
		f.Exec("CREATE TABLE another (id int)")
		f.Commit(commit)
		f.Fresh(harness.ReadLog).Is("1 x")
		harness.WarmAll(f)
	})
}

func TestAnUnknownNameEmptiesNothing(t *testing.T) {
	harness.Scenario(t, harness.CodeTables, func(f *harness.Fixture) {
		harness.WarmAll(f)
		f.Fails("SELECT no_such_function(1)")
		f.Fails("INSERT INTO no_such_table VALUES (1) RETURNING 1")
		for _, read := range []string{harness.ReadLog, harness.ReadTotals, harness.ReadCalm} {
			f.Hit(read)
		}
	})
}

// A held cursor's query runs in COMMIT, when nothing can be asked any more.
func TestAHeldCursorThatWrites(t *testing.T) {
	harness.Scenario(t, harness.CodeTables+harness.DynamicCode, func(f *harness.Fixture) {
		harness.WarmAll(f)
		_, conn := f.Session()
		on := f.On(conn)
		on.Exec("BEGIN")
		on.Exec("DECLARE c CURSOR WITH HOLD FOR SELECT write('log', 'held')")
		on.Exec("COMMIT")
		on.Exec("CLOSE c")
		f.Fresh(harness.ReadLog).Is("1 held")
	})
}

// A function that can open a connection of its own writes where its
// transaction does not show it.
func TestWhatLeavesTheTransaction(t *testing.T) {
	harness.ScenarioOnce(t, harness.CodeTables+"CREATE EXTENSION dblink;"+harness.DynamicCode+`
		CREATE FUNCTION far() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM dblink_exec(current_setting('app.far'), format('INSERT INTO %I.log (line) VALUES (''far'')', TG_TABLE_SCHEMA));
			RETURN NULL;
		END $$;
		CREATE TRIGGER far AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION far();`, func(f *harness.Fixture) {
		harness.WarmAll(f)
		_, conn := f.Session()
		on := f.On(conn)
		on.Exec("SELECT set_config('app.far', format('host=%s port=%s user=%s dbname=%s', $1::text, current_setting('port'), current_user, current_database()), false)",
			hostOf(f))
		on.Exec("UPDATE acts SET note = 'x' WHERE id = 1")
		f.Fresh(harness.ReadLog).Is("1 far")
	})
}

// hostOf is the address that the test database is reached by.
func hostOf(f *harness.Fixture) string {
	f.Helper()
	var host string
	err := f.Plain.QueryRowContext(context.Background(), "SELECT coalesce(host(inet_server_addr()), '/tmp')").Scan(&host)
	if err != nil {
		f.Fatal(err)
	}
	return host
}
