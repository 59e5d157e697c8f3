package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/core"
)

// Exactly the optional interfaces of *stdlib.Conn, and Validator; a test compares them.
var (
	_ driver.Conn               = (*Conn)(nil)
	_ driver.ConnBeginTx        = (*Conn)(nil)
	_ driver.ConnPrepareContext = (*Conn)(nil)
	_ driver.ExecerContext      = (*Conn)(nil)
	_ driver.NamedValueChecker  = (*Conn)(nil)
	_ driver.Pinger             = (*Conn)(nil)
	_ driver.QueryerContext     = (*Conn)(nil)
	_ driver.SessionResetter    = (*Conn)(nil)
	_ driver.Validator          = (*Conn)(nil)
)

// Conn is a connection as database/sql pools it. It dials PostgreSQL when a
// statement needs it for the first time: until then it costs nothing, and hits
// work while PostgreSQL is down. Like every driver.Conn it is used by one
// goroutine at a time.
type Conn struct {
	conn *core.Conn
}

// QueryContext answers from the cache what is provably the same there, and
// passes the rest to PostgreSQL.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(c.conn.Query(ctx, query, args))
}

// ExecContext executes a statement and invalidates what it changes. It never
// answers from the cache.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if query == whoAreYou && c.isAskedWho(ctx) {
		return driver.ResultNoRows, nil
	}
	return c.conn.Exec(ctx, query, args)
}

// CheckNamedValue accepts everything: pgx encodes Go values by the type that
// PostgreSQL gives a parameter.
func (c *Conn) CheckNamedValue(*driver.NamedValue) error { return nil }

// Ping dials if need be and asks PostgreSQL. It waits until the cache can answer, a second or two at most: who pings at
// its start begins warm. It also says what is wrong with a
// shared store that has never been reached, later that is no reason to fail, with
// what the write-ahead log is followed by, and which of the driver's own questions
// PostgreSQL refuses (ErrWithheld).
func (c *Conn) Ping(ctx context.Context) error {
	if c.isAskedWho(ctx) {
		return nil
	}
	return c.conn.Ping(ctx)
}

// ResetSession is called before a pooled connection is used again, and pgx asks then
// whether one is still there that was idle for long. Where there is no hook of the
// caller and the session is as a new one's, that waits until PostgreSQL is
// needed: hits do without.
func (c *Conn) ResetSession(ctx context.Context) error { return c.conn.Reset(ctx) }

// IsValid is called when database/sql puts the connection back into its pool. With Config.MaxConns it gives its
// connection to PostgreSQL back.
func (c *Conn) IsValid() bool {
	c.conn.Idle()
	return true // without a connection to PostgreSQL it is as good as a new one
}

// Close closes the connection to PostgreSQL if there is one, or gives it back to those of Config.MaxConns.
func (c *Conn) Close() error { return c.conn.Close() }

// Prepare is PrepareContext without a context.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext prepares the statement on PostgreSQL, which says what is
// wrong with it. A cacheable text that PostgreSQL has accepted before on
// another connection is prepared when it is first needed: database/sql
// prepares on every connection, and a hit needs none.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.conn.Prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return &Stmt{s}, nil
}

// Begin is BeginTx without a context.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx starts a transaction on PostgreSQL. Its Commit marks what it wrote, commits, and releases the marks when
// PostgreSQL has answered. If the marks cannot be set it rolls back.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.conn.Begin(ctx, opts)
}

// Conn dials if need be and returns the pgx connection, nil if that fails.
// PgxConn gives the error too. Statements, batches and COPY on it invalidate
// like those of the driver until the surrounding sql.Conn.Raw returns; what
// goes through its PgConn is not seen.
func (c *Conn) Conn() *pgx.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), core.DialTimeout)
	defer cancel()
	conn, err := c.conn.HandOut(ctx)
	if err != nil {
		return nil
	}
	return conn
}

// Unwrap returns the wrapped *stdlib.Conn, or nil if dialling fails. See Conn.
func (c *Conn) Unwrap() driver.Conn {
	if c.Conn() == nil {
		return nil
	}
	return c.conn.Inner().(*backend.Pgx).Conn
}

// Raw is Unwrap under the name that other wrappers use.
func (c *Conn) Raw() driver.Conn { return c.Unwrap() }

// PgxConn calls f with the pgx connection under conn, which stays the owner:
// f must not keep it. See (*Conn).Conn for what is seen of its use.
func PgxConn(ctx context.Context, conn *sql.Conn, f func(*pgx.Conn) error) error {
	c, err := connUnder(ctx, conn)
	if err != nil {
		return err
	}
	return conn.Raw(func(any) error {
		pgxConn, err := c.conn.HandOut(ctx)
		if err != nil {
			return err
		}
		defer c.conn.HandBack(ctx)
		return f(pgxConn)
	})
}
