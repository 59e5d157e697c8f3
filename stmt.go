package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/cachedpg/cachedpg/internal/core"
)

// Exactly the optional interfaces of *stdlib.Stmt; a test compares them.
var (
	_ driver.Stmt             = (*Stmt)(nil)
	_ driver.StmtExecContext  = (*Stmt)(nil)
	_ driver.StmtQueryContext = (*Stmt)(nil)
)

// Stmt is a prepared statement on one connection.
type Stmt struct {
	stmt *core.Stmt
}

// Close gives the statement up where it was prepared.
func (s *Stmt) Close() (err error) { return s.stmt.Close() }

// NumInput is the number of parameters.
func (s *Stmt) NumInput() int { return s.stmt.NumInput() }

// Exec is not implemented; database/sql uses ExecContext.
func (s *Stmt) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.New("cachedpg: Stmt.Exec is not implemented; use ExecContext")
}

// Query is not implemented; database/sql uses QueryContext.
func (s *Stmt) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.New("cachedpg: Stmt.Query is not implemented; use QueryContext")
}

// ExecContext executes as Conn.ExecContext does.
func (s *Stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.stmt.Exec(ctx, args)
}

// QueryContext queries as Conn.QueryContext does. PostgreSQL has typed the
// parameters at Prepare, whatever the connection's default mode.
func (s *Stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(s.stmt.Query(ctx, args))
}
