package outbox

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// Host is what a relay needs of the driver that it belongs to.
type Host struct {
	// Dial returns a connection of the relay's own, past the driver, which would take what the relay deletes for a
	// change to invalidate for.
	Dial func(context.Context) (backend.Conn, error)
	// Adopt returns where the connection leads that has learned s, and what is shared there. direct: it leads to
	// this server for as long as it lives. It is nil, without an error, where s is of a standby.
	Adopt func(s *backend.Session, direct bool) (*Place, error)
	// Lasting are errors of the two that do not pass by themselves.
	Lasting []error
}

// Place is a database, and what is shared of it.
type Place struct {
	ID         backend.Identity
	Store      store.Shared // that the writers mark in
	Log        *backend.Log // of PostgreSQL
	Guard      *guard.Guard
	Everything []store.Tag // what nothing survives, for tags that nobody can read
	Superseded func() bool // the database is elsewhere
	Leave      func()      // it is not needed any more
}
