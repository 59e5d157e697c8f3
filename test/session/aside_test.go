package session

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// What hardened servers take from their roles, or others do not have.
var hardened = []string{
	"EXECUTE ON FUNCTION pg_catalog.pg_current_wal_lsn()",
	"EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn)",
	"EXECUTE ON FUNCTION pg_catalog.pg_control_system()",
	"EXECUTE ON FUNCTION pg_catalog.pg_collation_actual_version(oid)",
	"EXECUTE ON FUNCTION pg_catalog.pg_postmaster_start_time()",
	"EXECUTE ON FUNCTION pg_catalog.pg_current_xact_id()",
	"EXECUTE ON FUNCTION pg_catalog.pg_current_xact_id_if_assigned()",
	"EXECUTE ON FUNCTION pg_catalog.pg_stat_get_xact_tuples_inserted(oid)",
	"EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean)",
	"EXECUTE ON FUNCTION pg_catalog.pg_lock_status()",
	"SELECT ON pg_catalog.pg_locks",
	"SELECT ON pg_catalog.pg_collation",
	"SELECT ON pg_catalog.pg_stat_activity",
	"SELECT ON pg_catalog.pg_cursors",
	"SELECT ON pg_catalog.pg_database",
}

// audited has a table whose trigger runs what is not understood.
const audited = harness.People + `
	CREATE TABLE log (id serial PRIMARY KEY, said text);
	CREATE TABLE notes (id int PRIMARY KEY, said text);
	INSERT INTO notes VALUES (1, 'a');
	CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		EXECUTE 'INSERT INTO log (said) VALUES (' || quote_literal(NEW.said) || ')';
		RETURN NEW;
	END $$;
	CREATE TRIGGER audit AFTER INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION audit();`

const lastSaid = "SELECT said FROM log ORDER BY id DESC LIMIT 1"

// affairs are things that a program does, each of which ends with a change that others see.
var affairs = []struct {
	name string
	do   func(ctx context.Context, db *sql.DB, value, limits string) error
}{
	{"autocommit", func(ctx context.Context, db *sql.DB, value, _ string) error {
		_, err := db.ExecContext(ctx, "UPDATE users SET name = $1 WHERE id = 1", value)
		return err
	}},
	{"autocommit of a text", func(ctx context.Context, db *sql.DB, value, _ string) error {
		_, err := db.ExecContext(ctx, "UPDATE users SET name = '"+value+"' WHERE id = 1")
		return err
	}},
	{"RETURNING", func(ctx context.Context, db *sql.DB, value, _ string) error {
		var id int
		return db.QueryRowContext(ctx, "UPDATE users SET name = $1 WHERE id = 1 RETURNING id", value).Scan(&id)
	}},
	{"autocommit of a trigger", func(ctx context.Context, db *sql.DB, value, _ string) error {
		_, err := db.ExecContext(ctx, "UPDATE notes SET said = $1 WHERE id = 1", value)
		return err
	}},
	{"transaction", ownTransaction(func(ctx context.Context, x harness.Asker, value string) error {
		_, err := x.ExecContext(ctx, "UPDATE users SET name = $1 WHERE id = 1", value)
		return err
	})},
	{"transaction with a trigger", ownTransaction(func(ctx context.Context, x harness.Asker, value string) error {
		_, err := x.ExecContext(ctx, "UPDATE notes SET said = $1 WHERE id = 1", value)
		return err
	})},
	{"transaction that reads", ownTransaction(func(ctx context.Context, x harness.Asker, value string) error {
		for range 2 {
			if got := harness.OwnerOf(ctx, x.(harness.Querier), "SELECT city FROM users WHERE id = $1", 2); got != "Rome" {
				return fmt.Errorf("got %s", got)
			}
		}
		_, err := x.ExecContext(ctx, "UPDATE users SET name = $1 WHERE id = 1", value)
		return err
	})},
	{"BEGIN", func(ctx context.Context, db *sql.DB, value, limits string) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, text := range []string{"BEGIN", limits, "SELECT 1", "UPDATE users SET name = '" + value + "' WHERE id = 1", "COMMIT"} {
			if _, err := conn.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return nil
	}},
}

func ownTransaction(act func(ctx context.Context, x harness.Asker, value string) error) func(context.Context, *sql.DB, string, string) error {
	return func(ctx context.Context, db *sql.DB, value, limits string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, limits); err != nil {
			return err
		}
		if err := act(ctx, tx, value); err != nil {
			return err
		}
		return tx.Commit()
	}
}

// goesOn does everything on db and compares what others read with the truth.
func goesOn(f *harness.Fixture, db *sql.DB, limits string, others harness.Via) {
	f.Helper()
	for round := range 2 {
		for i, a := range affairs {
			others.Fresh(harness.UserByID, 1)
			others.Fresh(lastSaid)
			if err := a.do(f.Ctx, db, fmt.Sprintf("%d of %d", i, round), limits); err != nil {
				f.Errorf("%s: %v", a.name, err)
			}
			others.Fresh(harness.UserByID, 1)
			others.Fresh(lastSaid)
		}
	}
}

