package backend

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Direct is a connection that somebody else has in hand, between two of his statements. It answers the driver's
// own questions, and runs its commands; nobody's statements are sent by it.
type Direct struct{ pgxSession }

var (
	_ Conn = (*Direct)(nil)
	_ Wire = (*Direct)(nil)
)

// NewDirect returns a Direct over conn, which was dialled with that mode.
func NewDirect(conn *pgx.Conn, mode pgx.QueryExecMode) *Direct {
	return &Direct{pgxSession{conn, mode}}
}

// ExecContext runs the driver's own commands, past tracers.
func (in *Direct) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > 0 {
		return nil, errDirect
	}
	results, err := in.pgxConn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return driver.RowsAffected(0), err
	}
	return driver.RowsAffected(results[len(results)-1].CommandTag.RowsAffected()), nil
}

// Close is for a session that nobody may go on with.
func (in *Direct) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), RollbackTimeout)
	defer cancel()
	return in.pgxConn.Close(ctx)
}

// errDirect: the owner sends his statements himself.
var errDirect = errors.New("cachedpg: the connection is the pool's")

func (in *Direct) Begin() (driver.Tx, error)           { return nil, errDirect }
func (in *Direct) Prepare(string) (driver.Stmt, error) { return nil, errDirect }
func (in *Direct) Ping(context.Context) error          { return errDirect }
func (in *Direct) ResetSession(context.Context) error  { return errDirect }
func (in *Direct) Hooked() bool                        { return false }
func (in *Direct) Reset(context.Context) (bool, error) { return false, errDirect }
func (in *Direct) Commit(context.Context) error        { return errDirect }

func (in *Direct) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nil, errDirect
}

func (in *Direct) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errDirect
}

func (in *Direct) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, errDirect
}

func (in *Direct) Read(context.Context, Query) (Rows, error) { return nil, errDirect }
func (in *Direct) Judge(context.Context, string) error       { return errDirect }

func (in *Direct) ExecInTx(context.Context, Query, RowFunc, []string) (driver.Result, string, error) {
	return nil, "", errDirect
}

func (in *Direct) ExecReturning(context.Context, Query, RowFunc) (driver.Result, error) {
	return nil, errDirect
}
