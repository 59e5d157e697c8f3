package core

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// inRedis runs a test in each exec mode, with a store that processes share.
func inRedis(t *testing.T, setup string, test func(f *harness.Fixture)) {
	t.Helper()
	t.Parallel()
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			test(harness.New(t, pgtest.Database(t), mode, setup, "cache_store="+pgtest.Redis(t)))
		})
	}
}

// ways of writing.
var writers = map[string]func(ctx context.Context, tx *sql.Tx, text string, args ...any) (int64, error){
	"Exec": func(ctx context.Context, tx *sql.Tx, text string, args ...any) (int64, error) {
		result, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	},
	"a prepared statement": func(ctx context.Context, tx *sql.Tx, text string, args ...any) (int64, error) {
		stmt, err := tx.PrepareContext(ctx, text)
		if err != nil {
			return 0, err
		}
		result, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	},
	"RETURNING": func(ctx context.Context, tx *sql.Tx, text string, args ...any) (n int64, err error) {
		rows, err := tx.QueryContext(ctx, text+" RETURNING id", args...)
		if err != nil {
			return 0, err
		}
		for rows.Next() {
			n++
		}
		return n, rows.Err()
	},
}

const renameUser = "UPDATE users SET name = $2 WHERE id = $1"

// A transaction with a store that processes share asks PostgreSQL no more often than one of pgx.
func TestATransactionIsAskedBesideWhatItWrites(t *testing.T) {
	inRedis(t, harness.People, func(f *harness.Fixture) {
		for name, write := range writers {
			f.Step(name, func(f *harness.Fixture) {
				trips := func(driver string, keys ...string) int {
					wire := pgtest.Listen(f, f.DSN)
					db := f.Open(driver, harness.WithKeys(harness.WithKey(wire.DSN, "default_query_exec_mode", strings.ReplaceAll(f.Mode().String(), " ", "_")), keys))
					db.SetMaxOpenConns(1)
					if len(keys) > 0 {
						f.Live(db)
					}
					transaction := func() {
						tx, err := db.BeginTx(f.Ctx, nil)
						if err != nil {
							f.Fatal(err)
						}
						defer tx.Rollback()
						if err := tx.QueryRowContext(f.Ctx, "SELECT city FROM users WHERE id = $1 FOR UPDATE", 2).Scan(new(string)); err != nil {
							f.Fatal(err)
						}
						for id := range 2 {
							if n, err := write(f.Ctx, tx, renameUser, 1+id, name); err != nil || n != 1 {
								f.Fatalf("%d rows, %v", n, err)
							}
						}
						f.Commit(tx)
					}
					for range 3 { // statements are prepared, and who writes has shown it
						transaction()
					}
					texts := wire.Texts()
					client := texts[slices.IndexFunc(texts, func(t pgtest.Text) bool { return strings.Contains(t.SQL, "FOR UPDATE") })].Client
					before := wire.Trips(client)
					transaction()
					return wire.Trips(client) - before
				}
				want := trips("pgx")
				if f.Mode() == pgx.QueryExecModeSimpleProtocol && name != "a prepared statement" { // with which nothing travels
					want++
				}
				if got := trips("cachedpg", f.Keys...); got != want {
					f.Errorf("%d round trips to PostgreSQL, want %d", got, want)
				}
			})
		}
	})
}

