package core

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

func pidOf(ctx context.Context, x interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (pid int, err error) {
	err = x.QueryRowContext(WithBypass(ctx), "SELECT pg_backend_pid()").Scan(&pid)
	return pid, err
}

func TestATransactionAndAConnectionKeepTheirBackend(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 3)
	tx, err := p.DB.BeginTx(p.Ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	conn := p.Conn(p.DB)
	ofTx, err := pidOf(p.Ctx, tx)
	ofConn, errConn := pidOf(p.Ctx, conn)
	if err := errors.Join(err, errConn); err != nil || ofTx == ofConn {
		t.Fatal(ofTx, ofConn, err)
	}
	for range 5 {
		p.Exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
		other, err := pidOf(p.Ctx, p.DB)
		if err != nil || other == ofTx || other == ofConn {
			t.Errorf("another query ran on %d, %v", other, err)
		}
		if pid, err := pidOf(p.Ctx, tx); err != nil || pid != ofTx {
			t.Errorf("the transaction is on %d, %v, and was on %d", pid, err, ofTx)
		}
		if pid, err := pidOf(p.Ctx, conn); err != nil || pid != ofConn {
			t.Errorf("the connection is on %d, %v, and was on %d", pid, err, ofConn)
		}
	}
}

func TestStateOfASessionReachesNobodyElse(t *testing.T) {
	exec := func(text string) func(p *placed, conn *sql.Conn) error {
		return func(p *placed, conn *sql.Conn) error {
			_, err := conn.ExecContext(p.Ctx, text)
			return err
		}
	}
	const listens, plans = "SELECT count(*) FROM pg_listening_channels()", "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'"
	const locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 4711"
	const temporary = "SELECT count(*) FROM pg_class WHERE relname = 'mine' AND relnamespace = pg_my_temp_schema()"
	for name, test := range map[string]struct {
		does  func(p *placed, conn *sql.Conn) error
		shows string // what it has done
		want  string // to others
	}{
		"a setting in keys":     {exec("SET search_path = pg_catalog"), "SHOW search_path", "cache_statement"},
		"a setting of its own":  {exec("SET app.tenant = 'mine'"), "SELECT coalesce(current_setting('app.tenant', true), '')", ""},
		"by a function":         {exec("SELECT set_config('app.tenant', 'mine', false)"), "SELECT coalesce(current_setting('app.tenant', true), '')", ""},
		"a channel":             {exec("LISTEN mine"), listens, "0"},
		"a prepared statement":  {exec("PREPARE mine AS SELECT 1"), plans, "0"},
		"a lock":                {exec("SELECT pg_advisory_lock(4711)"), locks, "0"},
		"a lock that was tried": {exec("SELECT pg_try_advisory_lock_shared(4711)"), locks, "0"},
		"a table":               {exec("CREATE TEMP TABLE mine (id int)"), temporary, "0"},
		"a table of a query":    {exec("SELECT 1 AS id INTO TEMPORARY mine"), temporary, "0"},
		"code":                  {exec("DO $$ BEGIN PERFORM set_config('app.tenant', 'mine', false); END $$"), "SELECT coalesce(current_setting('app.tenant', true), '')", ""},
		"what Raw does": {func(p *placed, conn *sql.Conn) error {
			return handedOut(p.Ctx, conn, func(c *pgx.Conn) error {
				_, err := c.Prepare(p.Ctx, "mine", "SELECT 1")
				return err
			})
		}, plans, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlaced(t, 2)
			shown := func(conn *sql.Conn) (value string) {
				t.Helper()
				if err := conn.QueryRowContext(WithBypass(p.Ctx), test.shows).Scan(&value); err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(value, `"`, "")
			}
			other := p.Conn(p.DB)
			conn := p.Conn(p.DB)
			if _, err := pidOf(p.Ctx, other); err != nil { // so that its backend is there
				t.Fatal(err)
			}
			if err := test.does(p, conn); err != nil {
				t.Fatal(err)
			}
			if got := shown(conn); got == test.want {
				t.Fatalf("the connection itself is shown %q", got)
			}
			conn.Close()
			other.Close()
			var all []*sql.Conn
			for range p.most { // the last one has the parked backend closed
				conn := p.Conn(p.DB)
				if conn.Raw(func(c any) error {
					if connOf(c).placement.has() {
						return errors.New("it is its own") // database/sql has given it to the same one again
					}
					return nil
				}) == nil {
					all = append(all, conn)
				}
			}
			for _, conn := range all {
				if got := shown(conn); got != test.want {
					t.Errorf("another one is shown %q, want %q", got, test.want)
				}
			}
		})
	}
}

// What the end of a transaction undoes is no reason to keep a backend.
func TestSetLocalLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	for i := range 3 {
		tx, err := p.DB.BeginTx(p.Ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"SET LOCAL search_path = pg_catalog", "SET LOCAL app.tenant = 'mine'", "SELECT set_config('app.tenant', 'mine', true)",
			"SELECT pg_advisory_xact_lock(1)", "SELECT id FROM cache_statement.users WHERE id = 1 FOR UPDATE"} {
			if _, err := tx.ExecContext(p.Ctx, text); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			p.Commit(tx)
		} else {
			p.Rollback(tx)
		}
		p.Fresh("SHOW search_path")
		p.Fresh(nameByID, 1)
	}
	p.free()
	if d := p.dials(); d != 1 {
		t.Errorf("%d connections were dialled, want 1", d)
	}
}

