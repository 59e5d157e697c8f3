package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
)

// directInner is a connection that somebody else has in hand, between two of his statements.
type directInner struct{ pgxSession }

var _ inner = (*directInner)(nil)

func newDirectInner(conn *pgx.Conn, mode pgx.QueryExecMode) *directInner {
	return &directInner{pgxSession{conn, mode}}
}

// ExecContext runs the driver's own commands, past tracers.
func (in *directInner) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
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
func (in *directInner) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	return in.pgxConn.Close(ctx)
}

// errDirect: nobody's statements are sent there but by himself.
var errDirect = errors.New("cachedpg: the connection is the pool's")

func (in *directInner) Begin() (driver.Tx, error)           { return nil, errDirect }
func (in *directInner) Prepare(string) (driver.Stmt, error) { return nil, errDirect }
func (in *directInner) Ping(context.Context) error          { return errDirect }
func (in *directInner) ResetSession(context.Context) error  { return errDirect }
func (in *directInner) hooked() bool                        { return false }
func (in *directInner) reset(context.Context) (bool, error) { return false, errDirect }
func (in *directInner) commit(context.Context) error        { return errDirect }

func (in *directInner) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nil, errDirect
}

func (in *directInner) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errDirect
}

func (in *directInner) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, errDirect
}

func (in *directInner) read(context.Context, query) (wireRows, error) { return nil, errDirect }
func (in *directInner) judge(context.Context, string) error           { return errDirect }

func (in *directInner) execInTx(context.Context, string, []driver.NamedValue, []driver.NamedValue, []string) (driver.Result, string, error) {
	return nil, "", errDirect
}
