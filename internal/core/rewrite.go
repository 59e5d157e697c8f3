package core

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// newCall takes pgx's leading options off the arguments and runs a query
// rewriter, so that what is analysed is what PostgreSQL gets: "WHERE id = @id"
// parses before NamedArgs has rewritten it, as a call of an operator @.
func (c *Conn) newCall(ctx context.Context, sql string, args []backend.Arg) (call, error) {
	q := call{sql: sql, args: args, values: args, mode: pgx.QueryExecMode(0)}
	if len(args) == 0 {
		return q, nil
	}
	var rewriter pgx.QueryRewriter
options:
	for len(q.values) > 0 {
		switch v := q.values[0].Value.(type) {
		case int64, string, nil, int, []byte, bool, time.Time: // the usual first arguments, before the costlier test
			break options
		case pgx.QueryExecMode:
			q.mode = v
		case pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			q.formats = true
		case pgx.QueryRewriter:
			rewriter = v
		default:
			break options
		}
		q.values = q.values[1:]
	}
	if rewriter == nil {
		return q, nil
	}
	return c.rewrite(ctx, q, rewriter)
}

func (c *Conn) rewrite(ctx context.Context, q call, rewriter pgx.QueryRewriter) (call, error) {
	var conn *pgx.Conn
	switch rewriter.(type) {
	case pgx.NamedArgs, pgx.StrictNamedArgs: // ignore the connection
	default:
		if err := c.ready(ctx); err != nil {
			return q, err
		}
		if in, ok := c.inner.(backend.Wire); ok {
			conn = in.PgxConn()
		}
	}
	values := make([]any, len(q.values))
	for i, v := range q.values {
		values[i] = v.Value
	}
	sql, values, err := rewriter.RewriteQuery(ctx, conn, q.sql, values)
	if err != nil {
		return q, fmt.Errorf("rewrite query failed: %w", err) // as pgx says it
	}
	rewritten := call{sql: sql, mode: q.mode, formats: q.formats}
	for _, option := range q.args[:len(q.args)-len(q.values)] {
		if _, ok := option.Value.(pgx.QueryRewriter); !ok {
			rewritten.args = append(rewritten.args, option)
		}
	}
	options := len(rewritten.args)
	for i, v := range values {
		rewritten.args = append(rewritten.args, backend.Arg{Ordinal: options + i + 1, Value: v})
	}
	rewritten.values = rewritten.args[options:]
	return rewritten, nil
}
