package core

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
)

var (
	_ pgx.QueryTracer    = tracer{}
	_ pgx.BatchTracer    = tracer{}
	_ pgx.CopyFromTracer = tracer{}
)

// tracer sees what a caller does with the pgx connection that PgxConn handed
// out, and invalidates as the driver would. What the driver itself sends is
// none of its business.
//
// pgx gives a tracer no way to refuse a statement. If the marks cannot be set,
// the context that it gets back is cancelled already, so that pgx sends nothing.
type tracer struct{ b *link }

type tracedKey struct{}

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return t.start(ctx, &pgx.QueuedQuery{SQL: data.SQL, Arguments: data.Args})
}

func (t tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	t.end(ctx, data.Err)
}

func (t tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	return t.start(ctx, data.Batch.QueuedQueries...)
}

func (t tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (t tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	t.end(ctx, data.Err)
}

func (t tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	return t.start(ctx, CopyFrom(data))
}

// CopyFrom is the statement that a COPY of pgx's is.
func CopyFrom(data pgx.TraceCopyFromStartData) *pgx.QueuedQuery {
	return &pgx.QueuedQuery{SQL: "COPY " + data.TableName.Sanitize() + " FROM STDIN"}
}

func (t tracer) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromEndData) {
	t.end(ctx, data.Err)
}

// start marks what the statements, which run as one unit, will change.
func (t tracer) start(ctx context.Context, queries ...*pgx.QueuedQuery) context.Context {
	c := t.b.holder
	if c == nil || !c.lent.seen {
		return ctx
	}
	defer c.lent.pause()() // what planning asks of PostgreSQL is the driver's own
	e, err := t.begin(ctx, queries)
	if err != nil {
		refused, cancel := context.WithCancelCause(ctx)
		cancel(err)
		return refused
	}
	return context.WithValue(ctx, tracedKey{}, e)
}

func (t tracer) begin(ctx context.Context, queries []*pgx.QueuedQuery) (*effect, error) {
	c := t.b.holder
	calls := make([]*call, len(queries))
	for i, query := range queries {
		args := make([]backend.Arg, len(query.Arguments))
		for j, value := range query.Arguments {
			args[j] = backend.Arg{Ordinal: j + 1, Value: value}
		}
		q, err := c.newCall(ctx, query.SQL, args)
		if err != nil {
			return nil, err
		}
		if err := c.plan(ctx, &q); err != nil {
			return nil, err
		}
		if err := c.catchUp(ctx, &q); err != nil {
			return nil, err
		}
		calls[i] = &q
	}
	return c.begin(ctx, calls...)
}

func (t tracer) end(ctx context.Context, err error) {
	if e, ok := ctx.Value(tracedKey{}).(*effect); ok {
		e.done(err)
	}
}
