package cachedpg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/keying"
)

// A transaction is one however it begins; the truth is what PostgreSQL says of
// its state after each statement.

// Each way to begin a transaction, and to end it.
func TestATransactionIsOneHoweverItBegins(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		s, conn := f.session()
		exec := func(sql string) func() { return func() { s.exec(sql) } }
		query := func(sql string) func() { return func() { s.read(s.ask, sql, nil) } }
		var tx *sql.Tx
		beginTx := func() {
			var err error
			if tx, err = conn.BeginTx(f.ctx, nil); err != nil {
				f.Fatal(err)
			}
		}
		for i, way := range []struct {
			name               string
			begin, commit, end func()
		}{
			{"BeginTx", beginTx, func() { f.commit(tx) }, func() { f.rollback(tx) }},
			{"Exec", exec("BEGIN"), exec("COMMIT"), exec("ROLLBACK")},
			{"Exec of other words", exec("START TRANSACTION READ WRITE"), exec("END TRANSACTION"), exec("ABORT")},
			{"Query", query("BEGIN"), query("COMMIT"), query("ROLLBACK")},
			{"Query with a comment", query("/* now */ begin;"), query("-- so\ncommit"), query("rollback -- or not")},
		} {
			f.step(way.name, func(f *fixture) {
				f.known(userByID, 1)
				before := f.hit(userByID, 1).String()
				after := fmt.Sprintf("1 ann%d Oslo", i)

				way.begin()
				s.hit(userByID, 1)
				s.exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("ann%d", i))
				s.runs(keying.InTransactionAfterWrite, userByID, 1).is(after)
				f.hit(userByID, 1).is(before)
				way.end()
				s.hit(userByID, 1).is(before)

				way.begin()
				s.exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("ann%d", i))
				f.hit(userByID, 1).is(before)
				way.commit()
				s.miss(userByID, 1).is(after)
				f.hit(userByID, 1).is(after)
			})
		}
	})
}

// A rolled-back savepoint undoes the write, which has been remembered and is
// not forgotten: that only invalidates more.
func TestSavepoints(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		tx, end := f.begin(nil)
		tx.exec("SAVEPOINT a")
		tx.hit(userByID, 1)
		tx.exec("UPDATE users SET name = 'x' WHERE id = 1")
		tx.exec("ROLLBACK TO SAVEPOINT a")
		tx.runs(keying.InTransactionAfterWrite, userByID, 1).is("1 ann Oslo")
		tx.exec("UPDATE users SET name = 'y' WHERE id = 2")
		tx.exec("RELEASE SAVEPOINT a")
		f.commit(end)
		f.miss(userByID, 1).is("1 ann Oslo")
		f.miss(userByID, 2).is("2 y Rome")

		// A savepoint makes a failed transaction usable again.
		tx, end = f.begin(nil)
		tx.exec("SAVEPOINT a")
		tx.exec("UPDATE users SET name = 'z' WHERE id = 2")
		if _, err := end.ExecContext(f.ctx, "SELECT 1/0"); err == nil {
			f.Fatal("no error")
		}
		tx.exec("ROLLBACK TO a")
		tx.exec("UPDATE users SET name = 'w' WHERE id = 1")
		f.hit(userByID, 1)
		f.commit(end)
		f.miss(userByID, 1).is("1 w Oslo")
		f.fresh(userByID, 2).is("2 y Rome")
	})
}

// In a failed transaction PostgreSQL refuses every statement, also those that
// the cache could answer, and its COMMIT is a rollback.
func TestAFailedTransactionAnswersWithPostgreSQLsErrors(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		fail := func(db *sql.DB) (query, exec, commit error) {
			tx, err := db.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, "SELECT 1/0"); err == nil {
				f.Fatal("no error")
			}
			_, query = tx.QueryContext(f.ctx, userByID, 1)
			_, exec = tx.ExecContext(f.ctx, "UPDATE users SET name = 'y'")
			return query, exec, tx.Commit()
		}
		query, exec, commit := fail(f.db)
		plainQuery, plainExec, plainCommit := fail(f.plain)
		sameError(f, query, plainQuery)
		sameError(f, exec, plainExec)
		sameError(f, commit, plainCommit)
		if !errors.Is(commit, pgx.ErrTxCommitRollback) {
			f.Errorf("COMMIT of a failed transaction: %v, want pgx.ErrTxCommitRollback", commit)
		}
		if got := StatsOf(f.db).Bypasses[keying.FailedTransaction.String()]; got != 1 {
			f.Errorf("%d reads in a failed transaction, want 1", got)
		}
		f.fresh(userByID, 1).is("1 ann Oslo")
		f.hit(userByID, 1)

		// By text, COMMIT succeeds and has rolled back.
		s, _ := f.session()
		s.exec("BEGIN")
		s.exec("UPDATE users SET name = 'x' WHERE id = 1")
		s.read(s.ask, "SELECT 1/0", nil)
		s.exec("COMMIT")
		s.fresh(userByID, 1).is("1 ann Oslo")
		s.hit(userByID, 1)
	})
}

