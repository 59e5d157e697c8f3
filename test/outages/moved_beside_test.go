//go:build unix

package outages

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A name may be given to another database of the same server.
func TestTwoDatabasesThatChangeTheirNames(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		server := pgtest.StartServer(t)
		server.Exec("CREATE DATABASE app", "CREATE DATABASE next")
		at := func(name string) string { return strings.Replace(server.DSN(), "/postgres?", "/"+name+"?", 1) }
		for _, name := range []string{"app", "next"} {
			pgtest.Exec(t, at(name), harness.PlacesTable+"; INSERT INTO places VALUES (1, '"+name+"')")
		}
		pooler := w.Pooled(at("app"))
		app, other := w.Open("one", harness.ThroughPooler(pooler)), w.Open("two", harness.ThroughPooler(pooler))
		next := w.Open("three", strings.Replace(harness.ThroughPooler(pooler), "/app?", "/next?", 1))
		idle := app.Conn()
		for _, v := range []*harness.Visitor{app, other, idle} {
			v.Hits("app")
		}
		next.Hits("next")
		pooler.Pause()
		server.Exec("ALTER DATABASE app RENAME TO old", "ALTER DATABASE next RENAME TO app", "ALTER DATABASE old RENAME TO next")
		pooler.Resume()
		other.Moves("app 2")
		for _, v := range []*harness.Visitor{app, other, idle} {
			v.Sees("app 2")
			v.Hits("app 2")
		}
		late := w.Open("four", harness.ThroughPooler(pooler)) // knows nothing of the names of before
		for n := range 2 {
			late.Hits(fmt.Sprint("app ", n+2))
			to := fmt.Sprint("app ", n+3)
			late.Moves(to)
			for _, v := range []*harness.Visitor{app, other, idle} {
				v.Sees(to)
			}
		}
		next.Moves("next 2")
		next.Hits("next 2")
		idle.Hits("app 4")
	})
}

// Two servers with one system identifier and one timeline are two databases.
func TestCloneAndOriginalDoNotAnswerForEachOther(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		production := w.Server()
		staging := production.Clone()
		staging.Exec("UPDATE places SET name = 'staging'")
		p, s := w.Open("one", production.DSN()), w.Open("two", staging.DSN())
		conn := p.Conn()
		for round := range 3 {
			p.Hits([]string{"first", "p0", "p1"}[round])
			s.Hits([]string{"staging", "s0", "s1"}[round])
			for range 3 { // and they stay
				before := cachedpg.StatsOf(p.DB).Hits
				conn.Sees([]string{"first", "p0", "p1"}[round])
				s.Sees([]string{"staging", "s0", "s1"}[round])
				if cachedpg.StatsOf(p.DB).Hits == before && round > 0 {
					t.Errorf("round %d: no hit beside a clone: %+v", round, cachedpg.StatsOf(p.DB).Bypasses)
				}
			}
			p.Moves(fmt.Sprint("p", round))
			s.Moves(fmt.Sprint("s", round))
		}
	})
}

// A restart is a new life: what was cached before is not found.
func TestARestartBeginsCold(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		server := w.Server()
		v := w.Open("one", server.DSN())
		v.Hits("first")
		server.Stop()
		if !w.Shared() {
			v.Hits("first") // nobody has seen anything newer
		}
		server.Start()
		server.Exec("UPDATE places SET name = 'meanwhile'")
		v.DB.SetMaxIdleConns(0)
		if err := v.DB.PingContext(w.Ctx); err != nil {
			t.Fatal(err)
		}
		v.Sees("meanwhile")
		v.Hits("meanwhile")
	})
}

// One DB may reach several servers on purpose.
func TestShardsBehindOneConnectorAreCachedBesideEachOther(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		for _, related := range []bool{true, false} {
			one := w.Server()
			two := one.Clone()
			if !related {
				two = w.Server()
			}
			two.Exec("UPDATE places SET name = 'other'")
			var turn atomic.Int32
			sharded, err := cachedpg.WrapConnector(shards{&turn, []driver.Connector{pgxConnector(w, one.DSN()), pgxConnector(w, two.DSN())}}, configFor(w))
			if err != nil {
				t.Fatal(err)
			}
			inside.Process(sharded, fmt.Sprint(w.Name(), related))
			db := sql.OpenDB(sharded)
			t.Cleanup(func() { db.Close() })
			v := &harness.Visitor{W: w, Name: "shards", DB: db, Ask: db}
			a := v.Conn()
			turn.Store(1)
			b := v.Conn()
			for i := range 3 {
				a.Hits([]string{"first", "a0", "a1"}[i])
				b.Hits([]string{"other", "b0", "b1"}[i])
				before := cachedpg.StatsOf(db).Hits
				a.Sees([]string{"first", "a0", "a1"}[i])
				b.Sees([]string{"other", "b0", "b1"}[i])
				if got := cachedpg.StatsOf(db).Hits - before; got != 2 && i > 0 {
					t.Errorf("related %t: %d of 2 reads are hits", related, got)
				}
				a.Moves(fmt.Sprint("a", i))
				b.Moves(fmt.Sprint("b", i))
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
