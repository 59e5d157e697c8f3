package cachedpg

import (
	"errors"

	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/internal/peers"
)

// Errors of PostgreSQL and pgx reach the caller as pgx returns them. The few errors of the
// driver's own begin with "cachedpg:"; none of them is, or wraps, driver.ErrBadConn.

// ErrWithheld is what Ping's error is while nothing comes from the cache because of
// other processes, or because PostgreSQL refuses what the driver has to ask. The database can be used all the same.
var ErrWithheld = peers.ErrWithheld

// ErrStop, wrapped in the error of a Sink's Send, ends Follow.
var ErrStop = core.ErrStop

var errNotOurs = errors.New("cachedpg: not a database opened with the cachedpg driver")
