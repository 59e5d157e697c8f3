//go:build unix

package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/child"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// A database that moves from server to server, and those who follow it.

const (
	placesTable = "CREATE TABLE places (id int PRIMARY KEY, name text NOT NULL)"
	placesRow   = "INSERT INTO places VALUES (1, 'first')"
	placeByID   = "SELECT name FROM places WHERE id = $1"
	movePlace   = "UPDATE places SET name = $2 WHERE id = $1"
)

// travel is a story of servers, in memory and with a Redis.
type travel struct {
	*testing.T
	ctx  context.Context
	keys []string // of the driver
}

// travels tells a story with each store.
func travels(t *testing.T, story func(w *travel)) {
	t.Helper()
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := newTravel(t)
			if store == "redis" {
				w.keys = []string{"cache_store=" + redistest.Start(t).URL()}
			}
			story(w)
		})
	}
}

func newTravel(t *testing.T) *travel {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return &travel{T: t, ctx: ctx}
}

func (w *travel) server() *pgtest.Server {
	w.Helper()
	s := pgtest.StartServer(w.T)
	s.Exec(placesTable, placesRow)
	return s
}

func (w *travel) shared() bool { return len(w.keys) > 0 }

// open returns a DB; with a Redis it is a process of its own.
func (w *travel) open(name, dsn string) *visitor {
	w.Helper()
	c, err := (&Driver{}).OpenConnector(harness.WithKeys(dsn, w.keys))
	if err != nil {
		w.Fatal(err)
	}
	process := w.Name()
	if w.shared() {
		process += name
	}
	inside.Process(c, process)
	db := sql.OpenDB(c)
	w.Cleanup(func() { db.Close() })
	return &visitor{w: w, name: name, db: db, ask: db}
}

// visitor asks a DB, or one of its connections.
type visitor struct {
	w    *travel
	name string
	db   *sql.DB
	ask  harness.Asker
}

// conn returns one that asks a connection of its own.
func (v *visitor) conn() *visitor {
	v.w.Helper()
	conn, err := v.db.Conn(v.w.ctx)
	if err != nil {
		v.w.Fatal(err)
	}
	v.w.Cleanup(func() { conn.Close() })
	own := *v
	own.ask = conn
	return &own
}

func (v *visitor) get() (string, error) {
	rows, err := v.ask.QueryContext(v.w.ctx, placeByID, 1)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var name string
	for rows.Next() {
		if err := rows.Scan(&name); err != nil {
			return "", err
		}
	}
	return name, rows.Err()
}

// sees: whatever the driver does, this is the value.
func (v *visitor) sees(want string) {
	v.w.Helper()
	if got, err := v.get(); err != nil || got != want {
		v.w.Errorf("%s reads %q, %v, want %q", v.name, got, err, want)
	}
}

// hits returns when a read was a hit, and says if one was of another value.
func (v *visitor) hits(want string) {
	v.w.Helper()
	for {
		before := StatsOf(v.db).Hits
		v.sees(want)
		if StatsOf(v.db).Hits > before || v.w.Failed() {
			return
		}
		if sleep(v.w.ctx, time.Millisecond) != nil {
			v.w.Fatalf("%s has no hit: %+v", v.name, StatsOf(v.db).Bypasses)
		}
	}
}

func (v *visitor) moves(to string) {
	v.w.Helper()
	if _, err := v.ask.ExecContext(v.w.ctx, movePlace, 1, to); err != nil {
		v.w.Fatalf("%s: %v", v.name, err)
	}
}

