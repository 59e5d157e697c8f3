package core

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// placed is a fixture with a bounded number of connections to PostgreSQL, which are counted.
type placed struct {
	*harness.Fixture
	most     int
	database string
	mu       sync.Mutex // guards dialled
	dialled  []*pgx.Conn
}

func newPlaced(t *testing.T, most int, keys ...string) *placed {
	t.Helper()
	database := pgtest.Database(t)
	f := harness.New(t, database, "cache_statement", harness.People, keys...)
	p := &placed{Fixture: f, most: most, database: database}
	f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, append(keys, fmt.Sprint("cache_max_conns=", most), "cache_admission=all")))
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	d := dbOf(f.DB)
	connect := d.connect
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		in, err := connect(ctx, b)
		if err == nil && b.holder != nil { // else it is one of the driver's own
			p.counts(in.(*backend.Pgx).PgxConn())
		}
		return in, err
	}
	if len(keys) > 0 {
		f.Live(f.DB)
	}
	return p
}

// counts fails the test if there are more connections than there may be.
func (p *placed) counts(conn *pgx.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialled = append(p.dialled, conn)
	open := 0
	for _, c := range p.dialled {
		select {
		case <-c.PgConn().CleanupDone():
		default:
			open++
		}
	}
	if open > p.most {
		p.Errorf("%d connections to PostgreSQL, want at most %d", open, p.most)
	}
}

func (p *placed) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dialled)
}

// holdAll takes every place, and returns what gives them back.
func (p *placed) holdAll() (leave func()) {
	p.Helper()
	var held []*sql.Tx
	for range p.most {
		tx, err := p.DB.BeginTx(p.Ctx, nil)
		if err != nil {
			p.Fatal(err)
		}
		held = append(held, tx)
	}
	return func() {
		for _, tx := range held {
			if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
				p.Error(err)
			}
		}
	}
}

// waiting returns when so many wait for a place.
func (p *placed) waiting(n int) {
	p.Helper()
	p.Until(fmt.Sprint(n, " wait"), func() bool { return statsOf(p.DB).Places.Waiting == n })
}

// free returns when nobody holds a place.
func (p *placed) free() {
	p.Helper()
	p.Until("the places back", func() bool { return statsOf(p.DB).Places.InUse == 0 })
}

// aside runs f in a goroutine.
func aside(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func (p *placed) nameOf(x interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, ctx context.Context, id int) (name string, err error) {
	err = x.QueryRowContext(ctx, nameByID, id).Scan(&name)
	return name, err
}

func TestHitsNeedNoPlace(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		p := newPlaced(t, 2, keys...)
		p.Known(nameByID, 1)
		stmt, err := p.DB.PrepareContext(p.Ctx, nameByID)
		if err != nil {
			t.Fatal(err)
		}
		defer stmt.Close()
		leave := p.holdAll()
		defer leave()
		miss := aside(func() error {
			_, err := p.nameOf(p.DB, p.Ctx, 2)
			return err
		})
		p.waiting(1)
		before := statsOf(p.DB).Hits
		var hits sync.WaitGroup
		for range 64 {
			hits.Go(func() {
				for _, ask := range []func() (string, error){
					func() (string, error) { return p.nameOf(p.DB, p.Ctx, 1) },
					func() (name string, err error) {
						err = stmt.QueryRowContext(p.Ctx, 1).Scan(&name)
						return name, err
					},
				} {
					if name, err := ask(); name != "ann" || err != nil {
						t.Errorf("%q, %v", name, err)
					}
				}
			})
		}
		hits.Wait()
		if got := statsOf(p.DB).Hits - before; got != 128 {
			t.Errorf("%d hits, want 128", got)
		}
		if s := statsOf(p.DB).Places; s.Waiting != 1 || s.InUse != 2 || s.Waits != 1 {
			t.Errorf("%+v, want one that waits still", s)
		}
		leave()
		if err := <-miss; err != nil {
			t.Error(err)
		}
		p.free()
	})
}

// After a DDL nobody knows what a new connection would be like. One that there is tells.
func TestHitsNeedNoPlaceAfterADDL(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	p.holdAll()() // no other is dialled after it
	p.Known(nameByID, 1)
	p.Exec("CREATE TABLE another (id int)")
	p.Known(nameByID, 1)
	defer p.holdAll()()
	p.Hit(nameByID, 1)
}

