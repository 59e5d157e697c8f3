// Package pgerr tells errors of PostgreSQL apart. It has no state.
package pgerr

import (
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that the driver does something about.
const (
	ActiveTransaction     = "25001" // the command cannot run inside a transaction block; it has done nothing
	ReadOnlyTransaction   = "25006"
	UndefinedSchema       = "3F000"
	InsufficientPrivilege = "42501"
	UndefinedColumn       = "42703"
	AmbiguousColumn       = "42702"
	UndefinedObject       = "42704"
	UndefinedFunction     = "42883"
	UndefinedTable        = "42P01"
	InvalidValue          = "22023" // of a parameter
	NotSupported          = "0A000"
	TooManyConnections    = "53300" // of the server, or of a role's CONNECTION LIMIT
	ObjectInUse           = "55006"
	LockNotAvailable      = "55P03"
	CannotConnectNow      = "57P03" // PostgreSQL is starting up or shutting down

	// NoStatement is of a prepared statement that is not there: DISCARD ALL and
	// DEALLOCATE ALL drop those too which pgx (5.12) has prepared by itself, and it is not told.
	NoStatement = "26000"
	// DuplicateStatement is of one which is there already.
	DuplicateStatement = "42P05"
)

// Is reports that err is, or wraps, one of PostgreSQL's with one of the codes.
func Is(err error, codes ...string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && slices.Contains(codes, refused.Code)
}

// AsStdlib gives the error that pgx's stdlib would, nil for nil. A statement that never
// left may be tried on another connection: that is driver.ErrBadConn.
func AsStdlib(err error) error {
	if pgconn.SafeToRetry(err) {
		return driver.ErrBadConn
	}
	return err
}