// journeys are all ways in which a connection can write.
var journeys = []struct {
	name  string
	write func(ctx context.Context, conn *sql.Conn, to string) error
}{
	{"autocommit", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, movePlace, 1, to)
		return err
	}},
	{"literal", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, "UPDATE places SET name = '"+to+"'")
		return err
	}},
	{"returning", func(ctx context.Context, conn *sql.Conn, to string) error {
		return conn.QueryRowContext(ctx, movePlace+" RETURNING name", 1, to).Scan(&to)
	}},
	{"transaction", func(ctx context.Context, conn *sql.Conn, to string) error {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, movePlace, 1, to); err != nil {
			return err
		}
		return tx.Commit()
	}},
	{"commands", func(ctx context.Context, conn *sql.Conn, to string) error {
		for _, text := range []string{"BEGIN", "UPDATE places SET name = '" + to + "'", "COMMIT"} {
			if _, err := conn.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return nil
	}},
	{"many in one text", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, "BEGIN; UPDATE places SET name = '"+to+"'; COMMIT")
		return err
	}},
	{"code", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, "DO $$ BEGIN EXECUTE 'UPDATE places SET name = ''"+to+"'''; END $$")
		return err
	}},
	{"prepared", func(ctx context.Context, conn *sql.Conn, to string) error {
		stmt, err := conn.PrepareContext(ctx, movePlace)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, 1, to)
		return err
	}},
}

// I17. A connection that was dialled to a standby writes when that is promoted.
func TestAStandbyThatIsPromotedInvalidates(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		both := primary.DSNAt(standby.Addr() + "," + primary.Addr())
		reader := w.open("reader", harness.WithKey(both, "target_session_attrs", "read-write"))
		reader.hits("first")
		writer := w.open("writer", both)
		conns := make([]*visitor, len(journeys))
		for i := range journeys {
			conns[i] = writer.conn()
			conns[i].sees("first")
		}
		primary.Stop()
		standby.Promote()
		reader.hits("first")
		for i, way := range journeys {
			to := fmt.Sprint(i, " by ", way.name)
			if err := way.write(w.ctx, conns[i].ask.(*sql.Conn), to); err != nil {
				t.Fatal(way.name, err)
			}
			reader.sees(to)
			reader.hits(to)
			conns[i].hits(to)
		}
	})
}

// Who has written nothing on it hears of the promotion too.
func TestReadsOfAStandbyThatIsPromotedAreCached(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		v := w.open("reader", standby.DSN()).conn()
		v.sees("first")
		if n := StatsOf(v.db).Bypasses["hot-standby"]; n != 1 {
			t.Errorf("%+v", StatsOf(v.db).Bypasses)
		}
		standby.Promote()
		v.hits("first")
	})
}

// switchover leads a pooler from one server to its standby, as administrators do.
func (w *travel) switchover(pooler *pgtest.Bouncer, from, to *pgtest.Server) {
	w.Helper()
	pooler.Pause()
	from.Await(to)
	to.Promote()
	pooler.Repoint(to.DSN())
	pooler.Resume()
}

func (w *travel) pooled(dsn string) *pgtest.Bouncer {
	w.Helper()
	return pgtest.StartBouncer(w.T, dsn, "transaction")
}

func through(pooler *pgtest.Bouncer) string {
	return harness.WithKey(pooler.DSN(), "default_query_exec_mode", "exec")
}

// I17, I19. A pooler leads the connections that it has to another server.
func TestASwitchoverBehindAPoolerLeavesNobodyBehind(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		pooler := w.pooled(primary.DSN())
		var all []*visitor
		for _, name := range []string{"one", "two"} {
			v := w.open(name, through(pooler))
			all = append(all, v, v.conn(), v.conn(), v.conn())
		}
		for _, v := range all {
			v.hits("first")
		}
		w.switchover(pooler, primary, standby)
		for round := range 3 {
			for i, way := range journeys {
				writer := all[1+(round+i)%3+4*(i%2)]
				to := fmt.Sprint(round, i, " by ", way.name)
				if err := way.write(w.ctx, writer.ask.(*sql.Conn), to); err != nil {
					t.Fatal(way.name, err)
				}
				for _, v := range all {
					v.sees(to)
				}
				if round == 2 {
					for _, v := range all {
						v.hits(to)
					}
				}
			}
		}
	})
}

