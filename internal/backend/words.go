package backend

import (
	"database/sql/driver"
	"errors"
)

// The wrapped connection is one of pgx's stdlib package, whose words are those of database/sql/driver. They have
// names here for those above, who do not speak to database/sql: what one of its faces passes on is neither copied
// nor converted on the way.
type (
	Arg       = driver.NamedValue
	Value     = driver.Value
	Valuer    = driver.Valuer
	Result    = driver.Result
	ResultSet = driver.Rows
	Statement = driver.Stmt
	Tx        = driver.Tx
	TxOptions = driver.TxOptions
	TxLevel   = driver.IsolationLevel
	Raw       = driver.Conn
	Connector = driver.Connector
)

// ErrBadConn has database/sql try another connection.
var ErrBadConn = driver.ErrBadConn

// ErrNotPgx is that of a connection which is not one of pgx's stdlib package.
var ErrNotPgx = errors.New("cachedpg: the wrapped connector does not give connections of pgx's stdlib package; put what traces or logs around cachedpg, or give pgx a ConnConfig.Tracer")