// The Conn with state of its own goes on with a new backend if its own was needed.
func TestAParkedBackendIsClosedForWhoWaits(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	p.DB.SetMaxIdleConns(4)
	conn := p.Conn(p.DB)
	if _, err := conn.ExecContext(p.Ctx, "LISTEN mine"); err != nil {
		t.Fatal(err)
	}
	idle := p.Conn(p.DB) // takes no part
	conn.Close()
	if s := statsOf(p.DB).Places; s.InUse != 1 || s.Free != 0 {
		t.Errorf("%+v, want one that is kept", s)
	}
	for range 2 {
		if _, err := idle.ExecContext(p.Ctx, "UPDATE users SET city = 'Oslo' WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
	}
	idle.Close()
	for range 3 {
		p.Exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
	}
	if d := p.dials(); d != 2 {
		t.Errorf("%d connections were dialled, want 2", d)
	}
	p.free()
}

// A statement of the application is given up on every backend that it was prepared on.
func TestAStatementIsClosedWhereItWasPrepared(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	const query = "SELECT name FROM users WHERE id = $1 FOR UPDATE"
	stmt, err := p.DB.PrepareContext(p.Ctx, query)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		var rows []*sql.Rows
		for range p.most { // on each at once
			r, err := stmt.QueryContext(p.Ctx, 2)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, r)
		}
		for _, r := range rows {
			r.Close()
		}
	}
	if err := stmt.Close(); err != nil {
		t.Error(err)
	}
	for range p.most {
		conn := p.Conn(p.DB)
		var n int
		if err := conn.QueryRowContext(WithBypass(p.Ctx), "SELECT count(*) FROM pg_prepared_statements WHERE statement = $1", query).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d are left, %v", n, err)
		}
	}
}

// AfterConnect runs once for each connection, and what it sets is in the keys.
func TestAfterConnectRunsForEachBackend(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	parsed, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	pgxConfig := *parsed
	pgxConfig.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		ran++
		return conn.Exec(ctx, "SET TimeZone = 'Asia/Tokyo'").Close()
	}
	d, err := Open(pgxConfig, config.Config{MaxConns: 1, Admission: "all"})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(inside.Face(d))
	defer db.Close()
	p := &placed{Fixture: f, most: 1}
	f.DB, f.Via = db, harness.Via{F: f, DB: db, Ask: db, Truth: f.Plain}
	const zone = "SELECT timestamptz '2024-05-01 12:00Z'::text, name FROM users WHERE id = 1"
	var at, name string
	for range 3 {
		if err := db.QueryRowContext(f.Ctx, zone).Scan(&at, &name); err != nil || at != "2024-05-01 21:00:00+09" {
			t.Errorf("%q, %v", at, err)
		}
	}
	defer p.holdAll()()
	before := statsOf(db).Hits
	if err := db.QueryRowContext(f.Ctx, zone).Scan(&at, &name); err != nil || at != "2024-05-01 21:00:00+09" {
		t.Errorf("%q, %v", at, err)
	}
	if got := statsOf(db).Hits - before; got != 1 || ran == 0 {
		t.Errorf("%d hits while the place is taken, want 1; the hook ran %d times", got, ran)
	}
}

// Sessions that began before an ALTER ROLE differ from those after. A result is stored under the key of the one that it
// was read in, whichever a miss was looked up for.
func TestAResultIsOfTheSessionThatItWasReadIn(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	role := p.NewRole(p.database)
	p.Past("ALTER ROLE " + role + " SET TimeZone = 'UTC'")
	p.DB = p.Open("cachedpg", harness.WithKeys(harness.WithKey(p.DSN, "user", role), []string{"cache_max_conns=2", "cache_admission=all"}))
	p.Via = p.Asking(p.DB)
	const clock, query = "SHOW TimeZone", "SELECT timestamptz '2024-05-01 12:00Z'::text, name FROM users WHERE id = 1"
	p.Runs(keying.NotRead, clock) // begun with the old zone
	old := p.Conn(p.DB)
	if _, err := pidOf(p.Ctx, old); err != nil {
		t.Fatal(err)
	}
	p.Past("ALTER ROLE " + role + " SET TimeZone = 'Asia/Tokyo'")
	p.Until("the change is noticed", func() bool {
		dbOf(p.DB).space().DropView()
		var zone string
		if err := p.DB.QueryRowContext(p.Ctx, clock).Scan(&zone); err != nil {
			t.Fatal(err)
		}
		return zone == "Asia/Tokyo" && dbOf(p.DB).known.Load().current()
	})
	if err := old.Close(); err != nil { // on top of those that are free
		t.Fatal(err)
	}
	zones := func() (zones []string) {
		for _, ctx := range []context.Context{p.Ctx, p.Ctx} {
			var at, name string
			if err := p.DB.QueryRowContext(ctx, query).Scan(&at, &name); err != nil {
				t.Fatal(err)
			}
			zones = append(zones, at)
		}
		return zones
	}
	first := zones()
	leave := p.holdAll()
	defer leave()
	if got := zones(); got[0] != got[1] || got[0] != "2024-05-01 21:00:00+09" {
		t.Errorf("hits give %q, want what a new session gives; before that %q", got, first)
	}
}
