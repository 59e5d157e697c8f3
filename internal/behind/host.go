package behind

import (
	"context"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Host is what the driver gives a Queue when it is made.
type Host struct {
	Store   *redis.Store
	NewConn func() Conn // which has not dialled

	Relations []string // that have the strategy, as policies write them
	// Names reports that a policy's relation is written out, and is this one.
	Names func(relation string, rel *catalog.Relation) bool

	Max        int64        // the length of the queue above which writers wait
	DeadLetter func(Letter) // is called for each write that is refused; may be nil
	Closed     error        // what callers get when the queue has been closed
}

// Conn is a connection of the driver's own kind that queues nothing and waits for no queue. It is used
// by one goroutine at a time.
type Conn interface {
	// Exec is the driver's own, which invalidates what a statement changes.
	Exec(ctx context.Context, sql string, args []backend.Arg) (backend.Result, error)
	Close() error

	// Ready dials if need be.
	Ready(ctx context.Context) error
	// Begin starts a transaction at READ COMMITTED, in which nobody's query has to come first.
	Begin(ctx context.Context) (backend.Tx, error)
	// Run is Exec for a statement that allow wants to see first. An error of allow's is returned as it is.
	Run(ctx context.Context, sql string, args []backend.Arg, allow func(Statement) error) error
	// Session is the one that the connection is in, nil if it cannot be read.
	Session(ctx context.Context) (*backend.Session, error)
	// Forget makes it unknown, and with it what the driver believes of the transaction.
	Forget()
	// Inner is the wrapped connection, past which nothing is invalidated; nil before it is dialled.
	Inner() backend.Conn
}

// Statement is one as the driver has planned it.
type Statement struct {
	Plan     *keying.Plan
	Values   keying.Values
	Session  *backend.Session  // nil if it is unknown
	Snapshot *catalog.Snapshot // of the plan; nil if there is none
}
