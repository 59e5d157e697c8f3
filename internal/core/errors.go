package core

import "errors"

// Errors of PostgreSQL and pgx reach the caller as pgx returns them. The few
// errors below are the driver's own; none of them is, or wraps, backend.ErrBadConn.
var (
	errClosed     = errors.New("cachedpg: connection is closed")
	errUnheard    = errors.New("cachedpg: cache_max_conns: the driver that is wrapped around this one does not pass IsValid on, so connections to PostgreSQL stay taken while nobody uses them")
	errNoRelation = errors.New("relation does not exist")
)