// A commit that PostgreSQL refuses at its end, by a deferred constraint.
func TestACommitThatFails(t *testing.T) {
	scenario(t, `CREATE TABLE p (id int PRIMARY KEY);
		CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)`, func(f *fixture) {
		f.warm("SELECT * FROM c")
		commit := func(db *sql.DB) error {
			tx, err := db.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, "INSERT INTO c VALUES (1, 1)"); err != nil {
				f.Fatal(err)
			}
			return tx.Commit()
		}
		sameError(f, commit(f.db), commit(f.plain))
		f.fresh("SELECT * FROM c").is("")
		f.hit("SELECT * FROM c")
	})
}

// REPEATABLE READ and SERIALIZABLE see one moment; the cache answers for now.
// The level may come from anywhere.
func TestASnapshotIsNotAnsweredFromTheCache(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.known(userByID, 1)
		reads := func(tx via, cached bool) {
			f.Helper()
			if cached {
				tx.hit(userByID, 1)
			} else {
				tx.bypass(keying.Isolation, userByID, 1)
			}
		}
		for _, level := range []struct {
			level  sql.IsolationLevel
			cached bool
		}{{sql.LevelDefault, true}, {sql.LevelReadUncommitted, true}, {sql.LevelReadCommitted, true},
			{sql.LevelRepeatableRead, false}, {sql.LevelSnapshot, false}, {sql.LevelSerializable, false}} {
			tx, end := f.begin(&sql.TxOptions{Isolation: level.level})
			reads(tx, level.cached)
			f.rollback(end)
			tx, end = f.begin(&sql.TxOptions{Isolation: level.level, ReadOnly: true})
			reads(tx, level.cached)
			f.commit(end)
		}

		s, _ := f.session()
		for _, way := range []struct {
			sql    string
			cached bool
		}{
			{"BEGIN", true},
			{"BEGIN ISOLATION LEVEL REPEATABLE READ", false},
			{"START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE", false},
			{"BEGIN ISOLATION LEVEL READ COMMITTED", true},
		} {
			s.exec(way.sql)
			reads(s, way.cached)
			s.exec("COMMIT")
		}
		tx, end := f.begin(nil)
		tx.exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
		reads(tx, false)
		f.rollback(end)
		tx, end = f.begin(&sql.TxOptions{Isolation: sql.LevelSerializable})
		tx.exec("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
		reads(tx, true)
		f.rollback(end)
		tx, end = f.begin(nil)
		tx.exec("SET transaction_isolation = 'serializable'")
		tx.bypass(keying.SessionUnknown, userByID, 1) // nothing may be asked before its first query
		reads(tx, false)
		f.rollback(end)

		s.exec("SET default_transaction_isolation = 'repeatable read'")
		s.exec("BEGIN")
		reads(s, false)
		s.exec("COMMIT")
		s.exec("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
		s.exec("BEGIN")
		s.fresh(userByID, 1)
		s.exec("COMMIT")

		// In the DSN.
		strict := f.with("default_transaction_isolation=serializable")
		strict.fresh(userByID, 1)
		end, err := strict.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		reads(strict.on(end), false)
		f.rollback(end)
	})
}

// The snapshot of a REPEATABLE READ transaction is older than a commit; what it
// reads is not for others.
func TestASnapshotDoesNotFill(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.known("TABLE users")
		tx, end := f.begin(&sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		tx.runs(keying.Isolation, userByID, 1).is("1 ann Oslo")
		f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		tx.runs(keying.Isolation, userByID, 1).is("1 ann Oslo")
		f.warm(userByID, 1).is("1 anna Oslo")
		tx.runs(keying.Isolation, userByID, 1).is("1 ann Oslo")
		f.commit(end)
	})
}

// A read-only transaction is refused its writes, and reads from the cache.
func TestAReadOnlyTransaction(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		tx, end := f.begin(&sql.TxOptions{ReadOnly: true})
		tx.warm(userByID, 1)
		_, err := end.ExecContext(f.ctx, "UPDATE users SET name = 'x'")
		if err == nil {
			f.Error("a write in a read-only transaction")
		}
		f.rollback(end)
		f.hit(userByID, 1)
	})
}

