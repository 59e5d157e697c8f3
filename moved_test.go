//go:build unix

package cachedpg

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

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
	c, err := (&Driver{}).OpenConnector(withKeys(dsn, w.keys))
	if err != nil {
		w.Fatal(err)
	}
	c.(*connector).process = w.Name()
	if w.shared() {
		c.(*connector).process += name
	}
	db := sql.OpenDB(c)
	w.Cleanup(func() { db.Close() })
	return &visitor{w: w, name: name, db: db, ask: db}
}

// visitor asks a DB, or one of its connections.
type visitor struct {
	w    *travel
	name string
	db   *sql.DB
	ask  asker
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

// A connection that was dialled to a standby writes when that is promoted.
func TestAStandbyThatIsPromotedInvalidates(t *testing.T) {
	travels(t, func(w *travel) {
		primary := w.server()
		standby := primary.Standby()
		primary.Await(standby)
		both := primary.DSNAt(standby.Addr() + "," + primary.Addr())
		reader := w.open("reader", withKey(both, "target_session_attrs", "read-write"))
		reader.hits("first")
		writer := w.open("writer", both)
		conns := make([]*visitor, len(journeys))
		for i := range journeys {
			conns[i] = writer.conn()
			conns[i].sees("first")
		}
		open := writer.conn().ask.(*sql.Conn) // in a transaction since before
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
		_ = open
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
	return withKey(pooler.DSN(), "default_query_exec_mode", "exec")
}

// A pooler leads the connections that it has to another server.
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
