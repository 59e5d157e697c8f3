//go:build unix

package durability

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// However it came that a commit does not wait for the disk, nothing that depends on
// it is cached before it is there (I20), and everything is afterwards.
func TestWhatIsNotOnDiskIsNotCached(t *testing.T) {
	asynchronous(t, harness.People+`
		CREATE FUNCTION hurried(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM set_config('synchronous_commit', 'off', true); UPDATE users SET city = city || '!' WHERE id = $1; RETURN 1; END $$;
		CREATE FUNCTION hurry(bool) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('synchronous_commit', 'off', $1); RETURN 1; END $$;
		CREATE FUNCTION hurry_dynamic() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET synchronous_' || 'commit = off'; RETURN 1; END $$;
		CREATE TABLE logged (id int PRIMARY KEY, n int); INSERT INTO logged VALUES (1, 1);
		CREATE FUNCTION hurry_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL synchronous_commit = off; RETURN NEW; END $$;
		CREATE TRIGGER hurry BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION hurry_row();
		CREATE PROCEDURE hurried_twice() LANGUAGE plpgsql AS $$ BEGIN
			UPDATE users SET city = 'one' WHERE id = 1; COMMIT; PERFORM set_config('synchronous_commit', 'off', true); UPDATE users SET city = 'two' WHERE id = 1; END $$;`,
		func(f *harness.Fixture, s *pgtest.Server) {
			const read = "SELECT city FROM users WHERE id = $1"
			const write = "UPDATE users SET city = $1 WHERE id = 1"
			tx := func(db *sql.DB, texts ...string) {
				f.Helper()
				tx, err := db.BeginTx(f.Ctx, nil)
				if err != nil {
					f.Fatal(err)
				}
				defer tx.Rollback()
				for _, text := range texts {
					if _, err := tx.ExecContext(f.Ctx, text); err != nil {
						f.Fatalf("%s: %v", text, err)
					}
				}
				f.Commit(tx)
			}
			on := func(texts ...string) func() {
				return func() {
					f.Helper()
					v, conn := f.Session()
					defer conn.Close()
					for _, text := range texts {
						v.On(conn).Exec(text)
					}
					v.On(conn).Exec("RESET synchronous_commit")
				}
			}
			of := func(keys ...string) *sql.DB {
				db := f.Open("cachedpg", harness.WithKeys(harness.WithKeys(f.DSN, f.Keys), keys))
				if !f.InMemory() {
					f.Live(db)
				}
				return db
			}
			hurried := of(setAside + "=off")
			s.Exec("DROP ROLE IF EXISTS hurried", "CREATE ROLE hurried LOGIN SUPERUSER", "ALTER ROLE hurried SET synchronous_commit = off")
			for name, commits := range map[string]func(){
				"by the DSN": func() {
					if _, err := hurried.ExecContext(f.Ctx, write, "Bern"); err != nil {
						f.Fatal(err)
					}
				},
				"with RETURNING": func() {
					if err := hurried.QueryRowContext(f.Ctx, write+" RETURNING id", "Wien").Scan(new(int)); err != nil {
						f.Fatal(err)
					}
				},
				"in a transaction": func() { tx(hurried, "UPDATE users SET city = 'Graz' WHERE id = 1") },
				"by COMMIT as a text": func() {
					on("SET synchronous_commit = off", "BEGIN", "UPDATE users SET city = 'text' WHERE id = 1", "COMMIT")()
				},
				"by the role": func() {
					db := of("user=hurried")
					defer db.Close()
					if _, err := db.ExecContext(f.Ctx, write, "role"); err != nil {
						f.Fatal(err)
					}
				},
				"by SET":               on("SET synchronous_commit = off", "UPDATE users SET city = 'SET' WHERE id = 1"),
				"by SET LOCAL":         func() { tx(f.DB, "SET LOCAL synchronous_commit = off", "UPDATE users SET city = 'LOCAL' WHERE id = 1") },
				"by SET LOCAL at last": func() { tx(f.DB, "UPDATE users SET city = 'last' WHERE id = 1", "SET LOCAL synchronous_commit = off") },
				"by set_config":        on("SELECT set_config('synchronous_' || 'commit', 'off', false)", "UPDATE users SET city = 'set_config' WHERE id = 1"),
				"after a savepoint": func() {
					tx(f.DB, "SET LOCAL synchronous_commit = off", "SAVEPOINT s", "SET LOCAL synchronous_commit = on", "ROLLBACK TO s",
						"UPDATE users SET city = 'savepoint' WHERE id = 1")
				},
				"undone by a savepoint at last": func() {
					tx(f.DB, "SET LOCAL synchronous_commit = off", "UPDATE users SET city = 'undone' WHERE id = 1", "SAVEPOINT s", "SET LOCAL synchronous_commit = on",
						"ROLLBACK TO s")
				},
				"by a function that writes":                        func() { f.Exec("SELECT hurried(1)") },
				"by a function in a transaction":                   func() { tx(f.DB, "SELECT hurry(true)", "UPDATE users SET city = 'function' WHERE id = 1") },
				"by a function at last":                            func() { tx(f.DB, "UPDATE users SET city = 'at last' WHERE id = 1", "SELECT hurry(true)") },
				"by a function before":                             on("SELECT hurry(false)", "UPDATE users SET city = 'before' WHERE id = 1"),
				"by a function that is not read":                   on("SELECT hurry_dynamic()", "UPDATE users SET city = 'dynamic' WHERE id = 1"),
				"by a function that is not read, in a transaction": func() { tx(f.DB, "SELECT hurry_dynamic()", "UPDATE users SET city = 'dynamic tx' WHERE id = 1") },
				"by a trigger": func() {
					tx(f.DB, "UPDATE logged SET n = n + 1", "UPDATE users SET city = 'trigger' WHERE id = 1")
				},
				"by a procedure": func() { f.Exec("CALL hurried_twice()") },
				"by a text of several statements": func() {
					if _, err := f.DB.ExecContext(f.Ctx, "SET LOCAL synchronous_commit = off; UPDATE users SET city = 'several' WHERE id = 1", pgx.QueryExecModeSimpleProtocol); err != nil {
						f.Fatal(err)
					}
				},
				"on the pgx connection": func() {
					conn := f.Conn(f.DB)
					defer conn.Close()
					err := cachedpg.PgxConn(f.Ctx, conn, func(c *pgx.Conn) error {
						batch := &pgx.Batch{}
						batch.Queue("SET synchronous_commit = off")
						batch.Queue("UPDATE users SET city = 'batch' WHERE id = 1")
						if err := c.SendBatch(f.Ctx, batch).Close(); err != nil {
							return err
						}
						_, err := c.Exec(f.Ctx, "RESET synchronous_commit")
						return err
					})
					if err != nil {
						f.Fatal(err)
					}
				},
				"that changed the schema": func() {
					tx(hurried, "ALTER TABLE users ADD COLUMN IF NOT EXISTS further int", "UPDATE users SET city = 'DDL' WHERE id = 1")
				},
			} {
				f.Step(name, func(f *harness.Fixture) {
					f.Until("a hit", func() bool { f.Fresh(read, 1); return f.IsHit(read, 1) })
					commits()
					checkUnflushed(f, read, 1)
					f.Until("a hit", func() bool { flushes(f); f.Fresh(read, 1); return f.IsHit(read, 1) })
				})
			}
			f.Step("by the database, which a session finds that is dialled later", func(f *harness.Fixture) {
				f.Until("a hit", func() bool { f.Fresh(read, 1); return f.IsHit(read, 1) })
				v, conn := f.Session()
				defer conn.Close()
				v.On(conn).Exec("SELECT 1")
				s.Exec("ALTER DATABASE postgres SET synchronous_commit = off")
				later := f.Conn(f.DB)
				defer later.Close()
				f.Asking(f.DB).On(later).Exec(write, "later")
				checkUnflushed(f, read, 1)
				s.Exec("ALTER DATABASE postgres RESET synchronous_commit")
				f.DB.SetMaxIdleConns(0)
				f.DB.SetMaxIdleConns(10)
			})
			f.Step("by a reload of the configuration", func(f *harness.Fixture) {
				v, conn := f.Session()
				defer conn.Close()
				v.On(conn).Exec("SELECT 1") // its session is known
				noticed := noticesReload(f)
				v.On(conn).Exec("ALTER SYSTEM SET synchronous_commit = off")
				v.On(conn).Exec("SELECT pg_reload_conf()")
				f.Until("the reload", func() bool {
					var setting string
					if err := conn.QueryRowContext(f.Ctx, "SHOW synchronous_commit").Scan(&setting); err != nil {
						f.Fatal(err)
					}
					return setting == "off"
				})
				noticed(read, 1)
				v.On(conn).Exec(write, "reload")
				checkUnflushed(f, read, 1)
				s.Exec("ALTER SYSTEM RESET synchronous_commit", "SELECT pg_reload_conf()") // its WAL writer flushes, too
			})
		})
}
