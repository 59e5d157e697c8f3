package reads

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// The server is down, or nobody's.
func TestThereIsNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dsn := "host=127.0.0.1 sslmode=disable user=u dbname=d port=" + port
	f := &harness.Fixture{T: t, Ctx: t.Context()}
	ours, theirs := f.Open("cachedpg", dsn), f.Open("pgx", dsn)
	for _, do := range []func(db *sql.DB) error{
		func(db *sql.DB) error { return db.Ping() },
		func(db *sql.DB) error { _, err := db.Query("SELECT 1"); return err },
		func(db *sql.DB) error { _, err := db.Exec("UPDATE t SET x = 1"); return err },
		func(db *sql.DB) error { _, err := db.Begin(); return err },
		func(db *sql.DB) error { _, err := db.Prepare("SELECT 1"); return err },
	} {
		got, want := do(ours), do(theirs)
		harness.SameError(t, got, want)
	}
	if s := cachedpg.StatsOf(ours); s.Lookups != 0 || s.Entries != 0 {
		t.Errorf("stats without a server: %+v", s)
	}
	if err := cachedpg.Invalidate(t.Context(), ours); err == nil { // others may have cached something
		t.Error("Invalidate of a database that nobody can find out about: no error")
	}
	if err := cachedpg.Invalidate(t.Context(), ours, "t"); err == nil {
		t.Error("Invalidate of a relation that nobody can look up: no error")
	}
}

func TestTheDatabaseDoesNotExist(t *testing.T) {
	harness.ScenarioOnce(t, "", func(f *harness.Fixture) {
		bad := harness.WithKey(f.DSN, "user", "nobody_of_this_name")
		_, got := f.Open("cachedpg", bad).QueryContext(f.Ctx, "SELECT 1")
		_, want := f.Open("pgx", bad).QueryContext(f.Ctx, "SELECT 1")
		harness.SameError(f, got, want)
	})
}

// texts that PostgreSQL refuses, or that the parser does not understand.
var texts = map[string]string{
	"nonsense":                    "FROM SELECT",
	"an unknown table":            "SELECT * FROM nowhere",
	"an unknown column":           "SELECT nothing FROM users",
	"an unknown function":         "SELECT nothing(1)",
	"an unknown operator":         "SELECT 1 @@@ 2",
	"an unknown type":             "SELECT 1::nothing",
	"an open string":              "SELECT 'a",
	"an open identifier":          "SELECT \"a",
	"an open comment":             "SELECT 1 /* a",
	"an open dollar quote":        "SELECT $a$ b",
	"a division by zero":          "SELECT 1 / 0",
	"an overflow":                 "SELECT 2147483647 + 1",
	"a bad cast":                  "SELECT 'x'::int",
	"not UTF-8":                   "SELECT '\xff\xfe'",
	"not UTF-8 outside a string":  "SELECT \xff",
	"a NUL":                       "SELECT 'a\x00b'",
	"a NUL at the end":            "SELECT 1\x00",
	"parameters out of range":     "SELECT $99999999999",
	"a parameter that is missing": "SELECT $2::int",
	"parameter zero":              "SELECT $0",
	"nothing":                     "",
	"white space":                 " \n\t",
	"a comment":                   "/* nothing */ -- at all",
	"semicolons":                  ";;;",
	"a multi-byte quote":          "SELECT ‘1’",
	"a no-break space":            "SELECT\u00a01",
	"a backslash":                 "SELECT '\\'",
	"an escape":                   `SELECT E'\u12'`,
	"a surrogate":                 `SELECT U&'\D800'`,
}

func TestTextsThatAreNoSQL(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		for name, text := range texts {
			f.Step(name, func(f *harness.Fixture) { textAsPgx(f, text) })
		}
		f.Known(harness.UserByID, 1)
	})
}