// What the primary had committed and the standby had not got is not answered any
// more once anybody has found the new server.
func TestACommitThatAPromotionHasLostIsForgotten(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		pooler := w.pooled(primary.DSN())
		one, two := w.open("one", through(pooler)), w.open("two", through(pooler))
		conns := []*visitor{one.conn(), one.conn(), two.conn(), two.conn()}
		standby.Exec("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
		child.Until(t, "the standby hears nothing any more", func() error {
			if n := standby.Query("SELECT count(*)::text FROM pg_stat_wal_receiver"); n != "0" {
				return errors.New(n)
			}
			return nil
		})
		conns[0].moves("lost")
		for _, v := range conns {
			v.hits("lost")
		}
		pooler.Pause()
		primary.Crash()
		standby.Promote()
		pooler.Repoint(standby.DSN())
		pooler.Resume()
		if _, err := conns[1].ask.ExecContext(w.ctx, "INSERT INTO places VALUES (2, 'elsewhere')"); err != nil {
			t.Fatal(err)
		}
		for _, v := range conns {
			v.sees("first")
			v.hits("first")
		}
	})
}

// A connection that lies in the pool knows nothing of the failover.
func TestAnIdleConnectionDoesNotAnswerForAServerThatWasReplaced(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		dsn := harness.WithKey(primary.DSNAt(primary.Addr()+","+standby.Addr()), "target_session_attrs", "read-write")
		one, two := w.open("one", dsn), w.open("two", dsn)
		idle := []*visitor{one, two}
		for _, v := range idle {
			// All of them lie in the pool, dialled, when the server goes.
			for _, c := range []*visitor{v.conn(), v.conn(), v.conn()} {
				c.hits("first")
				c.ask.(*sql.Conn).Close()
			}
			v.db.SetMaxIdleConns(5)
		}
		primary.Stop()
		standby.Promote()
		writer := w.open("one", dsn)
		writer.moves("second")
		for _, v := range append(idle, idle...) {
			v.sees("second")
			v.hits("second")
		}
		two.moves("third")
		for _, v := range append(idle, writer) {
			v.sees("third")
			v.hits("third")
		}
	})
}

// A connection that is still to the server that was replaced is not used for what the new one has.
func TestAServerThatWasReplacedAndIsAliveIsLeft(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		config, err := pgx.ParseConfig(primary.DSN())
		if err != nil {
			t.Fatal(err)
		}
		var promoted atomic.Bool
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if promoted.Load() {
				addr = standby.Addr()
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		c, err := NewConnector(*config, w.config())
		if err != nil {
			t.Fatal(err)
		}
		inside.Process(c, w.Name())
		db := sql.OpenDB(c)
		t.Cleanup(func() { db.Close() })
		v := &visitor{w: w, name: "one", db: db, ask: db}
		held := v.conn()
		held.hits("first")
		standby.Promote()
		promoted.Store(true)
		v.conn().moves("second")
		held.ask.(*sql.Conn).Close() // back in the pool
		for range 5 {
			v.sees("second")
		}
		v.hits("second")
	})
}

// A name may be given to another database of the same server.
func TestTwoDatabasesThatChangeTheirNames(t *testing.T) {
	travels(t, func(w *travel) {
		server := pgtest.StartServer(t)
		server.Exec("CREATE DATABASE app", "CREATE DATABASE next")
		at := func(name string) string { return strings.Replace(server.DSN(), "/postgres?", "/"+name+"?", 1) }
		for _, name := range []string{"app", "next"} {
			pgtest.Exec(t, at(name), placesTable+"; INSERT INTO places VALUES (1, '"+name+"')")
		}
		pooler := w.pooled(at("app"))
		app, other := w.open("one", through(pooler)), w.open("two", through(pooler))
		next := w.open("three", strings.Replace(through(pooler), "/app?", "/next?", 1))
		idle := app.conn()
		for _, v := range []*visitor{app, other, idle} {
			v.hits("app")
		}
		next.hits("next")
		pooler.Pause()
		server.Exec("ALTER DATABASE app RENAME TO old", "ALTER DATABASE next RENAME TO app", "ALTER DATABASE old RENAME TO next")
		pooler.Resume()
		other.moves("app 2")
		for _, v := range []*visitor{app, other, idle} {
			v.sees("app 2")
			v.hits("app 2")
		}
		late := w.open("four", through(pooler)) // knows nothing of the names of before
		for n := range 2 {
			late.hits(fmt.Sprint("app ", n+2))
			to := fmt.Sprint("app ", n+3)
			late.moves(to)
			for _, v := range []*visitor{app, other, idle} {
				v.sees(to)
			}
		}
		next.moves("next 2")
		next.hits("next 2")
		idle.hits("app 4")
	})
}