// What becomes of a statement, and of its transaction, is what becomes of it without a question.
func TestAStatementWithAQuestionIsAsWithPgx(t *testing.T) {
	inRedis(t, harness.People+"ALTER TABLE users ADD CHECK (name <> 'nobody'); CREATE UNIQUE INDEX ON users (name)", func(f *harness.Fixture) {
		const restored = "UPDATE users SET city = 'x', name = CASE id WHEN 1 THEN 'ann' WHEN 2 THEN 'bob' ELSE 'cid' END"
		f.Past(restored)
		for name, write := range writers {
			for what, args := range map[string][]any{
				"one row":                {renameUser, 1, "anna"},
				"no row":                 {renameUser, 9, "anna"},
				"all rows":               {"UPDATE users SET city = $1", "Bern"},
				"a check":                {renameUser, 1, "nobody"},
				"a key":                  {renameUser, 1, "bob"},
				"an error in the middle": {"UPDATE users SET city = (10 / (id - $1))::text", 3},
				"a type":                 {renameUser, "x", "anna"},
				"too few arguments":      {renameUser, 1},
				"a text":                 {"UPDATE users SET nothing = $1", 1},
				"no text":                {"UPDATE users SET = $1", 1},
				"a large value":          {"UPDATE users SET city = $2 WHERE id = $1", 2, strings.Repeat("Rome", 50000)},
			} {
				f.Step(name+": "+what, func(f *harness.Fixture) {
					run := func(db *sql.DB) (n int64, left string, errs [3]error) {
						tx, err := db.BeginTx(f.Ctx, nil)
						if err != nil {
							f.Fatal(err)
						}
						defer tx.Rollback()
						n, errs[0] = write(f.Ctx, tx, args[0].(string), args[1:]...)
						_, errs[1] = tx.ExecContext(f.Ctx, renameUser, 3, "last")
						if errs[1] == nil {
							errs[1] = tx.QueryRowContext(f.Ctx, "SELECT string_agg(concat(id, name, left(city, 9)), ',' ORDER BY id) FROM users").Scan(&left)
						}
						errs[2] = tx.Commit()
						f.Past(restored)
						return n, left, errs
					}
					wantN, wantLeft, wants := run(f.Plain)
					n, left, errs := run(f.DB)
					for i, want := range wants {
						if got := errs[i]; got != nil || want != nil {
							harness.SameError(f, got, want)
						}
					}
					if n != wantN || left != wantLeft {
						f.Errorf("%d rows, then %q; pgx has %d, %q", n, left, wantN, wantLeft)
					}
				})
			}
		}
	})
}

// openTx is a transaction of whose connection the driver's side is looked at.
func openTx(f *harness.Fixture, conn *sql.Conn) (tx *sql.Tx, look func(do func(c *Conn))) {
	f.Helper()
	tx, err := conn.BeginTx(f.Ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = tx.Rollback() })
	var c *Conn
	if err := conn.Raw(func(x any) error { c = connOf(x); return nil }); err != nil {
		f.Fatal(err)
	}
	return tx, func(do func(c *Conn)) { do(c) }
}

