package connections

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// firsts are statements that PostgreSQL accepts as a transaction's first alone, or
// that mean something else behind a query.
var firsts = []string{
	"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
	"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
	"SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
	"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
	"SET TRANSACTION NOT DEFERRABLE",
	"SET LOCAL transaction_isolation = 'repeatable read'",
	"SET transaction_deferrable = on",
	"SET TRANSACTION READ WRITE",
}

// before are what a transaction may do before that.
var before = []string{"", "SET LOCAL timezone = 'Asia/Tokyo'", "LOCK TABLE users IN SHARE MODE", "SHOW timezone",
	"SET LOCAL search_path = public, cache_statement", "LISTEN news", "SAVEPOINT a; RELEASE a", "SET LOCAL statement_timeout = '1min'"}

// beginnings are ways to begin a transaction.
var beginnings = []struct {
	name  string
	begin func(ctx context.Context, conn *sql.Conn) (harness.Asker, func() error, error)
}{
	{"BeginTx", func(ctx context.Context, conn *sql.Conn) (harness.Asker, func() error, error) {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return nil, nil, err
		}
		return tx, tx.Commit, nil
	}},
	{"BEGIN", func(ctx context.Context, conn *sql.Conn) (harness.Asker, func() error, error) {
		_, err := conn.ExecContext(ctx, "BEGIN")
		return conn, func() error {
			_, err := conn.ExecContext(ctx, "COMMIT")
			return err
		}, err
	}},
	{"START TRANSACTION", func(ctx context.Context, conn *sql.Conn) (harness.Asker, func() error, error) {
		rows, err := conn.QueryContext(ctx, "START TRANSACTION READ WRITE /* "+rand.Text()+" */") // prepared anew, which the wire shows
		if err == nil {
			err = rows.Close()
		}
		return conn, func() error {
			_, err := conn.ExecContext(ctx, "END")
			return err
		}, err
	}},
}

// states are what may have happened to a connection, or to the database, before a
// transaction begins on it.
var states = []struct {
	name   string
	happen func(f *harness.Fixture, conn *sql.Conn)
}{
	{"cold", func(*harness.Fixture, *sql.Conn) {}},
	{"known", func(f *harness.Fixture, conn *sql.Conn) { f.On(conn).Fresh(harness.UserByID, 1) }},
	{"a table is made by another", func(f *harness.Fixture, conn *sql.Conn) {
		f.On(conn).Fresh(harness.UserByID, 1)
		f.Exec("CREATE TABLE IF NOT EXISTS others (id int)")
		f.Exec("DROP TABLE others")
	}},
	{"a schema is made by another", func(f *harness.Fixture, conn *sql.Conn) {
		f.On(conn).Fresh(harness.UserByID, 1)
		f.Exec("CREATE SCHEMA elsewhere")
		f.Exec("DROP SCHEMA elsewhere")
	}},
	{"a temporary table", func(f *harness.Fixture, conn *sql.Conn) {
		f.On(conn).Exec("CREATE TEMP TABLE IF NOT EXISTS mine (id int)")
	}},
	{"a SET", func(f *harness.Fixture, conn *sql.Conn) { f.On(conn).Exec("SET timezone = 'Europe/Oslo'") }},
	{"a SET by a function", func(f *harness.Fixture, conn *sql.Conn) {
		f.On(conn).Exec("SELECT set_config('timezone', 'Europe/Rome', false)")
	}},
	{"a failed statement", func(f *harness.Fixture, conn *sql.Conn) {
		if _, err := conn.ExecContext(f.Ctx, "SELECT 1/0"); err == nil {
			f.Fatal("no error")
		}
	}},
	{"everything invalidated", func(f *harness.Fixture, conn *sql.Conn) {
		f.On(conn).Fresh(harness.UserByID, 1)
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
	}},
}

