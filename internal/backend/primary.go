package backend

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

// ToPrimary returns a context in which AsPrimary has an effect.
func ToPrimary(ctx context.Context) context.Context {
	return context.WithValue(ctx, primaryOnly{}, true)
}

// AsPrimary has a dial with config, which it changes, look for a primary if ctx comes from ToPrimary.
func AsPrimary(ctx context.Context, config *pgx.ConnConfig) {
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