// A role that lacks a right to what the driver asks has its transactions, and others hear of them.
func TestAMissingRightCostsNoTransaction(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		for _, right := range hardened {
			t.Run(right, func(t *testing.T) {
				database := pgtest.Database(t)
				f := harness.New(t, database, "cache_statement", audited, keys...)
				role := f.NewRole(database)
				f.Past("REVOKE " + right + " FROM PUBLIC")
				db := f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "user", role), keys))
				f.Again(harness.UserByID, 1)
				goesOn(f, db, "SET LOCAL work_mem = '4MB'", f.Via)
				if _, err := db.ExecContext(f.Ctx, "SELECT 1"); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// The rights are taken away while the process has a cache, and its first write comes after that.
func TestARightThatIsTakenAwayCostsNoWrite(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		for _, right := range []string{"pg_lock_status()", "pg_advisory_lock_shared(int, int)", "pg_advisory_xact_lock_shared(int, int)", "pg_stat_get_activity(int)",
			"pg_current_snapshot()", "pg_backend_pid()", "current_setting(text)"} {
			t.Run(right, func(t *testing.T) {
				database := pgtest.Database(t)
				f := harness.New(t, database, "cache_statement", audited, keys...)
				role := f.NewRole(database)
				db := f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "user", role), keys))
				f.Asking(db).Again(harness.UserByID, 1)
				f.Past("REVOKE EXECUTE ON FUNCTION pg_catalog." + right + " FROM PUBLIC")
				goesOn(f, db, "SET LOCAL work_mem = '4MB'", f.Via)
			})
		}
	})
}

// A role that is set in the transaction alone may lack the rights.
func TestARoleSetInATransactionDoesNotEndIt(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		database := pgtest.Database(t)
		f := harness.New(t, database, "cache_statement", audited, keys...)
		role := f.NewRole(database)
		for _, right := range hardened {
			f.Past("REVOKE " + right + " FROM PUBLIC")
		}
		f.Again(harness.UserByID, 1)
		goesOn(f, f.DB, "SET LOCAL ROLE "+role, f.Via)
	})
}

// A question that takes longer than the caller's statements may.
func TestAQuestionHasItsOwnLimits(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	conn := f.Conn(f.DB)
	if err := conn.PingContext(f.Ctx); err != nil {
		t.Fatal(err)
	}
	if err := conn.Raw(func(c any) error {
		in := inside.Inner(c).(*backend.Pgx)
		exec := func(sql string) {
			t.Helper()
			if _, err := in.ExecContext(f.Ctx, sql, nil); err != nil {
				t.Fatal(err)
			}
		}
		exec("BEGIN")
		exec("SET LOCAL statement_timeout = '59s'")
		exec("SET LOCAL lock_timeout = '58s'")
		exec("SET LOCAL idle_in_transaction_session_timeout = '9s'")
		exec("UPDATE users SET name = 'anna' WHERE id = 1")
		answer, kept, err := in.Aside(f.Ctx, "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'))", "SELECT set_config('work_mem', '5MB', true)")
		if err != nil || answer != "2s 250ms" || kept != "5MB" {
			t.Errorf("got %q, %q, %v", answer, kept, err)
		}
		if kept, err := backend.KeepIn(f.Ctx, in, "SELECT "+backend.PinnedCommitSQL); kept != "on" || err != nil {
			t.Errorf("got %q, %v", kept, err)
		}
		for _, question := range []string{"SELECT no_such_function()", "SELECT concat(1/0)", "SELECT"} {
			if _, _, err := in.Aside(f.Ctx, question, ""); err == nil {
				t.Errorf("%s: no error", question)
			}
			if _, _, err := in.Aside(f.Ctx, "", question); err == nil {
				t.Errorf("%s: no error", question)
			}
			if in.TxStatus() != 'T' {
				t.Fatalf("%s: the transaction is %c", question, in.TxStatus())
			}
		}
		for setting, want := range map[string]string{"statement_timeout": "59s", "lock_timeout": "58s", "work_mem": "5MB",
			"idle_in_transaction_session_timeout": "10s"} {
			if got, err := in.Ask(f.Ctx, "SHOW "+setting); got != want || err != nil {
				t.Errorf("%s: got %q, %v, want %q", setting, got, err, want)
			}
		}
		exec("COMMIT")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
}

// What is refused once is not asked at every statement, and is told.
func TestARefusalIsRemembered(t *testing.T) {
	database := pgtest.Database(t)
	f := harness.New(t, database, "cache_statement", audited)
	role := f.NewRole(database)
	f.Past("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
	wire := pgtest.Listen(t, harness.WithKey(f.DSN, "user", role))
	db := f.Open("cachedpg", wire.DSN)
	db.SetMaxOpenConns(1)
	for range 50 {
		for _, a := range affairs {
			if err := a.do(f.Ctx, db, "x", "SET LOCAL work_mem = '4MB'"); err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
		}
	}
	asked := 0
	for _, text := range wire.Texts() {
		if strings.Contains(text.SQL, "pg_control_system") {
			asked++
		}
	}
	if asked > 20 { // a back-off of a minute makes few in any time that a test has, but for those of SET
		t.Errorf("asked %d times", asked)
	}
	if s := cachedpg.StatsOf(db); !slices.ContainsFunc(s.Problems, func(p cachedpg.Problem) bool {
		return p.Work == "session" && strings.Contains(p.Text, "pg_control_system")
	}) {
		t.Errorf("Stats says %q", s.Problems)
	}
}
