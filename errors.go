package cachedpg

import "errors"

// Errors of PostgreSQL and pgx reach the caller as pgx returns them. The few
// errors below are the driver's own; none of them is, or wraps, driver.ErrBadConn.
var (
	errClosed     = errors.New("cachedpg: connection is closed")
	errNotPgx     = errors.New("cachedpg: the wrapped connector does not give connections of pgx's stdlib package; put what traces or logs around cachedpg, or give pgx a ConnConfig.Tracer")
	errNotOurs    = errors.New("cachedpg: not a database opened with the cachedpg driver")
	errUnheard    = errors.New("cachedpg: cache_max_conns: the driver that is wrapped around this one does not pass IsValid on, so connections to PostgreSQL stay taken while nobody uses them")
	errNoRelation = errors.New("relation does not exist")
	errOtherStore = errors.New("cachedpg: cache_store: another sql.DB of this process has the same database in another store, so this one reads from none; name the same store in both, where parameters such as pool_size may differ")
)