// What was found of a transaction is what it is, whatever it does after its first write.
func TestWhatWasFoundOfATransactionHolds(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People+`
		CREATE FUNCTION hurry() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('synchronous_commit', 'off', true); RETURN 1; END $$;
		CREATE FUNCTION hurry_dynamic() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET synchronous_' || 'commit = off'; RETURN 1; END $$;
		CREATE TABLE logged (id int PRIMARY KEY, n int); INSERT INTO logged VALUES (1, 1);
		CREATE FUNCTION hurry_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL synchronous_commit = off; RETURN NEW; END $$;
		CREATE TRIGGER hurry BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION hurry_row();`, "cache_store="+pgtest.Redis(t))
	conn := f.Conn(f.DB)
	const off = "SET LOCAL synchronous_commit = off"
	for _, tc := range []struct {
		before, after []string
		found         bool // the answer is still good
	}{
		{found: true},
		{after: []string{"SELECT 1", "UPDATE users SET city = 'x'", "SAVEPOINT a", "UPDATE users SET city = 'y'", "RELEASE a"}, found: true},
		{before: []string{off}, found: true},
		{after: []string{off}},
		{after: []string{"SET synchronous_commit = off"}},
		{before: []string{off}, after: []string{"RESET synchronous_commit"}},
		{before: []string{off}, after: []string{"RESET ALL"}},
		{before: []string{off}, after: []string{"SET LOCAL synchronous_commit TO DEFAULT"}},
		{before: []string{"SAVEPOINT a"}, after: []string{"ROLLBACK TO a", off, "UPDATE users SET city = 'z'"}},
		{before: []string{off, "SAVEPOINT a", "SET LOCAL synchronous_commit = on"}, after: []string{"ROLLBACK TO a", "UPDATE users SET city = 'z'"}},
		{after: []string{"SELECT set_config('synchronous_commit', 'off', true)"}},
		{after: []string{"SELECT set_config('synchronous_' || 'commit', 'off', false)"}},
		{after: []string{"UPDATE pg_settings SET setting = 'off' WHERE name = 'synchronous_commit'"}},
		{after: []string{"SELECT hurry()"}},
		{after: []string{"SELECT hurry_dynamic()"}},
		{after: []string{"SELECT name FROM users ORDER BY hurry()"}},
		{after: []string{"UPDATE users SET city = hurry()::text"}},
		{after: []string{"UPDATE logged SET n = n + 1"}},
		{after: []string{"DO $$ BEGIN PERFORM set_config('synchronous_commit', 'off', true); END $$"}},
		{after: []string{"EXPLAIN (ANALYZE) SELECT set_config('synchronous_commit', 'off', true)"}},
		{after: []string{"DECLARE c CURSOR FOR SELECT set_config('synchronous_commit', 'off', true)", "FETCH c"}},
		{after: []string{"PREPARE p AS SELECT set_config('synchronous_commit', 'off', true)", "EXECUTE p", "DEALLOCATE p"}},
	} {
		f.Step(strings.Join(append(append(tc.before, "UPDATE"), tc.after...), "; "), func(f *harness.Fixture) {
			tx, look := openTx(f, conn)
			do := func(text string, args ...any) {
				f.Helper()
				if _, err := tx.ExecContext(f.Ctx, text, args...); err != nil {
					f.Fatalf("%s: %v", text, err)
				}
			}
			for _, text := range tc.before {
				do(text)
			}
			do(renameUser, 1, "anna")
			look(func(c *Conn) {
				if c.tx.found.xid == "" {
					f.Error("nothing was found beside the first write")
				}
			})
			for _, text := range tc.after {
				do(text)
			}
			look(func(c *Conn) {
				found, asks := c.tx.found, c.tx.asks
				is, err := c.inner.Ask(f.Ctx, "SHOW synchronous_commit")
				if err != nil {
					f.Fatal(err)
				}
				if found.xid != "" && !asks && found.commits != backend.CommitModeOf(is) {
					f.Errorf("%+v was found, and it is %s", found, is)
				}
				if tc.found && found.xid == "" {
					f.Error("what was found is forgotten")
				}
			})
			f.Commit(tx)
			f.Past("UPDATE users SET city = 'Rome' WHERE id = 2")
		})
	}
}

// What was found with a first write is asked for once more with the next, if it is forgotten, and
// a COMMIT AND CHAIN begins another transaction.
func TestWhatWasFoundIsOfOneTransaction(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	conn := f.Conn(f.DB)
	found := func() (found found) {
		if err := conn.Raw(func(x any) error { found = connOf(x).tx.found; return nil }); err != nil {
			f.Fatal(err)
		}
		return found
	}
	v := f.Via.On(conn)
	v.Exec("BEGIN")
	v.Exec(renameUser, 9, "nobody")
	if got := found(); got.xid != "" {
		f.Errorf("%+v was found of a transaction that has changed nothing", got)
	}
	v.Exec(renameUser, 1, "one")
	first := found()
	v.Exec("SET LOCAL synchronous_commit = off")
	if got := found(); got.xid != "" {
		f.Errorf("%+v, after SET", got)
	}
	v.Exec(renameUser, 2, "two")
	if got := found(); got.xid != first.xid || first.xid == "" || got.commits != backend.CommitAsync {
		f.Errorf("%+v, and %+v before", got, first)
	}
	if err := handedOut(f.Ctx, conn, func(c *pgx.Conn) error {
		return c.PgConn().Exec(f.Ctx, "SET LOCAL synchronous_commit = on").Close() // which is not seen
	}); err != nil {
		f.Fatal(err)
	}
	if got := found(); got.xid != "" {
		f.Errorf("%+v, after the connection was lent out", got)
	}
	v.Exec(renameUser, 2, "two")
	v.Exec("COMMIT AND CHAIN")
	if got := found(); got.xid != "" {
		f.Errorf("%+v, of the transaction before", got)
	}
	v.Exec(renameUser, 2, "three")
	if got := found(); got.xid == first.xid || got.commits != backend.CommitSync {
		f.Errorf("%+v, and %+v before", got, first)
	}
	v.Exec("COMMIT")
	f.Fresh(harness.UserByID, 2).Is("2 three Rome")
}
