//go:build unix

package outages

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// swapped is a server with two databases, of which one has the name that a pooler leads to.
type swapped struct {
	w      *harness.Travel
	server *pgtest.Server
	pooler *pgtest.Bouncer
}

func newSwapped(w *harness.Travel) *swapped {
	w.Helper()
	server := pgtest.StartServer(w.T)
	server.Exec("CREATE DATABASE app", "CREATE DATABASE next")
	at := func(name string) string { return strings.Replace(server.DSN(), "/postgres?", "/"+name+"?", 1) }
	for _, name := range []string{"app", "next"} {
		pgtest.Exec(w.T, at(name), harness.PlacesTable+"; INSERT INTO places VALUES (1, '"+name+"')")
	}
	return &swapped{w, server, w.Pooled(at("app"))}
}

// swap gives each database the other's name.
func (n *swapped) swap() {
	n.w.Helper()
	n.pooler.Pause()
	n.server.Exec("ALTER DATABASE app RENAME TO old", "ALTER DATABASE next RENAME TO app", "ALTER DATABASE old RENAME TO next")
	n.pooler.Resume()
}

// A name that was given to another database is given back, again and again.
func TestANameThatGoesThereAndBack(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		n := newSwapped(w)
		var all []*harness.Visitor
		for _, name := range []string{"one", "two", "three"} {
			all = append(all, w.Open(name, harness.ThroughPooler(n.pooler)))
		}
		for _, v := range all {
			v.Hits("app")
		}
		for round := range 4 {
			n.swap()
			to := fmt.Sprint("after ", round)
			all[round%2].Moves(to)
			for _, v := range all {
				v.Sees(to)
				v.Hits(to)
			}
		}
	})
}

// Who was idle while another database had the name goes on where it was.
func TestANameThatCameBackUnnoticed(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		n := newSwapped(w)
		idle, other := w.Open("one", harness.ThroughPooler(n.pooler)).Conn(), w.Open("two", harness.ThroughPooler(n.pooler))
		idle.Hits("app")
		other.Hits("app")
		n.swap()
		other.Moves("next, written")
		other.Hits("next, written")
		n.swap()
		idle.Moves("app, written")
		other.Sees("app, written")
		idle.Sees("app, written")
		other.Hits("app, written")
		idle.Hits("app, written")
	})
}

// What the first connection to a promoted server writes past the driver is told to those who
// have not heard of the server.
func TestThePgxConnectionOfAStandbyThatIsPromotedInvalidates(t *testing.T) {
	for _, way := range []struct {
		name  string
		write func(w *harness.Travel, conn *pgx.Conn) error
	}{
		{"exec", func(w *harness.Travel, conn *pgx.Conn) error {
			_, err := conn.Exec(w.Ctx, harness.MovePlace, 1, "second")
			return err
		}},
		{"batch", func(w *harness.Travel, conn *pgx.Conn) error {
			b := &pgx.Batch{}
			b.Queue(harness.MovePlace, 1, "second")
			return conn.SendBatch(w.Ctx, b).Close()
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			harness.Travels(t, func(w *harness.Travel) {
				primary := w.Server()
				standby := primary.Standby()
				primary.Await(standby)
				both := primary.DSNAt(standby.Addr() + "," + primary.Addr())
				reader := w.Open("reader", harness.WithKey(both, "target_session_attrs", "read-write"))
				reader.Hits("first")
				writer := w.Open("writer", both).Conn()
				writer.Sees("first")
				primary.Stop()
				standby.Promote()
				reader.Sees("first")
				if err := cachedpg.PgxConn(w.Ctx, writer.Ask.(*sql.Conn), func(conn *pgx.Conn) error { return way.write(w, conn) }); err != nil {
					w.Fatal(err)
				}
				reader.Sees("second")
				reader.Hits("second")
			})
		})
	}
}

// A role to which PostgreSQL does not say which server it is gets what it gets from pgx.
func TestARoleThatMayNotAskForTheServerHasItsTransactions(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		server := w.Server()
		server.Exec("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", "CREATE ROLE app LOGIN", "GRANT ALL ON places TO app")
		v := w.Open("one", harness.WithKey(server.DSN(), "user", "app")).Conn()
		conn := v.Ask.(*sql.Conn)
		if err := conn.PingContext(w.Ctx); err != nil && !errors.Is(err, cachedpg.ErrWithheld) { // which tells the right that is missing
			w.Error(err)
		}
		for i, way := range journeys {
			v.Sees([]string{"first", "second"}[min(i, 1)])
			if err := way.write(w.Ctx, conn, "second"); err != nil {
				w.Error(way.name, err)
			}
		}
		tx, err := conn.BeginTx(w.Ctx, nil)
		if err != nil {
			w.Fatal(err)
		}
		inside := *v
		inside.Ask = tx
		inside.Sees("second")
		if _, err := tx.ExecContext(w.Ctx, "SET LOCAL work_mem = '4MB'"); err != nil {
			w.Error(err)
		}
		inside.Sees("second")
		inside.Moves("third")
		inside.Sees("third")
		if err := tx.Commit(); err != nil {
			w.Error(err)
		}
		v.Sees("third")
	})
}
