package session

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// A transaction is one however it begins; the truth is what PostgreSQL says of
// its state after each statement.

// Each way to begin a transaction, and to end it.
func TestATransactionIsOneHoweverItBegins(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		s, conn := f.Session()
		exec := func(sql string) func() { return func() { s.Exec(sql) } }
		query := func(sql string) func() { return func() { s.Read(s.Ask, sql, nil) } }
		var tx *sql.Tx
		beginTx := func() {
			var err error
			if tx, err = conn.BeginTx(f.Ctx, nil); err != nil {
				f.Fatal(err)
			}
		}
		for i, way := range []struct {
			name               string
			begin, commit, end func()
		}{
			{"BeginTx", beginTx, func() { f.Commit(tx) }, func() { f.Rollback(tx) }},
			{"Exec", exec("BEGIN"), exec("COMMIT"), exec("ROLLBACK")},
			{"Exec of other words", exec("START TRANSACTION READ WRITE"), exec("END TRANSACTION"), exec("ABORT")},
			{"Query", query("BEGIN"), query("COMMIT"), query("ROLLBACK")},
			{"Query with a comment", query("/* now */ begin;"), query("-- so\ncommit"), query("rollback -- or not")},
		} {
			f.Step(way.name, func(f *harness.Fixture) {
				f.Known(harness.UserByID, 1)
				before := f.Hit(harness.UserByID, 1).String()
				after := fmt.Sprintf("1 ann%d Oslo", i)

				way.begin()
				s.Hit(harness.UserByID, 1)
				s.Exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("ann%d", i))
				s.Runs(keying.InTransactionAfterWrite, harness.UserByID, 1).Is(after)
				f.Hit(harness.UserByID, 1).Is(before)
				way.end()
				s.Hit(harness.UserByID, 1).Is(before)

				way.begin()
				s.Exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("ann%d", i))
				f.Hit(harness.UserByID, 1).Is(before)
				way.commit()
				s.Miss(harness.UserByID, 1).Is(after)
				f.Hit(harness.UserByID, 1).Is(after)
			})
		}
	})
}

// A rolled-back savepoint undoes the write, which has been remembered and is
// not forgotten: that only invalidates more.
func TestSavepoints(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		f.Warm(harness.UserByID, 2)
		tx, end := f.Begin(nil)
		tx.Exec("SAVEPOINT a")
		tx.Hit(harness.UserByID, 1)
		tx.Exec("UPDATE users SET name = 'x' WHERE id = 1")
		tx.Exec("ROLLBACK TO SAVEPOINT a")
		tx.Runs(keying.InTransactionAfterWrite, harness.UserByID, 1).Is("1 ann Oslo")
		tx.Exec("UPDATE users SET name = 'y' WHERE id = 2")
		tx.Exec("RELEASE SAVEPOINT a")
		f.Commit(end)
		f.Miss(harness.UserByID, 1).Is("1 ann Oslo")
		f.Miss(harness.UserByID, 2).Is("2 y Rome")

		// A savepoint makes a failed transaction usable again.
		tx, end = f.Begin(nil)
		tx.Exec("SAVEPOINT a")
		tx.Exec("UPDATE users SET name = 'z' WHERE id = 2")
		if _, err := end.ExecContext(f.Ctx, "SELECT 1/0"); err == nil {
			f.Fatal("no error")
		}
		tx.Exec("ROLLBACK TO a")
		tx.Exec("UPDATE users SET name = 'w' WHERE id = 1")
		f.Hit(harness.UserByID, 1)
		f.Commit(end)
		f.Miss(harness.UserByID, 1).Is("1 w Oslo")
		f.Fresh(harness.UserByID, 2).Is("2 y Rome")
	})
}

// In a failed transaction PostgreSQL refuses every statement, also those that
// the cache could answer, and its COMMIT is a rollback.
func TestAFailedTransactionAnswersWithPostgreSQLsErrors(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		fail := func(db *sql.DB) (query, exec, commit error) {
			tx, err := db.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.Ctx, "SELECT 1/0"); err == nil {
				f.Fatal("no error")
			}
			_, query = tx.QueryContext(f.Ctx, harness.UserByID, 1)
			_, exec = tx.ExecContext(f.Ctx, "UPDATE users SET name = 'y'")
			return query, exec, tx.Commit()
		}
		query, exec, commit := fail(f.DB)
		plainQuery, plainExec, plainCommit := fail(f.Plain)
		harness.SameError(f, query, plainQuery)
		harness.SameError(f, exec, plainExec)
		harness.SameError(f, commit, plainCommit)
		if !errors.Is(commit, pgx.ErrTxCommitRollback) {
			f.Errorf("COMMIT of a failed transaction: %v, want pgx.ErrTxCommitRollback", commit)
		}
		if got := cachedpg.StatsOf(f.DB).Bypasses[keying.FailedTransaction.String()]; got != 1 {
			f.Errorf("%d reads in a failed transaction, want 1", got)
		}
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		f.Hit(harness.UserByID, 1)

		// By text, COMMIT succeeds and has rolled back.
		s, _ := f.Session()
		s.Exec("BEGIN")
		s.Exec("UPDATE users SET name = 'x' WHERE id = 1")
		s.Read(s.Ask, "SELECT 1/0", nil)
		s.Exec("COMMIT")
		s.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		s.Hit(harness.UserByID, 1)
	})
}

