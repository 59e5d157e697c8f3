package cachedpg

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/internal/redact"
)

// DeadLetter is a queued write that was refused for good, by PostgreSQL or because no
// process of the application can have queued it. It is kept in the Redis stream that
// Stats.Queue.DeadLetters names, encrypted as the queue is; see DeadLetters.
type DeadLetter struct {
	ID       string // in the queue
	SQLState string // "" if it was not PostgreSQL that refused it
	Message  string // may hold values, as PostgreSQL's errors do
	SQL      string // as it was sent; "" if it cannot be read
	Args     []any
}

// String returns which write was refused, and not the values in it.
func (l DeadLetter) String() string {
	state := l.SQLState
	if state == "" {
		state = "none"
	}
	return fmt.Sprintf("queued write %s: %s, SQLSTATE %s", l.ID, redact.Command(l.SQL), state)
}

// GoString returns what %#v prints.
func (l DeadLetter) GoString() string { return "cachedpg.DeadLetter{" + l.String() + "}" }

// TakeOverQueue makes the server behind db the owner of the queue of strategy "write-behind",
// which a person has to decide where nobody else can: the owner is gone, and this server was
// restored from a backup or promoted without its last commits. missing is how many queued
// writes the owner had applied that this server does not have and will not get. While
// the owner is alive it is an error: stop its processes first.
func TakeOverQueue(ctx context.Context, db *sql.DB) (missing int64, err error) {
	d, err := withQueue(ctx, db)
	if err != nil {
		return 0, err
	}
	return d.TakeOverQueue(ctx)
}

// DeadLetters calls f with the writes that PostgreSQL has refused for good, and that lie in
// Redis, in order, until it returns false. Those that were queued with a key which
// this process does not have are there without their text.
func DeadLetters(ctx context.Context, db *sql.DB, f func(DeadLetter) bool) error {
	d, err := withQueue(ctx, db)
	if err != nil {
		return err
	}
	return d.DeadLetters(ctx, func(l behind.Letter) bool { return f(DeadLetter(l)) })
}

// withQueue connects if the queue of db is not known yet.
func withQueue(ctx context.Context, db *sql.DB) (*core.DB, error) {
	d, err := findDB(ctx, db)
	if err != nil || d.HasQueue() {
		return d, err
	}
	if err := db.PingContext(ctx); err != nil && !behind.IsNotOwner(err) {
		return nil, err
	}
	return d, nil
}