// What PostgreSQL accepts as the first of a transaction alone it gets as the first.
func TestNothingComesBeforeTheFirstStatementOfATransaction(t *testing.T) {
	for _, keys := range [][]string{{}, {"cache_store=" + pgtest.Redis(t)}, {"cache_store=off"}} {
		t.Run(strings.Join(keys, " "), func(t *testing.T) {
			t.Parallel()
			f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
			wire := pgtest.Listen(t, f.DSN)
			f.Keys = keys
			for n, state := range states {
				f.Step(state.name, func(f *harness.Fixture) {
					// A process of its own, so that nothing is known yet.
					c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(wire.DSN, keys))
					if err != nil {
						f.Fatal(err)
					}
					inside.Process(c, state.name)
					f.DB = harness.OpenDB(f, c)
					f.Via = f.Asking(f.DB)
					for i, first := range firsts {
						way, earlier := beginnings[(i+n)%len(beginnings)], before[i]
						if (i+n)%2 == 0 {
							earlier = ""
						}
						begins(f, wire, state.happen, way.begin, earlier, first)
					}
				})
			}
		})
	}
}

func begins(f *harness.Fixture, wire *pgtest.Wire, happen func(*harness.Fixture, *sql.Conn), begin func(context.Context, *sql.Conn) (harness.Asker, func() error, error), before, first string) {
	f.Helper()
	do := func(db *sql.DB, prepare func(conn *sql.Conn)) (outcome []string) {
		conn, err := db.Conn(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		defer conn.Close()
		prepare(conn)
		x, commit, err := begin(f.Ctx, conn)
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range []string{before, first} {
			if text != "" {
				_, err := x.ExecContext(f.Ctx, text)
				outcome = append(outcome, fmt.Sprint(err))
			}
		}
		for _, query := range []string{"SHOW transaction_isolation", "SELECT name FROM users WHERE id = 1", "SELECT name FROM users WHERE id = 1"} {
			outcome = append(outcome, harness.OwnerOf(f.Ctx, x.(harness.Querier), query))
		}
		outcome = append(outcome, fmt.Sprint(commit()))
		return outcome
	}
	seen := len(wire.Texts())
	got := do(f.DB, func(conn *sql.Conn) { happen(f, conn) })
	want := do(f.Plain, func(*sql.Conn) {})
	if !slices.Equal(got, want) {
		f.Errorf("%q, %q:\ngot  %q\npgx: %q", before, first, got, want)
	}
	if between := textsAfterBegin(wire.Texts()[seen:], first); len(between) > 0 && !slices.Equal(between, []string{before}) {
		f.Errorf("%q, %q: between BEGIN and that were sent: %q", before, first, between)
	}
}

// textsAfterBegin returns what a client has sent between the last BEGIN and first.
func textsAfterBegin(texts []pgtest.Text, first string) (between []string) {
	found := slices.IndexFunc(texts, func(t pgtest.Text) bool { return t.SQL == first })
	for at := found; at > 0; at-- {
		switch t := texts[at-1]; {
		case t.Client != texts[found].Client:
		case strings.EqualFold(t.SQL, "begin") || strings.HasPrefix(t.SQL, "START TRANSACTION"):
			return between
		default:
			between = append([]string{t.SQL[:min(len(t.SQL), 60)]}, between...)
		}
	}
	return between
}

// A change of the schema after BEGIN is none of the transaction's business before its first query.
func TestAChangeOfTheSchemaInABegunTransactionAsksNothingInIt(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		f.Again(harness.UserByID, 1)
		for _, write := range []string{"UPDATE users SET name = name || '!' WHERE id = 1", ""} {
			tx, err := f.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			f.Exec("CREATE TABLE beside (id int)")
			f.Fresh(harness.UserByID, 1)
			f.Exec("DROP TABLE beside")
			if _, err := tx.ExecContext(f.Ctx, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"); err != nil {
				f.Fatal(err)
			}
			own := f.On(tx)
			if write != "" {
				own.Exec(write)
				unshared(own, harness.UserByID, 1)
			} else {
				own.Fresh(harness.UserByID, 1)
			}
			f.Commit(tx)
			f.Fresh(harness.UserByID, 1)
		}
		f.Again(harness.UserByID, 1)
	})
}

// unshared reads what only the asker may see.
func unshared(v harness.Via, query string, args ...any) harness.Result {
	v.F.Helper()
	return v.Expect("", false, query, args)
}
