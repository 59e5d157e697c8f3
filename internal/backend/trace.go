package backend

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ownTrace tells the caller's tracer of what does not go through pgx' Query and Exec.
type ownTrace struct {
	conn   *pgx.Conn
	tracer pgx.QueryTracer // nil if there is none
}

func (t ownTrace) start(ctx context.Context, sql string, args []any) context.Context {
	if t.tracer == nil {
		return ctx
	}
	return t.tracer.TraceQueryStart(ctx, t.conn, pgx.TraceQueryStartData{SQL: sql, Args: args})
}

func (t ownTrace) end(ctx context.Context, tag pgconn.CommandTag, err error) {
	if t.tracer != nil {
		t.tracer.TraceQueryEnd(ctx, t.conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err})
	}
}

func appendValues(values []any, args []driver.NamedValue) []any {
	for _, a := range args {
		values = append(values, a.Value)
	}
	return values
}
