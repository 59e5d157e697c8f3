package cachedpg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var errNotPrimary = errors.New("cachedpg: PostgreSQL is a standby, and knows no outcome of a commit")

// primaryOnly is the key of a context in which connections are dialled for
// questions that a standby cannot answer. Of several hosts the DSN may name one first.
type primaryOnly struct{}

func toPrimary(ctx context.Context) context.Context {
	return context.WithValue(ctx, primaryOnly{}, true)
}

// asPrimary makes a dial of such a context look for a primary.
func asPrimary(ctx context.Context, config *pgx.ConnConfig) {
	if ctx.Value(primaryOnly{}) == nil {
		return
	}
	asked := config.ValidateConnect
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		var notPreferred *pgconn.NotPreferredError
		if asked != nil {
			if err := asked(ctx, conn); err != nil && !errors.As(err, &notPreferred) {
				return err
			}
		}
		result := conn.ExecParams(ctx, "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text", nil, nil, nil, nil).Read()
		if result.Err == nil && string(result.Rows[0][0]) != "false" {
			return errNotPrimary
		}
		return result.Err
	}
}
