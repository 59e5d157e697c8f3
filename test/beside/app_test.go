package beside

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// step is one thing that an application does.
type step struct {
	kind      kind
	sql       string
	args      []any
	isolation sql.IsolationLevel
	readOnly  bool
	deadline  time.Duration // of its context; 0: none
	abandoned bool          // its context is cancelled while it runs
	tenant    string        // in its context
}

type kind uint8

const (
	query    kind = iota // on what the application has: transaction, connection or pool
	exec                 // likewise
	prepared             // query by a statement that is prepared for it and closed
	begin                // a transaction, on the connection if there is one
	commit
	rollback
	take // a connection out of the pool
	give // it back
	ping
)

var kinds = [...]string{"query", "exec", "prepared", "begin", "commit", "rollback", "take", "give", "ping"}

func (s step) String() string {
	var b strings.Builder
	fmt.Fprint(&b, kinds[s.kind])
	if s.sql != "" {
		fmt.Fprintf(&b, " %s", s.sql)
	}
	if len(s.args) > 0 {
		fmt.Fprintf(&b, " %v", s.args)
	}
	if s.kind == begin {
		fmt.Fprintf(&b, " %v, read only %v", s.isolation, s.readOnly)
	}
	if s.deadline > 0 {
		fmt.Fprintf(&b, " within %v", s.deadline)
	}
	if s.abandoned {
		fmt.Fprint(&b, " until it runs")
	}
	if s.tenant != "" {
		fmt.Fprintf(&b, " for %s", s.tenant)
	}
	return b.String()
}

// outcome is what a step gave.
type outcome struct {
	rows [][]any
	n    int64 // of rows affected
	err  error
}

// as reports that an application could not tell the two apart: the rows, and of an error
// the SQLSTATE or what it is.
func (o outcome) as(want outcome) bool {
	return o.n == want.n && reflect.DeepEqual(o.rows, want.rows) && class(o.err) == class(want.err)
}

func class(err error) string {
	var answer *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &answer):
		return answer.Code
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	for _, known := range []error{sql.ErrTxDone, sql.ErrConnDone, sql.ErrNoRows} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

func (o outcome) String() string {
	if o.err != nil {
		return o.err.Error()
	}
	return fmt.Sprintf("%d rows affected, rows %v", o.n, o.rows)
}

// querier is a pool, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func (a *app) querier() querier {
	switch {
	case a.tx != nil:
		return a.tx
	case a.conn != nil:
		return a.conn
	}
	return a.db
}

func (a *app) step(ctx context.Context, s step) (o outcome) {
	s.sql = strings.ReplaceAll(s.sql, "{database}", a.name)
	switch s.kind {
	case query:
		rows, err := a.querier().QueryContext(ctx, s.sql, s.args...)
		return collect(rows, err)
	case exec:
		result, err := a.querier().ExecContext(ctx, s.sql, s.args...)
		if err == nil {
			o.n, err = result.RowsAffected()
		}
		o.err = err
	case prepared:
		stmt, err := a.querier().PrepareContext(ctx, s.sql)
		if err != nil {
			return outcome{err: err}
		}
		defer stmt.Close()
		rows, err := stmt.QueryContext(ctx, s.args...)
		return collect(rows, err)
	case begin:
		options := &sql.TxOptions{Isolation: s.isolation, ReadOnly: s.readOnly}
		if a.conn != nil {
			a.tx, o.err = a.conn.BeginTx(a.ctx, options)
		} else {
			a.tx, o.err = a.db.BeginTx(context.WithValue(a.ctx, tenantKey{}, ctx.Value(tenantKey{})), options)
		}
	case commit:
		o.err = a.tx.Commit()
		a.tx = nil
	case rollback:
		o.err = a.tx.Rollback()
		a.tx = nil
	case take:
		a.conn, o.err = a.db.Conn(ctx)
	case give:
		o.err = a.conn.Close()
		a.conn = nil
	case ping:
		o.err = a.db.PingContext(ctx)
	}
	return o
}

func collect(rows *sql.Rows, err error) (o outcome) {
	if err != nil {
		return outcome{err: err}
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return outcome{err: err}
	}
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return outcome{err: err}
		}
		for i, v := range values {
			values[i] = *v.(*any)
		}
		o.rows = append(o.rows, values)
	}
	o.err = rows.Err()
	return o
}
