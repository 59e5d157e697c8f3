package backend

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// Behind a pooler each round trip outside a transaction may reach another backend.
// pgx' describe_exec takes two, with the unnamed statement in between, and the second
// executes whatever was prepared there last:
//
//	this client                     backend 1               backend 2
//	Parse ""; Describe; Sync        has the text
//	                                                        Parse "" of another client
//	Bind ""; Execute; Sync                                  executes the other's text
//
// Its rows would become an entry; if it writes, nobody has marked that. So a text and
// its values are sent together, in one message group, which a pooler leads to one
// backend:
//
//	exec, simple_protocol   do so
//	cache_describe          does so, once the text was described
//	describe_exec           describes, and then sends the text again with the values
//	cache_statement, Stmt   name a statement by a digest of its text. Where the backend is not
//	                        the connection's own it may have been read long ago, with the tables
//	                        and settings of then. What is to be stored is sent as by cache_describe
//
// That describe_exec does so everywhere costs nothing, and no pooler has to be recognised
// for it. Inside a transaction the backend stays, and it is pgx that sends.

// Learn also finds out whether the backend is the connection's own.
func (in *Pgx) Learn(ctx context.Context) (*Session, uint32, error) {
	s, pid, err := in.pgxSession.Learn(ctx)
	in.own = err == nil && pid == in.PID()
	return s, pid, err
}

// Resumed takes in that the backend is the one that it was.
func (in *Pgx) Resumed() { in.own = true }

// Read runs a query so that its rows are those of its text.
func (in *Pgx) Read(ctx context.Context, q Query) (Rows, error) {
	sql, mode := q.SQL, q.Mode
	switch {
	case mode == pgx.QueryExecModeCacheStatement && !in.own && in.describes:
		// Not the text of a prepared statement, which pgx would take in any mode.
		sql, mode = sql+" ", pgx.QueryExecModeCacheDescribe
	case mode == pgx.QueryExecModeCacheStatement && !in.own, mode == pgx.QueryExecModeDescribeExec:
		return in.together(ctx, q)
	}
	args := make([]any, 1, 2+len(q.Args))
	args[0] = resultFormats
	options := len(q.Args) - len(q.Values)
	args = appendValues(args, q.Args[:options])
	if mode != q.Mode {
		args = append(args, mode)
	}
	args = appendValues(args, q.Args[options:])
	rows, err := in.pgxConn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func (in *Pgx) execTogether(ctx context.Context, q Query) (pgconn.CommandTag, error) {
	sd, err := in.pgxConn.Prepare(ctx, "", q.SQL)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	var b pgx.ExtendedQueryBuilder
	if err := b.Build(in.TypeMap(), sd, appendValues(nil, q.Values)); err != nil {
		return pgconn.CommandTag{}, err
	}
	result := in.pgxConn.PgConn().ExecParams(ctx, q.SQL, b.ParamValues, sd.ParamOIDs, b.ParamFormats, b.ResultFormats).Read()
	return result.CommandTag, result.Err
}

// together describes the text and then sends it with the values.
func (in *Pgx) together(ctx context.Context, q Query) (Rows, error) {
	ctx = in.trace.start(ctx, q.SQL, appendValues([]any{resultFormats}, q.Args))
	reader, err := in.sendTogether(ctx, q)
	if err != nil {
		in.trace.end(ctx, pgconn.CommandTag{}, err)
		return nil, err
	}
	return &tracedRows{Rows: pgx.RowsFromResultReader(in.TypeMap(), reader), trace: in.trace, ctx: ctx}, nil
}

func (in *Pgx) sendTogether(ctx context.Context, q Query) (*pgconn.ResultReader, error) {
	sd, err := in.pgxConn.Prepare(ctx, "", q.SQL)
	if err != nil {
		return nil, err
	}
	values := appendValues(nil, q.Values)
	if len(sd.ParamOIDs) != len(values) {
		return nil, fmt.Errorf("expected %d arguments, got %d", len(sd.ParamOIDs), len(values)) // as pgx says it
	}
	var b pgx.ExtendedQueryBuilder
	if err := b.Build(in.TypeMap(), sd, values); err != nil {
		return nil, err
	}
	byOID := resultFormats
	for _, option := range q.Args[:len(q.Args)-len(q.Values)] {
		if own, ok := option.Value.(pgx.QueryResultFormatsByOID); ok && own != nil {
			byOID = own
		}
	}
	formats := make([]int16, len(sd.Fields))
	for i, field := range sd.Fields {
		formats[i] = byOID[field.DataTypeOID]
	}
	return in.pgxConn.PgConn().ExecParams(ctx, q.SQL, b.ParamValues, sd.ParamOIDs, b.ParamFormats, formats), nil
}

// tracedRows end their trace when they are closed.
type tracedRows struct {
	pgx.Rows
	trace  ownTrace
	ctx    context.Context
	closed bool
}

func (r *tracedRows) Close() {
	r.Rows.Close()
	if !r.closed {
		r.closed = true
		r.trace.end(r.ctx, r.CommandTag(), r.Err())
	}
}

// ExecContext is pgx' stdlib's, but for describe_exec outside of a transaction.
func (in *Pgx) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) == 0 || sql == "" || in.TxStatus() != 'I' || in.Closed() {
		return in.Conn.ExecContext(ctx, sql, args)
	}
	q := Query{SQL: sql, Args: args, Values: args, Mode: in.defaultMode}
	for len(q.Values) > 0 {
		mode, ok := q.Values[0].Value.(pgx.QueryExecMode)
		if !ok {
			break
		}
		q.Mode, q.Values = mode, q.Values[1:]
	}
	if q.Mode != pgx.QueryExecModeDescribeExec || len(q.Values) == 0 {
		return in.Conn.ExecContext(ctx, sql, args)
	}
	ctx = in.trace.start(ctx, sql, appendValues(nil, args))
	tag, err := in.execTogether(ctx, q)
	in.trace.end(ctx, tag, err)
	return driver.RowsAffected(tag.RowsAffected()), pgerr.AsStdlib(err)
}
