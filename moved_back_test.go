//go:build unix

package cachedpg

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// swapped is a server with two databases, of which one has the name that a pooler leads to.
type swapped struct {
	w      *travel
	server *pgtest.Server
	pooler *pgtest.Bouncer
}

func (w *travel) swapped() *swapped {
	w.Helper()
	server := pgtest.StartServer(w.T)
	server.Exec("CREATE DATABASE app", "CREATE DATABASE next")
	at := func(name string) string { return strings.Replace(server.DSN(), "/postgres?", "/"+name+"?", 1) }
	for _, name := range []string{"app", "next"} {
		pgtest.Exec(w.T, at(name), placesTable+"; INSERT INTO places VALUES (1, '"+name+"')")
	}
	return &swapped{w, server, w.pooled(at("app"))}
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
	travels(t, func(w *travel) {
		n := w.swapped()
		var all []*visitor
		for _, name := range []string{"one", "two", "three"} {
			all = append(all, w.open(name, through(n.pooler)))
		}
		for _, v := range all {
			v.hits("app")
		}
		for round := range 4 {
			n.swap()
			to := fmt.Sprint("after ", round)
			all[round%2].moves(to)
			for _, v := range all {
				v.sees(to)
				v.hits(to)
			}
		}
	})
}

// Who was idle while another database had the name goes on where it was.
func TestANameThatCameBackUnnoticed(t *testing.T) {
	travels(t, func(w *travel) {
		n := w.swapped()
		idle, other := w.open("one", through(n.pooler)).conn(), w.open("two", through(n.pooler))
		idle.hits("app")
		other.hits("app")
		n.swap()
		other.moves("next, written")
		other.hits("next, written")
		n.swap()
		idle.moves("app, written")
		other.sees("app, written")
		idle.sees("app, written")
		other.hits("app, written")
		idle.hits("app, written")
	})
}

// What the first connection to a promoted server writes past the driver is told to those who
// have not heard of the server.
func TestThePgxConnectionOfAStandbyThatIsPromotedInvalidates(t *testing.T) {
	for _, way := range []struct {
		name  string
		write func(w *travel, conn *pgx.Conn) error
	}{
		{"exec", func(w *travel, conn *pgx.Conn) error { _, err := conn.Exec(w.ctx, movePlace, 1, "second"); return err }},
		{"batch", func(w *travel, conn *pgx.Conn) error {
			b := &pgx.Batch{}
			b.Queue(movePlace, 1, "second")
			return conn.SendBatch(w.ctx, b).Close()
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			travels(t, func(w *travel) {
				primary := w.server()
				standby := primary.Standby()
				primary.Await(standby)
				both := primary.DSNAt(standby.Addr() + "," + primary.Addr())
				reader := w.open("reader", harness.WithKey(both, "target_session_attrs", "read-write"))
				reader.hits("first")
				writer := w.open("writer", both).conn()
				writer.sees("first")
				primary.Stop()
				standby.Promote()
				reader.sees("first")
				if err := PgxConn(w.ctx, writer.ask.(*sql.Conn), func(conn *pgx.Conn) error { return way.write(w, conn) }); err != nil {
					w.Fatal(err)
				}
				reader.sees("second")
				reader.hits("second")
			})
		})
	}
}

// A role to which PostgreSQL does not say which server it is gets what it gets from pgx.
func TestARoleThatMayNotAskForTheServerHasItsTransactions(t *testing.T) {
	travels(t, func(w *travel) {
		server := w.server()
		server.Exec("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", "CREATE ROLE app LOGIN", "GRANT ALL ON places TO app")
		v := w.open("one", harness.WithKey(server.DSN(), "user", "app")).conn()
		conn := v.ask.(*sql.Conn)
		if err := conn.PingContext(w.ctx); err != nil && !errors.Is(err, ErrWithheld) { // which tells the right that is missing
			w.Error(err)
		}
		for i, way := range journeys {
			v.sees([]string{"first", "second"}[min(i, 1)])
			if err := way.write(w.ctx, conn, "second"); err != nil {
				w.Error(way.name, err)
			}
		}
		tx, err := conn.BeginTx(w.ctx, nil)
		if err != nil {
			w.Fatal(err)
		}
		inside := *v
		inside.ask = tx
		inside.sees("second")
		if _, err := tx.ExecContext(w.ctx, "SET LOCAL work_mem = '4MB'"); err != nil {
			w.Error(err)
		}
		inside.sees("second")
		inside.moves("third")
		inside.sees("third")
		if err := tx.Commit(); err != nil {
			w.Error(err)
		}
		v.sees("third")
	})
}
