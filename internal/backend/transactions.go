package backend

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// TransactionOverSQL is an SQL expression that is true if the transaction of the full id is over. Of a transaction from long ago
// PostgreSQL remembers nothing, not even when it was.
func TransactionOverSQL(xid string) string {
	return "coalesce(pg_catalog.pg_xact_status('" + xid + "'::pg_catalog.xid8), 'forgotten') OPERATOR(pg_catalog.<>) 'in progress'"
}

// IsFuture reports that err is of TransactionOverSQL, and that PostgreSQL has not given out the id yet. It
// had: a crash has taken the transaction, before anything of it was on disk,
// and the id will be given out again.
func IsFuture(err error) bool { return pgerr.Is(err, pgerr.InvalidValue) }

// Patient keeps PostgreSQL from ending the transaction that is open on in while it does nothing.
func Patient(ctx context.Context, in Conn) error {
	_, err := KeepIn(ctx, in, "SELECT pg_catalog.concat("+unlimited("idle_in_transaction_session_timeout")+", "+unlimited("transaction_timeout")+")")
	return err
}

// unlimited is an SQL expression that lifts a limit, if the server has it, until the transaction ends.
func unlimited(setting string) string {
	return "CASE WHEN pg_catalog.current_setting('" + setting + "', true) OPERATOR(pg_catalog.<>) '0'" +
		" THEN pg_catalog.set_config('" + setting + "', '0', true) END"
}

// ForgetSnapshot has a transaction keep no snapshot, so that it is in nobody's way
// for as long as it lasts: a portal keeps its own until the next one is there, and
// CREATE INDEX CONCURRENTLY would wait for it. A text without arguments leaves none.
func ForgetSnapshot(ctx context.Context, in Conn) error {
	_, err := in.ExecContext(ctx, "SELECT ''", nil)
	return err
}

// ErrStatementPool is what a transaction fails with that is not even tried.
var ErrStatementPool = errors.New("cachedpg: a pooler in statement mode ends what holds a transaction open; use pool_mode=transaction")

// OfStatementPool gives an error of BEGIN by its name.
func OfStatementPool(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "08P01" && strings.Contains(refused.Message, "statement pooling mode") {
		return ErrStatementPool
	}
	return err
}
