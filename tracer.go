package cachedpg

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/core"
)

var (
	_ pgx.QueryTracer    = (*Tracer)(nil)
	_ pgx.BatchTracer    = (*Tracer)(nil)
	_ pgx.CopyFromTracer = (*Tracer)(nil)
	_ pgx.PrepareTracer  = (*Tracer)(nil)
	_ pgx.ConnectTracer  = (*Tracer)(nil)
)

// Tracer lets the driver see what is sent on a pool directly, by pool.Exec, Begin,
// SendBatch, CopyFrom and their like: it invalidates as if it came through the sql.DB.
//
// It is the pool's ConnConfig.Tracer, alone or in a multitracer, and an argument of
// WrapConnector; the example of NewTracer shows both. It begins with WrapConnector and
// ends when the last sql.DB over such a connector is closed. Reads on the pool are not
// cached, and what goes through a PgConn is not seen.
//
// A tracer of your own around it has to pass on everything that it implements. If what a
// statement changes cannot be marked, pgx gets a context that is cancelled, and sends nothing.
//
// It is safe for concurrent use.
type Tracer struct {
	tracer *core.Tracer
}

// NewTracer returns a Tracer for the connections of one pool.
func NewTracer() *Tracer { return &Tracer{core.NewTracer()} }

// TraceConnectStart implements pgx.ConnectTracer.
func (t *Tracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (t *Tracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	if data.Err == nil {
		t.tracer.Connected(data.Conn)
	}
}

// TracePrepareStart implements pgx.PrepareTracer.
func (t *Tracer) TracePrepareStart(ctx context.Context, _ *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	return t.tracer.PrepareStart(ctx, data)
}

// TracePrepareEnd implements pgx.PrepareTracer.
func (t *Tracer) TracePrepareEnd(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareEndData) {
	t.tracer.PrepareEnd(ctx, conn, data)
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *Tracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return t.tracer.Start(ctx, conn, &pgx.QueuedQuery{SQL: data.SQL, Arguments: data.Args})
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	t.tracer.End(ctx, data.Err)
}

// TraceBatchStart implements pgx.BatchTracer.
func (t *Tracer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	return t.tracer.Start(ctx, conn, data.Batch.QueuedQueries...)
}

// TraceBatchQuery implements pgx.BatchTracer.
func (t *Tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (t *Tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	t.tracer.End(ctx, data.Err)
}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromStartData) context.Context {
	return t.tracer.Start(ctx, conn, core.CopyFrom(data))
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceCopyFromEndData) {
	t.tracer.End(ctx, data.Err)
}
