package connections

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// Whatever is wrong, the caller learns it as pgx says it, and nothing of it
// is cached.

func TestOpenRefusesAMalformedDSN(t *testing.T) {
	for _, dsn := range []string{
		"postgres://h:notaport/d",
		"postgres://h/d?sslmode=perhaps",
		"host=h port=x",
		"host='h",
		"postgres://h/%zz",
		"postgres://h/d?connect_timeout=soon",
		"default_query_exec_mode=none host=h",
	} {
		_, got := sql.Open("cachedpg", dsn)
		_, want := pgx.ParseConfig(dsn)
		harness.SameError(t, got, want)
	}
	for _, dsn := range []string{
		"postgres://h/d?cache_tll=1s",
		"host=h cache_store=disk",
		"host=h cache_memory=1KiB cache_max_entry=1MiB",
		"host=h cache_ttl=1s cache_ttl=2s",
	} {
		if db, err := sql.Open("cachedpg", dsn); err == nil || !strings.HasPrefix(err.Error(), "cachedpg: cache_") {
			t.Errorf("%s: got %v, %v, want an error that names the key", dsn, db, err)
		}
	}
	if _, err := cachedpg.NewConnector(pgx.ConnConfig{}, cachedpg.Config{TTL: -1, MaxEntry: -1, Store: "disk"}); err == nil ||
		strings.Count(err.Error(), "cachedpg:") != 3 {
		t.Errorf("got %v, want all three problems", err)
	}
	if _, err := cachedpg.OpenDB(pgx.ConnConfig{}, cachedpg.Config{Memory: -1}); err == nil {
		t.Error("OpenDB with a bad Config: no error")
	}
	if _, err := cachedpg.WrapConnector(&otherConnector{}, cachedpg.Config{Memory: -1}); err == nil {
		t.Error("WrapConnector with a bad Config: no error")
	}
	if _, err := new(cachedpg.Driver).Open("host=h port=x"); err == nil {
		t.Error("Driver.Open of a malformed DSN: no error")
	}
}

// After Close there is nothing, in the words of database/sql.
func TestWhatIsClosedStaysClosed(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		conn := f.Conn(f.DB)
		stmt, err := f.DB.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		rows, err := f.DB.QueryContext(f.Ctx, harness.UserByID, 1)
		if err != nil {
			f.Fatal(err)
		}
		for range 2 {
			if err := rows.Close(); err != nil {
				f.Error(err)
			}
		}
		if rows.Next() {
			f.Error("a row after Close")
		}
		var driverConn *cachedpg.Conn
		conn.Raw(func(c any) error { driverConn = c.(*cachedpg.Conn); return nil })
		if err := conn.Close(); err != nil {
			f.Error(err)
		}
		if _, err := conn.QueryContext(f.Ctx, harness.UserByID, 1); !errors.Is(err, sql.ErrConnDone) {
			f.Errorf("a closed connection: %v", err)
		}
		if err := f.DB.Close(); err != nil {
			f.Error(err)
		}
		if _, err := f.DB.QueryContext(f.Ctx, harness.UserByID, 1); err == nil || err.Error() != "sql: database is closed" {
			f.Errorf("a closed DB: %v", err)
		}
		if _, err := stmt.QueryContext(f.Ctx, 1); err == nil {
			f.Error("a statement of a closed DB: no error")
		}
		if err := stmt.Close(); err != nil {
			f.Error(err)
		}
		const closed = "cachedpg: connection is closed"
		for _, err := range []error{
			second(driverConn.QueryContext(f.Ctx, "SELECT 1", nil)), second(driverConn.ExecContext(f.Ctx, "SELECT 1", nil)),
			second(driverConn.Prepare("SELECT 1")), second(driverConn.Begin()), driverConn.Ping(f.Ctx),
		} {
			if err == nil || err.Error() != closed {
				f.Errorf("got %v, want %v", err, closed)
			}
		}
		if err := driverConn.ResetSession(f.Ctx); err != driver.ErrBadConn {
			f.Errorf("got %v, want driver.ErrBadConn", err)
		}
		if driverConn.Conn() != nil || driverConn.Unwrap() != nil {
			f.Error("a closed connection gives what it wrapped")
		}
		if err := driverConn.Close(); err != nil {
			f.Error(err)
		}
	})
}

func second[T any](_ T, err error) error { return err }
