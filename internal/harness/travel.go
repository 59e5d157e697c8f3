//go:build unix

package harness

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// What a travel reads and writes.
const (
	PlacesTable = "CREATE TABLE places (id int PRIMARY KEY, name text NOT NULL)"
	placesRow   = "INSERT INTO places VALUES (1, 'first')"
	placeByID   = "SELECT name FROM places WHERE id = $1"
	MovePlace   = "UPDATE places SET name = $2 WHERE id = $1"
)

// Travel is a story of servers, in memory and with a Redis.
type Travel struct {
	*testing.T
	Ctx  context.Context
	Keys []string // of the driver
}

// Travels tells a story with each store.
func Travels(t *testing.T, story func(w *Travel)) {
	t.Helper()
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := NewTravel(t)
			if store == "redis" {
				w.Keys = []string{"cache_store=" + redistest.Start(t).URL()}
			}
			story(w)
		})
	}
}

// NewTravel returns a story in memory.
func NewTravel(t *testing.T) *Travel {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return &Travel{T: t, Ctx: ctx}
}

// Server starts a server that has the table.
func (w *Travel) Server() *pgtest.Server {
	w.Helper()
	s := pgtest.StartServer(w.T)
	s.Exec(PlacesTable, placesRow)
	return s
}

// Shared reports that the story plays with a Redis.
func (w *Travel) Shared() bool { return len(w.Keys) > 0 }

// Open returns a DB; with a Redis it is a process of its own.
func (w *Travel) Open(name, dsn string) *Visitor {
	w.Helper()
	dsn = WithKeys(dsn, w.Keys)
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		w.Fatal(err)
	}
	d := db.Driver()
	db.Close()
	c, err := d.(driver.DriverContext).OpenConnector(dsn)
	if err != nil {
		w.Fatal(err)
	}
	process := w.Name()
	if w.Shared() {
		process += name
	}
	inside.Process(c, process)
	db = sql.OpenDB(c)
	w.Cleanup(func() { db.Close() })
	return &Visitor{W: w, Name: name, DB: db, Ask: db}
}

// Pooled starts a pooler whose mode is transaction.
func (w *Travel) Pooled(dsn string) *pgtest.Bouncer {
	w.Helper()
	return pgtest.StartBouncer(w.T, dsn, "transaction")
}

// ThroughPooler is the DSN of what the pooler leads to.
func ThroughPooler(pooler *pgtest.Bouncer) string {
	return WithKey(pooler.DSN(), "default_query_exec_mode", "exec")
}

// Crowd are processes behind a pooler, all with a hit.
func (w *Travel) Crowd(n int) (*pgtest.Bouncer, []*Visitor) {
	w.Helper()
	pooler := w.Pooled(w.Server().DSN())
	all := make([]*Visitor, n)
	for i := range all {
		all[i] = w.Open(fmt.Sprint("process ", i), ThroughPooler(pooler))
		all[i].Hits("first")
	}
	return pooler, all
}

// Visitor asks a DB, or one of its connections.
type Visitor struct {
	W    *Travel
	Name string
	DB   *sql.DB
	Ask  Asker
}

// Conn returns one that asks a connection of its own.
func (v *Visitor) Conn() *Visitor {
	v.W.Helper()
	conn, err := v.DB.Conn(v.W.Ctx)
	if err != nil {
		v.W.Fatal(err)
	}
	v.W.Cleanup(func() { conn.Close() })
	own := *v
	own.Ask = conn
	return &own
}

func (v *Visitor) get() (string, error) {
	rows, err := v.Ask.QueryContext(v.W.Ctx, placeByID, 1)
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

// Sees: whatever the driver does, this is the value.
func (v *Visitor) Sees(want string) {
	v.W.Helper()
	if got, err := v.get(); err != nil || got != want {
		v.W.Errorf("%s reads %q, %v, want %q", v.Name, got, err, want)
	}
}

// Hits returns when a read was a hit, and says if one was of another value.
func (v *Visitor) Hits(want string) {
	v.W.Helper()
	for {
		before := inside.Counted(v.DB).Hits
		v.Sees(want)
		if inside.Counted(v.DB).Hits > before || v.W.Failed() {
			return
		}
		if time.Sleep(time.Millisecond); v.W.Ctx.Err() != nil {
			v.W.Fatalf("%s has no hit: %+v", v.Name, inside.Counted(v.DB).Bypasses)
		}
	}
}

// Moves writes.
func (v *Visitor) Moves(to string) {
	v.W.Helper()
	if _, err := v.Ask.ExecContext(v.W.Ctx, MovePlace, 1, to); err != nil {
		v.W.Fatalf("%s: %v", v.Name, err)
	}
}