func TestWhoComesFirstIsServedFirst(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	p.Past("CREATE TABLE served (at serial, who int)")
	p.Exec("INSERT INTO users VALUES (7, 'gil')") // whatever there is to learn is known
	leave := p.holdAll()
	const n = 8
	var all []<-chan error
	for i := range n {
		all = append(all, aside(func() error {
			_, err := p.DB.ExecContext(p.Ctx, "INSERT INTO served (who) VALUES ($1)", i)
			return err
		}))
		p.waiting(i + 1)
	}
	leave()
	for _, done := range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	p.Fresh("SELECT string_agg(who::text, ' ' ORDER BY at) FROM served").Is("0 1 2 3 4 5 6 7")
	if d := p.dials(); d != 1 {
		t.Errorf("%d connections were dialled, want 1", d)
	}
}

func TestAContextThatEndsInTheQueueTakesNoPlaceAlong(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	leave := p.holdAll()
	ctx, cancel := context.WithCancel(p.Ctx)
	impatient := aside(func() error {
		_, err := p.nameOf(p.DB, ctx, 1)
		return err
	})
	p.waiting(1)
	patient := aside(func() error {
		_, err := p.nameOf(p.DB, p.Ctx, 2)
		return err
	})
	p.waiting(2)
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was called off", err)
	}
	p.waiting(1)
	leave()
	if err := <-patient; err != nil {
		t.Error(err)
	}
	p.free()
}

// idleInner is a connection that nobody asks anything.
type idleInner struct{ backend.Conn }

func (*idleInner) Closed() bool { return false }
func (*idleInner) Close() error { return nil }