// A commit that PostgreSQL refuses at its end, by a deferred constraint.
func TestACommitThatFails(t *testing.T) {
	harness.Scenario(t, `CREATE TABLE p (id int PRIMARY KEY);
		CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)`, func(f *harness.Fixture) {
		f.Warm("SELECT * FROM c")
		commit := func(db *sql.DB) error {
			tx, err := db.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.Ctx, "INSERT INTO c VALUES (1, 1)"); err != nil {
				f.Fatal(err)
			}
			return tx.Commit()
		}
		harness.SameError(f, commit(f.DB), commit(f.Plain))
		f.Fresh("SELECT * FROM c").Is("")
		f.Hit("SELECT * FROM c")
	})
}

// REPEATABLE READ and SERIALIZABLE see one moment; the cache answers for now.
// The level may come from anywhere.
func TestASnapshotIsNotAnsweredFromTheCache(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		reads := func(tx harness.Via, cached bool) {
			f.Helper()
			if cached {
				tx.Hit(harness.UserByID, 1)
			} else {
				tx.Bypass(keying.Isolation, harness.UserByID, 1)
			}
		}
		for _, level := range []struct {
			level  sql.IsolationLevel
			cached bool
		}{{sql.LevelDefault, true}, {sql.LevelReadUncommitted, true}, {sql.LevelReadCommitted, true},
			{sql.LevelRepeatableRead, false}, {sql.LevelSnapshot, false}, {sql.LevelSerializable, false}} {
			tx, end := f.Begin(&sql.TxOptions{Isolation: level.level})
			reads(tx, level.cached)
			f.Rollback(end)
			tx, end = f.Begin(&sql.TxOptions{Isolation: level.level, ReadOnly: true})
			reads(tx, level.cached)
			f.Commit(end)
		}

		s, _ := f.Session()
		for _, way := range []struct {
			sql    string
			cached bool
		}{
			{"BEGIN", true},
			{"BEGIN ISOLATION LEVEL REPEATABLE READ", false},
			{"START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE", false},
			{"BEGIN ISOLATION LEVEL READ COMMITTED", true},
		} {
			s.Exec(way.sql)
			reads(s, way.cached)
			s.Exec("COMMIT")
		}
		tx, end := f.Begin(nil)
		tx.Exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
		reads(tx, false)
		f.Rollback(end)
		tx, end = f.Begin(&sql.TxOptions{Isolation: sql.LevelSerializable})
		tx.Exec("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
		reads(tx, true)
		f.Rollback(end)
		tx, end = f.Begin(nil)
		tx.Exec("SET transaction_isolation = 'serializable'")
		tx.Bypass(keying.SessionUnknown, harness.UserByID, 1) // nothing may be asked before its first query
		reads(tx, false)
		f.Rollback(end)

		s.Exec("SET default_transaction_isolation = 'repeatable read'")
		s.Exec("BEGIN")
		reads(s, false)
		s.Exec("COMMIT")
		s.Exec("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
		s.Exec("BEGIN")
		s.Fresh(harness.UserByID, 1)
		s.Exec("COMMIT")

		// In the DSN.
		strict := f.With("default_transaction_isolation=serializable")
		strict.Fresh(harness.UserByID, 1)
		end, err := strict.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		reads(strict.On(end), false)
		f.Rollback(end)
	})
}

// The snapshot of a REPEATABLE READ transaction is older than a commit; what it
// reads is not for others.
func TestASnapshotDoesNotFill(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Known("TABLE users")
		tx, end := f.Begin(&sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		tx.Runs(keying.Isolation, harness.UserByID, 1).Is("1 ann Oslo")
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		tx.Runs(keying.Isolation, harness.UserByID, 1).Is("1 ann Oslo")
		f.Warm(harness.UserByID, 1).Is("1 anna Oslo")
		tx.Runs(keying.Isolation, harness.UserByID, 1).Is("1 ann Oslo")
		f.Commit(end)
	})
}

