package connections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

// What a caller may do beside Query and Exec: the pgx connection underneath,
// prepared statements, pgx's own arguments, connectors of other makes, and a
// PostgreSQL that is not there.

// A connector that gives something else is refused, and what it gave is closed.
func TestAConnectorThatIsNotPgxs(t *testing.T) {
	const wantErr = "cachedpg: the wrapped connector does not give connections of pgx's stdlib package"
	other := &otherConnector{}
	connector, err := cachedpg.WrapConnector(other, cachedpg.Config{})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	if err := db.Ping(); err == nil || !strings.Contains(err.Error(), wantErr) {
		t.Errorf("got %v, want %v", err, wantErr)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if !other.closed || other.open != 0 {
		t.Errorf("connector closed: %v, connections open: %d", other.closed, other.open)
	}
}

type otherConnector struct {
	closed bool
	open   int
}

func (c *otherConnector) Connect(context.Context) (driver.Conn, error) {
	c.open++
	return otherConn{c: c}, nil
}
func (c *otherConnector) Driver() driver.Driver { return nil }
func (c *otherConnector) Close() error          { c.closed = true; return nil }

type otherConn struct {
	driver.Conn
	c *otherConnector
}

func (c otherConn) Close() error { c.c.open--; return nil }

// A hit takes no connection from those that PostgreSQL has.
func TestAHitDialsNothing(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		for range 4 {
			conn := f.Conn(f.DB)
			f.On(conn).Hit(harness.UserByID, 1)
			err := conn.Raw(func(c any) error {
				if inside.Inner(c) != nil && f.DB.Stats().OpenConnections > 1 {
					return errors.New("it has dialled")
				}
				return nil
			})
			if err != nil {
				f.Error(err)
			}
		}
	})
}
