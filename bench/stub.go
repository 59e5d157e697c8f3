package bench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
)

func init() { sql.Register("stub", stubDriver{}) }

// stubDriver answers every query with one row of memory. What is left is the
// cost of database/sql itself: the pool, the conversion of arguments, Scan.
type stubDriver struct{}

func (stubDriver) Open(string) (driver.Conn, error) { return stubConn{}, nil }

type stubConn struct{}

var (
	_ driver.QueryerContext    = stubConn{}
	_ driver.ExecerContext     = stubConn{}
	_ driver.NamedValueChecker = stubConn{}
	_ driver.SessionResetter   = stubConn{}
)

var errStub = errors.New("stub: not supported")

func (stubConn) Prepare(string) (driver.Stmt, error)         { return nil, errStub }
func (stubConn) Begin() (driver.Tx, error)                   { return nil, errStub }
func (stubConn) Close() error                                { return nil }
func (stubConn) ResetSession(context.Context) error          { return nil }
func (stubConn) CheckNamedValue(nv *driver.NamedValue) error { return nil }

func (stubConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &stubRows{}, nil
}

func (stubConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

type stubRows struct{ done bool }

var (
	stubColumns = []string{"id", "name", "price", "stock"}
	stubRow     = [...]driver.Value{int64(1), "item 1", "1.99", int64(10)}
)

func (r *stubRows) Columns() []string { return stubColumns }
func (r *stubRows) Close() error      { return nil }

func (r *stubRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	copy(dest, stubRow[:])
	return nil
}
