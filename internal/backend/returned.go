package backend

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// RowFunc takes in a row that a statement returns; columns and values are valid until it returns.
type RowFunc func(columns []pgconn.FieldDescription, values [][]byte)

// ExecReturning is ExecContext of a statement whose rows go to row.
func (in *Pgx) ExecReturning(ctx context.Context, q Query, row RowFunc) (driver.Result, error) {
	if in.Closed() {
		return nil, driver.ErrBadConn
	}
	var tag pgconn.CommandTag
	var err error
	if q.Plain {
		tag, err = in.execPlain(ctx, q, row)
	} else {
		tag, err = in.execRows(ctx, q, row)
	}
	if err = pgerr.AsStdlib(err); err == driver.ErrBadConn {
		return nil, err
	}
	return driver.RowsAffected(tag.RowsAffected()), err
}

func (in *Pgx) execRows(ctx context.Context, q Query, row RowFunc) (tag pgconn.CommandTag, err error) {
	rows, err := in.Read(ctx, q)
	if err != nil {
		return tag, err
	}
	columns := rows.FieldDescriptions()
	for rows.Next() {
		row(columns, rows.RawValues())
	}
	rows.Close()
	if tagged, ok := rows.(interface{ CommandTag() pgconn.CommandTag }); ok {
		tag = tagged.CommandTag()
	}
	return tag, rows.Err()
}

// execPlain sends a text without values past pgx' Query, which would prepare it, or asks of the session's
// encoding what Exec does not. Outside of a transaction it is the simple protocol, as it is Exec's.
func (in *Pgx) execPlain(ctx context.Context, q Query, row RowFunc) (tag pgconn.CommandTag, err error) {
	ctx = in.trace.start(ctx, q.SQL, appendValues(nil, q.Args))
	if in.guarded() { // which needs a Sync
		tag, err = drain(in.pgxConn.PgConn().ExecParams(ctx, q.SQL, nil, nil, nil, nil), row)
		in.trace.end(ctx, tag, err)
		return tag, err
	}
	results := in.pgxConn.PgConn().Exec(ctx, q.SQL)
	for results.NextResult() {
		tag, _ = drain(results.ResultReader(), row) // the error is that of Close
	}
	err = results.Close()
	in.trace.end(ctx, tag, err)
	return tag, err
}

// drain reads a result to its end. Without row its rows are passed over.
func drain(result *pgconn.ResultReader, row RowFunc) (pgconn.CommandTag, error) {
	for row != nil && result.NextRow() {
		row(result.FieldDescriptions(), result.Values())
	}
	return result.Close()
}