// Deep nesting must not exhaust the stack of the parser, which is C.
func TestTextsThatAreHuge(t *testing.T) {
	deep := func(open, inside, close string, n int) string {
		return strings.Repeat(open, n) + inside + strings.Repeat(close, n)
	}
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		for name, text := range map[string]string{
			"deep parentheses":           "SELECT " + deep("(", "1", ")", 20000),
			"deep sub-selects":           deep("SELECT (", "SELECT 1", ")", 5000),
			"deep sums":                  "SELECT 1" + strings.Repeat(" + 1", 20000),
			"deep NOTs":                  "SELECT " + strings.Repeat("NOT ", 20000) + "true",
			"deep array brackets":        "SELECT " + deep("ARRAY[", "1", "]", 20000),
			"deep JOINs":                 "SELECT 1 FROM " + deep("(", "users u CROSS JOIN users v", ")", 5000),
			"deep UNIONs":                "SELECT 1" + strings.Repeat(" UNION SELECT 1", 3000),
			"a large number of brackets": "SELECT " + strings.Repeat("[", 100000),
			"a very large number":        "SELECT " + strings.Repeat("9", 200000),
			"many statements":            strings.Repeat("SELECT 1;", 100),
			"a large text":               "SELECT '" + strings.Repeat("x", 1<<20) + "'",
			"a large comment":            "SELECT 1 /*" + strings.Repeat(" x", 1<<19) + "*/",
			"many literals":              "SELECT 1 IN (1" + strings.Repeat(", 2", 30000) + ")",
		} {
			f.Step(name, func(f *harness.Fixture) { textAsPgx(f, text) })
		}
		f.Known(harness.UserByID, 1)
	})
}

// textAsPgx gives PostgreSQL a text in every way: rows or error are those of plain pgx.
func textAsPgx(f *harness.Fixture, text string) {
	f.Helper()
	for range 2 {
		got, want := f.Read(f.DB, text, nil), f.Read(f.Plain, text, nil)
		switch {
		case want.Err != nil:
			harness.SameError(f, got.Err, want.Err)
		case got.Err != nil:
			f.Errorf("got error %.200v, plain pgx none", got.Err)
		case got.String() != want.String():
			f.Errorf("got %.100s, plain pgx's %.100s", got, want)
		}
	}
	sameOutcome := func(gotErr, wantErr error) {
		f.Helper()
		if wantErr != nil {
			harness.SameError(f, gotErr, wantErr)
		} else if gotErr != nil {
			f.Errorf("got error %.200v, plain pgx none", gotErr)
		}
	}
	_, gotErr := f.DB.ExecContext(f.Ctx, text)
	_, wantErr := f.Plain.ExecContext(f.Ctx, text)
	sameOutcome(gotErr, wantErr)
	stmt, gotErr := f.DB.PrepareContext(f.Ctx, text)
	plain, wantErr := f.Plain.PrepareContext(f.Ctx, text)
	sameOutcome(gotErr, wantErr)
	if gotErr == nil && wantErr == nil {
		stmt.Close()
		plain.Close()
	}
}

// What is cached for the right arguments is not the answer for wrong ones.
func TestArgumentsThatDoNotFit(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		f.Warm("SELECT name FROM users WHERE name = $1", "ann")
		for _, args := range [][]any{
			{}, {1, 2}, {"x"}, {""}, {struct{ A int }{1}}, {make(chan int)}, {func() {}}, {map[string]int{}},
			{int64(1) << 40}, {uint64(1) << 63}, {[]int{1}}, {[]byte{1}}, {true}, {time.Now()}, {sql.Named("id", 1)},
			{failingValuer{}}, {"1\x00"}, {"\xff"}, {errors.New("x")}, {(*int)(nil), 2}, {1i}, {"now"},
		} {
			f.AsPgx(harness.UserByID, args...)
		}
		for _, args := range [][]any{{}, {1}, {"a", "b"}, {"\xff"}, {"a\x00b"}, {failingValuer{}}, {make(chan int)}, {3.5}} {
			f.AsPgx("SELECT name FROM users WHERE name = $1", args...)
		}
		f.AsPgx("SELECT 1", 1)
		f.AsPgx("SELECT $1::date", "today")
		f.Bypass(keying.ClockInput, "SELECT $1::date", "today")
		f.Hit(harness.UserByID, 1)
		f.Hit("SELECT name FROM users WHERE name = $1", "ann")

		_, got := f.DB.ExecContext(f.Ctx, "UPDATE users SET name = $1", 1, 2)
		_, want := f.Plain.ExecContext(f.Ctx, "UPDATE users SET name = $1", 1, 2)
		harness.SameError(f, got, want)
	})
}

type failingValuer struct{}

func (failingValuer) Value() (driver.Value, error) { return nil, errors.New("no value") }