// Two transactions in a row on one connection.
func TestCommitAndChain(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		s, _ := f.session()
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		s.exec("BEGIN")
		s.exec("UPDATE users SET name = 'one' WHERE id = 1")
		s.exec("COMMIT AND CHAIN")
		f.fresh(userByID, 1).is("1 one Oslo")
		f.hit(userByID, 2)
		s.exec("UPDATE users SET name = 'two' WHERE id = 2")
		f.hit(userByID, 2).is("2 bob Rome")
		s.exec("ROLLBACK AND CHAIN")
		f.hit(userByID, 2).is("2 bob Rome")
		s.exec("UPDATE users SET name = 'three' WHERE id = 2")
		s.exec("COMMIT")
		f.fresh(userByID, 2).is("2 three Rome")
		f.known(userByID, 1)
		f.known(userByID, 2)
	})
}

// A prepared transaction is neither committed nor rolled back, and may be
// either, by anybody, at any time.
func TestAPreparedTransactionKeepsWhatItWroteUncached(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		for i, end := range []struct {
			name string
			do   func(gid string)
			want string
		}{
			{"committed here", func(gid string) { f.exec("COMMIT PREPARED '" + gid + "'") }, "1 new0 Oslo"},
			{"rolled back here", func(gid string) { f.exec("ROLLBACK PREPARED '" + gid + "'") }, "1 new0 Oslo"},
			{"committed past the driver", func(gid string) { f.past("COMMIT PREPARED '" + gid + "'") }, "1 new2 Oslo"},
			{"rolled back past the driver", func(gid string) { f.past("ROLLBACK PREPARED '" + gid + "'") }, "1 new2 Oslo"},
		} {
			f.step(end.name, func(f *fixture) {
				f.until("the resolver", func() bool {
					f.read(f.db, userByID, []any{1})
					return StatsOf(f.db).Unresolved == 0
				})
				f.known(userByID, 1)
				f.known(userByID, 2)
				old := f.hit(userByID, 1).String()
				gid := rand.Text() // known to the whole server
				s, _ := f.session()
				s.exec("BEGIN")
				s.exec("UPDATE users SET name = $1 WHERE id = 1", fmt.Sprintf("new%d", i))
				s.exec("PREPARE TRANSACTION '" + gid + "'")
				for range 2 {
					s.bypass(keying.DirtyTag, userByID, 1).is(old)
				}
				s.hit(userByID, 2)
				end.do(gid)
				f.fresh(userByID, 1).is(end.want)
				f.until("the resolver", func() bool {
					f.fresh(userByID, 1).is(end.want)
					return StatsOf(f.db).Unresolved == 0
				})
				f.known(userByID, 1)
			})
		}
	})
}

// Sessions of two transactions at once: each sees its own writes, and what the
// other has committed.
func TestReadCommittedSeesWhatOthersCommitMeanwhile(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		one, endOne := f.begin(nil)
		two, endTwo := f.begin(nil)
		one.warm(userByID, 1)
		two.hit(userByID, 1)
		one.exec("UPDATE users SET name = 'one' WHERE id = 1")
		two.hit(userByID, 1).is("1 ann Oslo")
		f.commit(endOne)
		two.miss(userByID, 1).is("1 one Oslo")
		two.exec("UPDATE users SET name = 'two' WHERE id = 1")
		two.runs(keying.InTransactionAfterWrite, userByID, 1).is("1 two Oslo")
		f.hit(userByID, 1).is("1 one Oslo")
		f.commit(endTwo)
		f.miss(userByID, 1).is("1 two Oslo")
	})
}

// A transaction's context ends it; nothing of it is seen, nothing is lost.
func TestACancelledTransaction(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		ctx, cancel := context.WithCancel(f.ctx)
		tx, err := f.db.BeginTx(ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.on(tx).exec("UPDATE users SET name = 'x' WHERE id = 1")
		cancel()
		if err := tx.Commit(); err == nil {
			f.Error("COMMIT of a cancelled transaction succeeded")
		}
		f.fresh(userByID, 1).is("1 ann Oslo")
		f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.known(userByID, 1)
		f.hit(userByID, 1).is("1 anna Oslo")
	})
}

// DDL is transactional in PostgreSQL.
func TestDDLInATransaction(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		const all = "SELECT * FROM users WHERE id = 1"
		f.warm(all)
		tx, end := f.begin(nil)
		tx.exec("ALTER TABLE users ADD COLUMN age int")
		tx.exec("CREATE TABLE other (id int)")
		tx.exec("INSERT INTO other VALUES (1)")
		tx.read(end, "SELECT * FROM other", nil).is("1")
		f.rollback(end)
		f.fresh(all)
		f.known(all)

		tx, end = f.begin(nil)
		tx.exec("ALTER TABLE users ADD COLUMN age int DEFAULT 4")
		tx.exec("UPDATE users SET age = 5 WHERE id = 1")
		f.commit(end)
		f.settled(all)
		f.hit(all).is("1 ann Oslo 5")
	})
}

