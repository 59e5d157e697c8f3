package backend

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
)

// Conn is what the driver needs of the connection that it wraps: the
// interfaces of database/sql, rows as they come over the wire, and the truth
// about transactions. Pgx is the real one, Direct one that somebody else has in hand; tests script others.
//
// Like every driver.Conn it is used by one goroutine at a time. Errors are PostgreSQL's and pgx's, as they are.
type Conn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter

	// Hooked reports that ResetSession runs code of the caller.
	Hooked() bool
	// Reset is ResetSession. sent reports that it may have sent something other than pgx's own
	// ping, so that the session may not be what it was.
	Reset(ctx context.Context) (sent bool, err error)

	// Read runs a query and leaves its rows as PostgreSQL sent them. They are those of
	// its text, whoever else uses the backend, see pooler.go. Nothing else may be asked until they are closed.
	Read(ctx context.Context, q Query) (Rows, error)
	// Judge has PostgreSQL analyse a text.
	Judge(ctx context.Context, sql string) error
	// ExecInTx begins a transaction, executes a statement in it and then further
	// ones, the last of which asks for one text, in one round trip where it can.
	// After an error the transaction may be open or not; if it is PostgreSQL's to the question
	// it is an UnansweredError. The rows of the statement go to row, unless that is nil.
	ExecInTx(ctx context.Context, q Query, row RowFunc, then []string) (result driver.Result, answer string, err error)
	// ExecReturning executes a statement as ExecContext does. Its rows go to row.
	ExecReturning(ctx context.Context, q Query, row RowFunc) (driver.Result, error)
	// Commit commits the open transaction. An error is never driver.ErrBadConn:
	// database/sql would repeat the statement, and it may have been committed.
	Commit(ctx context.Context) error
	// Closed reports that nothing more can be sent.
	Closed() bool
	// TxStatus is PostgreSQL's last word: 'I' idle, 'T' in a transaction, 'E'
	// in a failed one. It is out of date while rows are open.
	TxStatus() byte
	// Learn asks for the state of the session, and for the PID of the backend that answers, which
	// behind a pooler is not PID's. In the open transaction it is asked at no risk for that.
	Learn(ctx context.Context) (s *Session, pid uint32, err error)
	// LoadCatalog may take over from a catalog of before, if there is one, what has not changed since.
	LoadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error)
	// Ask asks a question with one value as its answer, in one round trip.
	Ask(ctx context.Context, sql string) (string, error)
	// Aside asks one in the open transaction, which an error leaves as it was, and runs
	// another whose effect on the transaction stays, see aside.go. Either may be "".
	Aside(ctx context.Context, question, lasting string) (answer, kept string, err error)
	// Mode is how texts are sent for which the caller names no other mode.
	Mode() pgx.QueryExecMode
	// TypeMap is the connection's own, with what the caller has registered.
	TypeMap() *pgtype.Map
	// PID is that of the backend that was dialled.
	PID() uint32
}

// Query is a text with its values.
type Query struct {
	SQL    string
	Args   []driver.NamedValue // with pgx's leading options
	Values []driver.NamedValue // Args without the options
	Mode   pgx.QueryExecMode
	Plain  bool // it has no values and is not a prepared statement, see Conn.ExecReturning
}

// Rows is the part of pgx.Rows that reading a result needs. What RawValues returns is valid until Next or Close.
type Rows interface {
	FieldDescriptions() []pgconn.FieldDescription
	Next() bool
	RawValues() [][]byte
	Err() error
	Close()
}

// Wire is what a Conn has beside, if it is over one of pgx's.
type Wire interface {
	// PgxConn is pgx's connection, which stays the owner's.
	PgxConn() *pgx.Conn
	// Ended is closed when nothing is left of the connection.
	Ended() <-chan struct{}
	// Parameter is what PostgreSQL has reported of a setting by itself, with the last answer.
	Parameter(name string) string
	// NewWatch returns a watch of the catalog over the connection.
	NewWatch() *catalog.Watch
}

// UnansweredError is PostgreSQL's to the driver's own question, and not to the caller's statement.
type UnansweredError struct{ *pgconn.PgError }

func (e UnansweredError) Unwrap() error { return e.PgError }

func toQuestion(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return UnansweredError{refused}
	}
	return err
}