// Two servers with one system identifier and one timeline are two databases.
func TestCloneAndOriginalDoNotAnswerForEachOther(t *testing.T) {
	travels(t, func(w *travel) {
		production := w.server()
		staging := production.Clone()
		staging.Exec("UPDATE places SET name = 'staging'")
		p, s := w.open("one", production.DSN()), w.open("two", staging.DSN())
		conn := p.conn()
		for round := range 3 {
			p.hits([]string{"first", "p0", "p1"}[round])
			s.hits([]string{"staging", "s0", "s1"}[round])
			for range 3 { // and they stay
				before := StatsOf(p.db).Hits
				conn.sees([]string{"first", "p0", "p1"}[round])
				s.sees([]string{"staging", "s0", "s1"}[round])
				if StatsOf(p.db).Hits == before && round > 0 {
					t.Errorf("round %d: no hit beside a clone: %+v", round, StatsOf(p.db).Bypasses)
				}
			}
			p.moves(fmt.Sprint("p", round))
			s.moves(fmt.Sprint("s", round))
		}
	})
}

// A restart is a new life: what was cached before is not found.
func TestARestartBeginsCold(t *testing.T) {
	travels(t, func(w *travel) {
		server := w.server()
		v := w.open("one", server.DSN())
		v.hits("first")
		server.Stop()
		if !w.shared() {
			v.hits("first") // nobody has seen anything newer
		}
		server.Start()
		server.Exec("UPDATE places SET name = 'meanwhile'")
		v.db.SetMaxIdleConns(0)
		if err := v.db.PingContext(w.ctx); err != nil {
			t.Fatal(err)
		}
		v.sees("meanwhile")
		v.hits("meanwhile")
	})
}

// One DB may reach several servers on purpose.
func TestShardsBehindOneConnectorAreCachedBesideEachOther(t *testing.T) {
	travels(t, func(w *travel) {
		for _, related := range []bool{true, false} {
			one := w.server()
			two := one.Clone()
			if !related {
				two = w.server()
			}
			two.Exec("UPDATE places SET name = 'other'")
			var turn atomic.Int32
			sharded, err := WrapConnector(shards{&turn, []driver.Connector{w.pgx(one.DSN()), w.pgx(two.DSN())}}, w.config())
			if err != nil {
				t.Fatal(err)
			}
			inside.Process(sharded, fmt.Sprint(w.Name(), related))
			db := sql.OpenDB(sharded)
			t.Cleanup(func() { db.Close() })
			v := &visitor{w: w, name: "shards", db: db, ask: db}
			a := v.conn()
			turn.Store(1)
			b := v.conn()
			for i := range 3 {
				a.hits([]string{"first", "a0", "a1"}[i])
				b.hits([]string{"other", "b0", "b1"}[i])
				before := StatsOf(db).Hits
				a.sees([]string{"first", "a0", "a1"}[i])
				b.sees([]string{"other", "b0", "b1"}[i])
				if got := StatsOf(db).Hits - before; got != 2 && i > 0 {
					t.Errorf("related %t: %d of 2 reads are hits", related, got)
				}
				a.moves(fmt.Sprint("a", i))
				b.moves(fmt.Sprint("b", i))
			}
		}
	})
}

// shards dials one of several servers.
type shards struct {
	turn *atomic.Int32
	all  []driver.Connector
}

func (s shards) Connect(ctx context.Context) (driver.Conn, error) {
	return s.all[s.turn.Load()].Connect(ctx)
}

func (s shards) Driver() driver.Driver { return s.all[0].Driver() }

func (w *travel) pgx(dsn string) driver.Connector {
	w.Helper()
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		w.Fatal(err)
	}
	return stdlib.GetConnector(*c)
}

func (w *travel) config() Config {
	w.Helper()
	_, config, err := ParseConfig(harness.WithKeys("postgres://localhost/x", w.keys))
	if err != nil {
		w.Fatal(err)
	}
	return config
}