// A statement that goes on after the COMMIT in its own text.
func TestSeveralStatementsInOneText(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		if f.mode() != pgx.QueryExecModeSimpleProtocol {
			f.fails("SELECT 1; SELECT 2") // PostgreSQL refuses, in its own words
			return
		}
		f.known(userByID, 1)
		f.exec("UPDATE users SET name = 'a' WHERE id = 1; SELECT 1")
		f.fresh(userByID, 1).is("1 a Oslo")
		f.known(userByID, 1)
		f.exec("SELECT 1; BEGIN; UPDATE users SET name = 'b' WHERE id = 1; COMMIT; SELECT 2")
		f.fresh(userByID, 1).is("1 b Oslo")
		f.known(userByID, 1)
		f.runs(keying.SeveralStatements, "SELECT name FROM users WHERE id = 1; SELECT name FROM users WHERE id = 2")

		s, _ := f.session()
		s.exec("BEGIN; UPDATE users SET name = 'c' WHERE id = 1")
		s.runs(keying.InTransactionAfterWrite, userByID, 1).is("1 c Oslo")
		f.fresh(userByID, 1).is("1 b Oslo")
		s.exec("UPDATE users SET name = 'd' WHERE id = 1; COMMIT; UPDATE users SET name = 'e' WHERE id = 2")
		f.fresh(userByID, 1).is("1 d Oslo")
		f.fresh(userByID, 2).is("2 e Rome")
		f.known(userByID, 1)
		f.known(userByID, 2)
		s.exec("UPDATE users SET name = 'f' WHERE id = 1; BEGIN; UPDATE users SET name = 'g' WHERE id = 2")
		f.fresh(userByID, 1)
		f.fresh(userByID, 2).is("2 e Rome")
		s.exec("COMMIT")
		f.fresh(userByID, 1).is("1 f Oslo")
		f.fresh(userByID, 2).is("2 g Rome")
		f.known(userByID, 1)

		if _, err := f.db.ExecContext(f.ctx, "UPDATE users SET name = 'h' WHERE id = 1; COMMIT; SELECT 1/0"); err == nil {
			f.Error("no error")
		}
		f.fresh(userByID, 1)
		f.fresh(userByID, 1)
	})
}

// A connection that goes back into the pool in a transaction is thrown away,
// and its writes with it.
func TestAConnectionIsGivenBackInATransaction(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		for _, how := range []string{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"} {
			conn := f.conn(f.db)
			f.on(conn).exec(how)
			f.on(conn).exec("UPDATE users SET name = 'x' WHERE id = 1")
			if err := conn.Close(); err != nil {
				f.Fatal(err)
			}
			for range 3 {
				f.fresh(userByID, 1).is("1 ann Oslo")
			}
			f.exec("UPDATE users SET name = 'ann' WHERE id = 1") // not blocked by a lock
			f.known(userByID, 1)
		}
	})
}

// SQL's own statements, whose text is elsewhere when they run.
func TestStatementsAndCursorsOfSQL(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.known(userByID, 1)
		s, _ := f.session()
		s.exec("PREPARE w AS UPDATE users SET name = 'executed' WHERE id = 1")
		s.exec("EXECUTE w")
		f.fresh(userByID, 1).is("1 executed Oslo")
		f.known(userByID, 1)
		s.exec("PREPARE r (int) AS SELECT name FROM users WHERE id = $1")
		s.read(s.ask, "EXECUTE r(2)", nil).is("bob")
		s.exec("UPDATE users SET name = 'bobby' WHERE id = 2")
		s.read(s.ask, "EXECUTE r(2)", nil).is("bobby")
		s.exec("DEALLOCATE ALL")

		s.exec("BEGIN")
		s.exec("DECLARE c CURSOR FOR SELECT name FROM users ORDER BY id")
		s.read(s.ask, "FETCH c", nil).is("executed")
		s.read(s.ask, "FETCH c", nil).is("bobby")
		s.exec("UPDATE users SET name = 'current' WHERE CURRENT OF c")
		s.exec("COMMIT")
		f.fresh(userByID, 2).is("2 current Rome")
		f.known(userByID, 2)
		f.exec("EXPLAIN UPDATE users SET name = 'explained'")
		f.exec("VACUUM users")
		f.exec("ANALYZE users")
		f.exec("LISTEN a")
		f.exec("SET statement_timeout = '1min'")
		f.fresh(userByID, 2).is("2 current Rome")
	})
}