// A read-only transaction is refused its writes, and reads from the cache.
func TestAReadOnlyTransaction(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		tx, end := f.Begin(&sql.TxOptions{ReadOnly: true})
		tx.Warm(harness.UserByID, 1)
		_, err := end.ExecContext(f.Ctx, "UPDATE users SET name = 'x'")
		if err == nil {
			f.Error("a write in a read-only transaction")
		}
		f.Rollback(end)
		f.Hit(harness.UserByID, 1)
	})
}

// Two transactions in a row on one connection.
func TestCommitAndChain(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		s, _ := f.Session()
		f.Warm(harness.UserByID, 1)
		f.Warm(harness.UserByID, 2)
		s.Exec("BEGIN")
		s.Exec("UPDATE users SET name = 'one' WHERE id = 1")
		s.Exec("COMMIT AND CHAIN")
		f.Fresh(harness.UserByID, 1).Is("1 one Oslo")
		f.Hit(harness.UserByID, 2)
		s.Exec("UPDATE users SET name = 'two' WHERE id = 2")
		f.Hit(harness.UserByID, 2).Is("2 bob Rome")
		s.Exec("ROLLBACK AND CHAIN")
		f.Hit(harness.UserByID, 2).Is("2 bob Rome")
		s.Exec("UPDATE users SET name = 'three' WHERE id = 2")
		s.Exec("COMMIT")
		f.Fresh(harness.UserByID, 2).Is("2 three Rome")
		f.Known(harness.UserByID, 1)
		f.Known(harness.UserByID, 2)
	})
}

// A prepared transaction is neither committed nor rolled back, and may be
// either, by anybody, at any time.
func TestAPreparedTransactionKeepsWhatItWroteUncached(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		for i, end := range []struct {
			name string
			do   func(gid string)
			want string
		}{
			{"committed here", func(gid string) { f.Exec("COMMIT PREPARED '" + gid + "'") }, "1 new0 Oslo"},
			{"rolled back here", func(gid string) { f.Exec("ROLLBACK PREPARED '" + gid + "'") }, "1 new0 Oslo"},
			{"committed past the driver", func(gid string) { f.Past("COMMIT PREPARED '" + gid + "'") }, "1 new2 Oslo"},
			{"rolled back past the driver", func(gid string) { f.Past("ROLLBACK PREPARED '" + gid + "'") }, "1 new2 Oslo"},
		} {
			f.Step(end.name, func(f *harness.Fixture) {
				f.Until("the resolver", func() bool {
					f.Read(f.DB, harness.UserByID, []any{1})
					return cachedpg.StatsOf(f.DB).Unresolved == 0
				})
				f.Known(harness.UserByID, 1)
				f.Known(harness.UserByID, 2)
				old := f.Hit(harness.UserByID, 1).String()
				gid := rand.Text() // known to the whole server
				s, _ := f.Session()
				s.Exec("BEGIN")
				s.Exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("new%d", i))
				s.Exec("PREPARE TRANSACTION '" + gid + "'")
				for range 2 {
					s.Bypass(keying.DirtyTag, harness.UserByID, 1).Is(old)
				}
				s.Hit(harness.UserByID, 2)
				end.do(gid)
				f.Fresh(harness.UserByID, 1).Is(end.want)
				f.Until("the resolver", func() bool {
					f.Fresh(harness.UserByID, 1).Is(end.want)
					return cachedpg.StatsOf(f.DB).Unresolved == 0
				})
				f.Known(harness.UserByID, 1)
			})
		}
	})
}

// Sessions of two transactions at once: each sees its own writes, and what the
// other has committed.
func TestReadCommittedSeesWhatOthersCommitMeanwhile(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		one, endOne := f.Begin(nil)
		two, endTwo := f.Begin(nil)
		one.Warm(harness.UserByID, 1)
		two.Hit(harness.UserByID, 1)
		one.Exec("UPDATE users SET name = 'one' WHERE id = 1")
		two.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Commit(endOne)
		two.Miss(harness.UserByID, 1).Is("1 one Oslo")
		two.Exec("UPDATE users SET name = 'two' WHERE id = 1")
		two.Runs(keying.InTransactionAfterWrite, harness.UserByID, 1).Is("1 two Oslo")
		f.Hit(harness.UserByID, 1).Is("1 one Oslo")
		f.Commit(endTwo)
		f.Miss(harness.UserByID, 1).Is("1 two Oslo")
	})
}

// A transaction's context ends it; nothing of it is seen, nothing is lost.
func TestACancelledTransaction(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		ctx, cancel := context.WithCancel(f.Ctx)
		tx, err := f.DB.BeginTx(ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.On(tx).Exec("UPDATE users SET name = 'x' WHERE id = 1")
		cancel()
		if err := tx.Commit(); err == nil {
			f.Error("COMMIT of a cancelled transaction succeeded")
		}
		f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Known(harness.UserByID, 1)
		f.Hit(harness.UserByID, 1).Is("1 anna Oslo")
	})
}
