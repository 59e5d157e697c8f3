package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// mayPost is an SQL expression of type text: the session may write to the outbox.
// has_table_privilege by name would be an error without the schema.
const mayPost = "EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" +
	" WHERE nspname OPERATOR(pg_catalog.=) 'cachedpg' AND relname OPERATOR(pg_catalog.=) 'outbox'" +
	" AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'INSERT'))::pg_catalog.text"

// MayPost reports that the session of the open transaction may write to the outbox. Asking costs the
// transaction nothing: an error would.
func MayPost(ctx context.Context, in backend.Conn) (bool, error) {
	may, err := backend.AskIn(ctx, in, "SELECT "+mayPost)
	return may == "true", err
}

// readOnly is an SQL expression that is readOnlyAnswer in a transaction that takes
// no more writes.
const (
	readOnly       = "CASE WHEN pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN '" + readOnlyAnswer + "' ELSE '' END"
	readOnlyAnswer = " read-only"
)

// IsReadOnly reports that the open transaction takes no more writes.
func IsReadOnly(ctx context.Context, in backend.Conn) (bool, error) {
	answer, err := backend.AskIn(ctx, in, "SELECT "+readOnly)
	return answer == readOnlyAnswer, err
}

// WithReadOnly is a question of one text that asks for that as well, see CutReadOnly.
func WithReadOnly(question string) string {
	return question + " OPERATOR(pg_catalog.||) " + readOnly
}

// CutReadOnly takes it off the answer.
func CutReadOnly(answer string) (rest string, readOnly bool) {
	return strings.CutSuffix(answer, readOnlyAnswer)
}

// Explain says what to do where the outbox cannot be written to. An error that is not PostgreSQL's stays as it is.
func Explain(err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case pgerr.UndefinedTable, pgerr.UndefinedSchema:
		return fmt.Errorf("cachedpg: cache_outbox: the table cachedpg.outbox is not there; run: cachedpg setup --dsn …: %w", err)
	case pgerr.InsufficientPrivilege:
		return fmt.Errorf("cachedpg: cache_outbox: the role may not use cachedpg.outbox; run: cachedpg setup --role ROLE --dsn …: %w", err)
	}
	return fmt.Errorf("cachedpg: cache_outbox: %w", err)
}

// ExplainWith replaces the error of a statement which went together with an event over in, if
// it was the event that failed. The statement may have failed in the same way by itself.
func ExplainWith(ctx context.Context, in backend.Conn, cause error) error {
	if !pgerr.Is(cause, pgerr.UndefinedTable, pgerr.UndefinedSchema, pgerr.InsufficientPrivilege) {
		return cause
	}
	if may, err := in.Ask(ctx, "SELECT "+mayPost); err != nil || may == "true" {
		return cause
	}
	return Explain(cause)
}
