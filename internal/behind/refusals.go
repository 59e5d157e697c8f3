package behind

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
)

func isLockTimeout(err error) bool { return pgerr.Is(err, pgerr.LockNotAvailable) }

// isVictim reports that PostgreSQL has undone the transaction for the sake of another.
func isVictim(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && strings.HasPrefix(refused.Code, "40")
}

// isFinal reports that to try again is of no use. Of PostgreSQL's errors those of the
// connection, of resources, of its being stopped, and of others who are in the way pass.
func isFinal(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return !errors.Is(err, backend.ErrBadConn) // pgx cannot encode a value
	}
	switch refused.Code[:min(2, len(refused.Code))] {
	case "08", "40", "53", "57", "58":
		return false
	}
	return refused.Code != pgerr.LockNotAvailable && refused.Code != pgerr.ReadOnlyTransaction
}

func isClosed(c Conn) bool { return c.Inner() == nil || c.Inner().Closed() }

func named(values ...any) []backend.Arg {
	args := make([]backend.Arg, len(values))
	for i, v := range values {
		args[i] = backend.Arg{Ordinal: i + 1, Value: v}
	}
	return args
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// readable reports that under these settings PostgreSQL reads texts as our parser does.
func readable(settings map[string]string) bool {
	return settings["client_encoding"] == "UTF8" && settings["standard_conforming_strings"] == "on"
}