// A context that has ended sends nothing, also where the cache has the answer.
func TestContextsThatHaveEnded(t *testing.T) {
	harness.Scenario(t, harness.Gated, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		ended, cancel := context.WithCancel(f.Ctx)
		cancel()
		late, cancel := context.WithDeadline(f.Ctx, time.Now().Add(-time.Second))
		defer cancel()
		for _, ctx := range []context.Context{ended, late} {
			for _, do := range []func(db *sql.DB) error{
				func(db *sql.DB) error { _, err := db.QueryContext(ctx, harness.UserByID, 1); return err },
				func(db *sql.DB) error { _, err := db.ExecContext(ctx, "UPDATE users SET name = 'x'"); return err },
				func(db *sql.DB) error { _, err := db.PrepareContext(ctx, harness.UserByID); return err },
				func(db *sql.DB) error { _, err := db.BeginTx(ctx, nil); return err },
				func(db *sql.DB) error { return db.PingContext(ctx) },
				func(db *sql.DB) error { _, err := db.Conn(ctx); return err },
			} {
				harness.SameError(f, do(f.DB), do(f.Plain))
			}
			// On a connection, where database/sql lets it through to the driver.
			for _, do := range []func(c *sql.Conn) error{
				func(c *sql.Conn) error { _, err := c.QueryContext(ctx, harness.UserByID, 1); return err },
				func(c *sql.Conn) error { _, err := c.QueryContext(ctx, harness.UserByID, 2); return err },
				func(c *sql.Conn) error { _, err := c.ExecContext(ctx, "UPDATE users SET name = 'x'"); return err },
				func(c *sql.Conn) error { _, err := c.BeginTx(ctx, nil); return err },
				func(c *sql.Conn) error { return c.PingContext(ctx) },
			} {
				var got [2]error
				for i, db := range []*sql.DB{f.DB, f.Plain} {
					conn := f.Conn(db)
					if err := conn.PingContext(f.Ctx); err != nil {
						f.Fatal(err)
					}
					conn.Close()
					conn = f.Conn(db) // the same, out of the pool
					got[i] = do(conn)
					conn.Close()
				}
				harness.SameError(f, got[0], got[1])
			}
		}
		if err := cachedpg.Invalidate(ended, f.DB); err == nil {
			f.Error("Invalidate with a context that has ended: no error")
		}
		f.Hit(harness.UserByID, 1)
		f.Fresh("TABLE users")

		// While PostgreSQL works.
		g := f.CloseGate()
		for _, do := range []func(ctx context.Context, db *sql.DB) error{
			func(ctx context.Context, db *sql.DB) error {
				_, err := db.QueryContext(ctx, harness.GatedByID, 1)
				return err
			},
			func(ctx context.Context, db *sql.DB) error {
				_, err := db.ExecContext(ctx, "UPDATE users SET name = gate(name) || '!' WHERE id = 1")
				return err
			},
		} {
			during := func(db *sql.DB) error {
				ctx, cancel := context.WithCancel(f.Ctx)
				done := make(chan error, 1)
				go func() { done <- do(ctx, db) }()
				g.Await(1)
				cancel()
				err := <-done
				g.Await(0)
				return err
			}
			got, want := during(f.DB), during(f.Plain)
			if !errors.Is(got, context.Canceled) || !errors.Is(want, context.Canceled) {
				f.Errorf("got %v, plain pgx's error is %v, want context.Canceled", got, want)
			}
		}
		g.Open()
		f.Until("the outcome", func() bool { return cachedpg.StatsOf(f.DB).Unresolved == 0 })
		f.Fresh(harness.GatedByID, 1).Is("ann")
		f.Known(harness.GatedByID, 1)
		f.Known(harness.UserByID, 1)
	})
}

// PostgreSQL ends the session while it is idle, and while it works.
func TestASessionThatPostgreSQLEnds(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		one := f.With("application_name=ended")
		one.DB.SetMaxOpenConns(1)
		one.Warm(harness.UserByID, 1)
		end := func() {
			f.Past("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'ended' AND datname = current_database()")
		}
		end()
		one.Hit(harness.UserByID, 1)
		f.Until("a new connection", func() bool { return one.Read(one.DB, harness.UserByID, []any{2}).Err == nil })
		one.Hit(harness.UserByID, 2)

		tx, err := one.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		one.On(tx).Exec("UPDATE users SET name = 'lost' WHERE id = 1")
		end()
		if err := tx.Commit(); err == nil {
			f.Error("COMMIT in a session that is no more succeeded")
		}
		f.Until("the outcome", func() bool { return cachedpg.StatsOf(one.DB).Unresolved == 0 })
		one.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		one.Known(harness.UserByID, 1)
		one.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		one.Miss(harness.UserByID, 1).Is("1 anna Oslo")
	})
}