// Who is served and called off at once hands on what it has got.
func TestNoPlaceIsLostBetweenServiceAndHaste(t *testing.T) {
	t.Parallel()
	d, err := newDB(config.Config{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := d.places
	type taken struct {
		b   *link
		err error
	}
	late := 0
	for late < 20 { // else it was served before it noticed
		b, _, err := p.take(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			b = &link{inner: &idleInner{}, until: time.Now().Add(time.Hour)}
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan taken, 1)
		go func() {
			b, _, err := p.take(ctx)
			done <- taken{b, err}
		}()
		for p.stats().Waiting == 0 {
			runtime.Gosched()
		}
		p.mu.Lock()
		cancel()
		p.serveLocked(b)
		p.mu.Unlock()
		if got := <-done; got.err == nil {
			p.give(got.b)
		} else {
			late++
		}
		if s := p.stats(); s.InUse != 0 || s.Waiting != 0 || s.Free != 1 {
			t.Fatalf("%+v, want one that is free", s)
		}
	}
	p.closeFree(true)
	if s := p.stats(); s.InUse != 0 || s.Free != 0 {
		t.Errorf("%+v, want nothing", s)
	}
}

// The one who leads waits for a place, and who has it must not wait for that one.
func TestWhoHasAPlaceFollowsNobodyWhoWaitsForIt(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	p.Known(nameByID, 1)
	conn := p.Conn(p.DB)
	if _, err := conn.ExecContext(p.Ctx, "UPDATE users SET city = 'Bergen' WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	leads := aside(func() error {
		name, err := p.nameOf(p.DB, p.Ctx, 2)
		if err == nil && name != "bob" {
			err = errors.New(name)
		}
		return err
	})
	p.waiting(1)
	before := statsOf(p.DB)
	if name, err := p.nameOf(conn, p.Ctx, 2); name != "bob" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-leads; err != nil {
		t.Error(err)
	}
	if got := statsOf(p.DB).Fills - before.Fills; got != 1 {
		t.Errorf("%d SELECTs, want that who waited looks again", got)
	}
}

func TestClosingTheDBServesWhoWaits(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	leave := p.holdAll()
	waits := aside(func() error {
		_, err := p.DB.ExecContext(p.Ctx, "UPDATE users SET city = 'Oslo' WHERE id = 1")
		return err
	})
	p.waiting(1)
	if err := p.DB.Close(); err != nil {
		t.Error(err)
	}
	leave()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	p.Until("the end of all connections", func() bool {
		s := statsOf(p.DB).Places
		return s.InUse == 0 && s.Free == 0
	})
}

func TestWhatDatabaseSQLClosesIsNotDialledAgain(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	p.DB.SetMaxIdleConns(-1) // which is none
	for range 10 {
		p.Exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
		tx, err := p.DB.BeginTx(p.Ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Commit(tx)
	}
	p.free()
	if d := p.dials(); d != 1 {
		t.Errorf("%d connections were dialled, want 1", d)
	}
}

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

// Everything at once, with fewer places than goroutines: all come to an end, nobody sees what is another's, and never
// are there more connections than places.
func TestManyGoroutinesGetOnWithFewPlaces(t *testing.T) {
	for _, most := range []int{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			p := newPlaced(t, most)
			stmt, err := p.DB.PrepareContext(p.Ctx, nameByID)
			if err != nil {
				t.Fatal(err)
			}
			defer stmt.Close()
			does := []func(i int) error{
				func(i int) error { // hits and misses
					_, err := p.nameOf(p.DB, p.Ctx, i%3+1)
					return err
				},
				func(i int) error {
					var name string
					return stmt.QueryRowContext(p.Ctx, i%3+1).Scan(&name)
				},
				func(i int) error {
					_, err := p.DB.ExecContext(p.Ctx, "UPDATE users SET city = $2 WHERE id = $1", i%3+1, fmt.Sprint(i))
					return err
				},
				func(i int) error {
					tx, err := p.DB.BeginTx(p.Ctx, nil)
					if err != nil {
						return err
					}
					_, err = p.nameOf(tx, p.Ctx, i%3+1)
					if err == nil {
						_, err = tx.ExecContext(p.Ctx, "UPDATE users SET city = $2 WHERE id = $1", i%3+1, fmt.Sprint(i))
					}
					if err != nil || i%2 == 0 {
						return errors.Join(err, tx.Rollback())
					}
					return tx.Commit()
				},
				func(i int) error {
					conn, err := p.DB.Conn(p.Ctx)
					if err != nil {
						return err
					}
					defer conn.Close()
					_, before := p.nameOf(conn, p.Ctx, i%3+1)
					return errors.Join(before, handedOut(p.Ctx, conn, func(c *pgx.Conn) error {
						var one int
						return c.QueryRow(p.Ctx, "SELECT 1").Scan(&one)
					}))
				},
				func(i int) error {
					conn, err := p.DB.Conn(p.Ctx)
					if err != nil {
						return err
					}
					defer conn.Close()
					mine := fmt.Sprint(i)
					if _, err := conn.ExecContext(p.Ctx, "SET app.tenant = '"+mine+"'"); err != nil {
						return err
					}
					var got string
					err = conn.QueryRowContext(p.Ctx, "SELECT current_setting('app.tenant')").Scan(&got)
					if err == nil && got != mine {
						err = fmt.Errorf("another's setting: %s, want %s", got, mine)
					}
					return err
				},
				func(i int) error { // called off
					ctx, cancel := context.WithCancel(p.Ctx)
					go cancel()
					if _, err := p.nameOf(p.DB, ctx, i%3+1); err != nil && ctx.Err() == nil {
						return err
					}
					return nil
				},
				func(i int) error {
					rows, err := p.DB.QueryContext(p.Ctx, "SELECT id FROM users FOR SHARE")
					if err != nil {
						return err
					}
					rows.Next()
					return rows.Close()
				},
			}
			var all sync.WaitGroup
			for g := range 64 {
				all.Go(func() {
					for i := range 3 * len(does) {
						if err := does[(g+i)%len(does)](g + i); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			p.Until("nothing in use but what is kept", func() bool {
				s := statsOf(p.DB).Places
				d := dbOf(p.DB).places
				d.mu.Lock()
				defer d.mu.Unlock()
				return s.InUse == len(d.parked) && s.Waiting == 0
			})
			if s := statsOf(p.DB).Places; s.Waits == 0 || s.Waited == 0 {
				t.Errorf("%+v, want that somebody had to wait", s)
			}
		})
	}
}

func TestFreeBackendsAreClosedInTheEnd(t *testing.T) {
	t.Parallel()
	d, err := newDB(config.Config{MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	p, now := d.places, time.Now()
	old := &link{inner: &idleInner{}, until: now.Add(-1)}
	if _, _, err := p.take(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p.give(old); !old.gone.Load() {
		t.Error("what has lasted long enough is kept")
	}
	first, second := &link{inner: &idleInner{}, until: now.Add(time.Hour)}, &link{inner: &idleInner{}, until: now.Add(time.Hour)}
	for _, b := range []*link{first, second} {
		p.mu.Lock()
		p.taken++
		p.mu.Unlock()
		p.give(b)
	}
	p.mu.Lock()
	first.freed = now.Add(-backendIdle)
	p.mu.Unlock()
	p.closeIdle()
	if got := []bool{first.gone.Load(), second.gone.Load()}; !slices.Equal(got, []bool{true, false}) {
		t.Errorf("closed: %v, want the first alone", got)
	}
	p.closeFree(true)
	if !second.gone.Load() {
		t.Error("the end leaves one open")
	}
}
