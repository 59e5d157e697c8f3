package session

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// DDL is transactional in PostgreSQL.
func TestDDLInATransaction(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		const all = "SELECT * FROM users WHERE id = 1"
		f.Warm(all)
		tx, end := f.Begin(nil)
		tx.Exec("ALTER TABLE users ADD COLUMN age int")
		tx.Exec("CREATE TABLE other (id int)")
		tx.Exec("INSERT INTO other VALUES (1)")
		tx.Read(end, "SELECT * FROM other", nil).Is("1")
		f.Rollback(end)
		f.Fresh(all)
		f.Known(all)

		tx, end = f.Begin(nil)
		tx.Exec("ALTER TABLE users ADD COLUMN age int DEFAULT 4")
		tx.Exec("UPDATE users SET age = 5 WHERE id = 1")
		f.Commit(end)
		f.Settled(all)
		f.Hit(all).Is("1 ann Oslo 5")
	})
}

// A statement that goes on after the COMMIT in its own text.
func TestSeveralStatementsInOneText(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		if f.Mode() != pgx.QueryExecModeSimpleProtocol {
			f.Fails("SELECT 1; SELECT 2") // PostgreSQL refuses, in its own words
			return
		}
		f.Known(harness.UserByID, 1)
		f.Exec("UPDATE users SET name = 'a' WHERE id = 1; SELECT 1")
		f.Fresh(harness.UserByID, 1).Is("1 a Oslo")
		f.Known(harness.UserByID, 1)
		f.Exec("SELECT 1; BEGIN; UPDATE users SET name = 'b' WHERE id = 1; COMMIT; SELECT 2")
		f.Fresh(harness.UserByID, 1).Is("1 b Oslo")
		f.Known(harness.UserByID, 1)
		f.Runs(keying.SeveralStatements, "SELECT name FROM users WHERE id = 1; SELECT name FROM users WHERE id = 2")

		s, _ := f.Session()
		s.Exec("BEGIN; UPDATE users SET name = 'c' WHERE id = 1")
		s.Runs(keying.InTransactionAfterWrite, harness.UserByID, 1).Is("1 c Oslo")
		f.Fresh(harness.UserByID, 1).Is("1 b Oslo")
		s.Exec("UPDATE users SET name = 'd' WHERE id = 1; COMMIT; UPDATE users SET name = 'e' WHERE id = 2")
		f.Fresh(harness.UserByID, 1).Is("1 d Oslo")
		f.Fresh(harness.UserByID, 2).Is("2 e Rome")
		f.Known(harness.UserByID, 1)
		f.Known(harness.UserByID, 2)
		s.Exec("UPDATE users SET name = 'f' WHERE id = 1; BEGIN; UPDATE users SET name = 'g' WHERE id = 2")
		f.Fresh(harness.UserByID, 1)
		f.Fresh(harness.UserByID, 2).Is("2 e Rome")
		s.Exec("COMMIT")
		f.Fresh(harness.UserByID, 1).Is("1 f Oslo")
		f.Fresh(harness.UserByID, 2).Is("2 g Rome")
		f.Known(harness.UserByID, 1)

		if _, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'h' WHERE id = 1; COMMIT; SELECT 1/0"); err == nil {
			f.Error("no error")
		}
		f.Fresh(harness.UserByID, 1)
		f.Fresh(harness.UserByID, 1)
	})
}

// A connection that goes back into the pool in a transaction is thrown away,
// and its writes with it.
func TestAConnectionIsGivenBackInATransaction(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		for _, how := range []string{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"} {
			conn := f.Conn(f.DB)
			f.On(conn).Exec(how)
			f.On(conn).Exec("UPDATE users SET name = 'x' WHERE id = 1")
			if err := conn.Close(); err != nil {
				f.Fatal(err)
			}
			for range 3 {
				f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
			}
			f.Exec("UPDATE users SET name = 'ann' WHERE id = 1") // not blocked by a lock
			f.Known(harness.UserByID, 1)
		}
	})
}

// SQL's own statements, whose text is elsewhere when they run.
func TestStatementsAndCursorsOfSQL(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		s, _ := f.Session()
		s.Exec("PREPARE w AS UPDATE users SET name = 'executed' WHERE id = 1")
		s.Exec("EXECUTE w")
		f.Fresh(harness.UserByID, 1).Is("1 executed Oslo")
		f.Known(harness.UserByID, 1)
		s.Exec("PREPARE r (int) AS SELECT name FROM users WHERE id = $1")
		s.Read(s.Ask, "EXECUTE r(2)", nil).Is("bob")
		s.Exec("UPDATE users SET name = 'bobby' WHERE id = 2")
		s.Read(s.Ask, "EXECUTE r(2)", nil).Is("bobby")
		s.Exec("DEALLOCATE ALL")

		s.Exec("BEGIN")
		s.Exec("DECLARE c CURSOR FOR SELECT name FROM users ORDER BY id")
		s.Read(s.Ask, "FETCH c", nil).Is("executed")
		s.Read(s.Ask, "FETCH c", nil).Is("bobby")
		s.Exec("UPDATE users SET name = 'current' WHERE CURRENT OF c")
		s.Exec("COMMIT")
		f.Fresh(harness.UserByID, 2).Is("2 current Rome")
		f.Known(harness.UserByID, 2)
		f.Exec("EXPLAIN UPDATE users SET name = 'explained'")
		f.Exec("VACUUM users")
		f.Exec("ANALYZE users")
		f.Exec("LISTEN a")
		f.Exec("SET statement_timeout = '1min'")
		f.Fresh(harness.UserByID, 2).Is("2 current Rome")
	})
}
