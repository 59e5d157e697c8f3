//go:build unix

package outages

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/child"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A database that moves from server to server, and those who follow it.

// journeys are all ways in which a connection can write.
var journeys = []struct {
	name  string
	write func(ctx context.Context, conn *sql.Conn, to string) error
}{
	{"autocommit", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, harness.MovePlace, 1, to)
		return err
	}},
	{"literal", func(ctx context.Context, conn *sql.Conn, to string) error {
		_, err := conn.ExecContext(ctx, "UPDATE places SET name = '"+to+"'")
		return err
	}},
	{"returning", func(ctx context.Context, conn *sql.Conn, to string) error {
		return conn.QueryRowContext(ctx, harness.MovePlace+" RETURNING name", 1, to).Scan(&to)
	}},
	{"transaction", func(ctx context.Context, conn *sql.Conn, to string) error {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, harness.MovePlace, 1, to); err != nil {
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
		stmt, err := conn.PrepareContext(ctx, harness.MovePlace)
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
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
		standby := primary.Standby()
		primary.Await(standby)
		both := primary.DSNAt(standby.Addr() + "," + primary.Addr())
		reader := w.Open("reader", harness.WithKey(both, "target_session_attrs", "read-write"))
		reader.Hits("first")
		writer := w.Open("writer", both)
		conns := make([]*harness.Visitor, len(journeys))
		for i := range journeys {
			conns[i] = writer.Conn()
			conns[i].Sees("first")
		}
		primary.Stop()
		standby.Promote()
		reader.Hits("first")
		for i, way := range journeys {
			to := fmt.Sprint(i, " by ", way.name)
			if err := way.write(w.Ctx, conns[i].Ask.(*sql.Conn), to); err != nil {
				t.Fatal(way.name, err)
			}
			reader.Sees(to)
			reader.Hits(to)
			conns[i].Hits(to)
		}
	})
}

// Who has written nothing on it hears of the promotion too.
func TestReadsOfAStandbyThatIsPromotedAreCached(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
		standby := primary.Standby()
		primary.Await(standby)
		v := w.Open("reader", standby.DSN()).Conn()
		v.Sees("first")
		if n := cachedpg.StatsOf(v.DB).Bypasses["hot-standby"]; n != 1 {
			t.Errorf("%+v", cachedpg.StatsOf(v.DB).Bypasses)
		}
		standby.Promote()
		v.Hits("first")
	})
}

// switchOver leads a pooler from one server to its standby, as administrators do.
func switchOver(w *harness.Travel, pooler *pgtest.Bouncer, from, to *pgtest.Server) {
	w.Helper()
	pooler.Pause()
	from.Await(to)
	to.Promote()
	pooler.Repoint(to.DSN())
	pooler.Resume()
}

// I17, I19. A pooler leads the connections that it has to another server.
func TestASwitchoverBehindAPoolerLeavesNobodyBehind(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
		standby := primary.Standby()
		pooler := w.Pooled(primary.DSN())
		var all []*harness.Visitor
		for _, name := range []string{"one", "two"} {
			v := w.Open(name, harness.ThroughPooler(pooler))
			all = append(all, v, v.Conn(), v.Conn(), v.Conn())
		}
		for _, v := range all {
			v.Hits("first")
		}
		switchOver(w, pooler, primary, standby)
		for round := range 3 {
			for i, way := range journeys {
				writer := all[1+(round+i)%3+4*(i%2)]
				to := fmt.Sprint(round, i, " by ", way.name)
				if err := way.write(w.Ctx, writer.Ask.(*sql.Conn), to); err != nil {
					t.Fatal(way.name, err)
				}
				for _, v := range all {
					v.Sees(to)
				}
				if round == 2 {
					for _, v := range all {
						v.Hits(to)
					}
				}
			}
		}
	})
}

// What the primary had committed and the standby had not got is not answered any
// more once anybody has found the new server.
func TestACommitThatAPromotionHasLostIsForgotten(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
		standby := primary.Standby()
		primary.Await(standby)
		pooler := w.Pooled(primary.DSN())
		one, two := w.Open("one", harness.ThroughPooler(pooler)), w.Open("two", harness.ThroughPooler(pooler))
		conns := []*harness.Visitor{one.Conn(), one.Conn(), two.Conn(), two.Conn()}
		standby.Exec("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
		child.Until(t, "the standby hears nothing any more", func() error {
			if n := standby.Query("SELECT count(*)::text FROM pg_stat_wal_receiver"); n != "0" {
				return errors.New(n)
			}
			return nil
		})
		conns[0].Moves("lost")
		for _, v := range conns {
			v.Hits("lost")
		}
		pooler.Pause()
		primary.Crash()
		standby.Promote()
		pooler.Repoint(standby.DSN())
		pooler.Resume()
		if _, err := conns[1].Ask.ExecContext(w.Ctx, "INSERT INTO places VALUES (2, 'elsewhere')"); err != nil {
			t.Fatal(err)
		}
		for _, v := range conns {
			v.Sees("first")
			v.Hits("first")
		}
	})
}

// A connection that lies in the pool knows nothing of the failover.
func TestAnIdleConnectionDoesNotAnswerForAServerThatWasReplaced(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
		standby := primary.Standby()
		primary.Await(standby)
		dsn := harness.WithKey(primary.DSNAt(primary.Addr()+","+standby.Addr()), "target_session_attrs", "read-write")
		one, two := w.Open("one", dsn), w.Open("two", dsn)
		idle := []*harness.Visitor{one, two}
		for _, v := range idle {
			// All of them lie in the pool, dialled, when the server goes.
			for _, c := range []*harness.Visitor{v.Conn(), v.Conn(), v.Conn()} {
				c.Hits("first")
				c.Ask.(*sql.Conn).Close()
			}
			v.DB.SetMaxIdleConns(5)
		}
		primary.Stop()
		standby.Promote()
		writer := w.Open("one", dsn)
		writer.Moves("second")
		for _, v := range append(idle, idle...) {
			v.Sees("second")
			v.Hits("second")
		}
		two.Moves("third")
		for _, v := range append(idle, writer) {
			v.Sees("third")
			v.Hits("third")
		}
	})
}

// A connection that is still to the server that was replaced is not used for what the new one has.
func TestAServerThatWasReplacedAndIsAliveIsLeft(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		primary := w.Server()
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
		c, err := cachedpg.NewConnector(*config, configFor(w))
		if err != nil {
			t.Fatal(err)
		}
		inside.Process(c, w.Name())
		db := sql.OpenDB(c)
		t.Cleanup(func() { db.Close() })
		v := &harness.Visitor{W: w, Name: "one", DB: db, Ask: db}
		held := v.Conn()
		held.Hits("first")
		standby.Promote()
		promoted.Store(true)
		v.Conn().Moves("second")
		held.Ask.(*sql.Conn).Close() // back in the pool
		for range 5 {
			v.Sees("second")
		}
		v.Hits("second")
	})
}

func pgxConnector(w *harness.Travel, dsn string) driver.Connector {
	w.Helper()
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		w.Fatal(err)
	}
	return stdlib.GetConnector(*c)
}

func configFor(w *harness.Travel) cachedpg.Config {
	w.Helper()
	_, config, err := cachedpg.ParseConfig(harness.WithKeys("postgres://localhost/x", w.Keys))
	if err != nil {
		w.Fatal(err)
	}
	return config
}
