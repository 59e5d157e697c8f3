package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// errNoQueue is the answer where no relation has the strategy.
var errNoQueue = errors.New("cachedpg: no relation has strategy \"write-behind\" in cache_policy, or PostgreSQL is a standby")

// TakeOverQueue makes the server behind db the owner of the queue of strategy "write-behind",
// which a person has to decide where nobody else can: the owner is gone, and this server was
// restored from a backup or promoted without its last commits. missing is how many queued
// writes the owner had applied that this server does not have and will not get. While
// the owner is alive it is an error: stop its processes first.
func TakeOverQueue(ctx context.Context, db *sql.DB) (missing int64, err error) {
	b, err := queueOf(ctx, db)
	if err != nil {
		return 0, err
	}
	a := applier{b: b, c: b.d.newConn()}
	a.c.applies = true
	defer a.close()
	missing, err = a.takeOver(ctx)
	if err != nil {
		return 0, err
	}
	return missing, b.once(ctx)
}

// queueOf is the queue of db, which is known once it has connected.
func queueOf(ctx context.Context, db *sql.DB) (*writeQueue, error) {
	d, err := findConnector(ctx, db)
	if err != nil {
		return nil, err
	}
	b := d.behind.Load()
	if b == nil {
		if err := db.PingContext(ctx); err != nil && !isNotOwner(err) {
			return nil, err
		}
		if b = d.behind.Load(); b == nil {
			return nil, errNoQueue
		}
	}
	return b, nil
}

func (a *applier) takeOver(ctx context.Context) (missing int64, err error) {
	tx, err := a.c.BeginTx(ctx, driver.TxOptions{Isolation: driver.IsolationLevel(sql.LevelReadCommitted)})
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing behind Commit
	a.place = a.c.place()
	r, err := a.record(ctx)
	if err != nil {
		return 0, err
	}
	c, err := a.b.queue.Look(ctx, a.owner(r))
	switch {
	case err != nil:
		return 0, err
	case !c.Owns && c.Server != "" && c.Silent.Abs() < behindSilent: // further ahead is a beat of before the clock was put back
		return 0, fmt.Errorf("cachedpg: the owner of the queue was seen %v ago: stop its processes first, and wait for %v", c.Silent.Round(time.Millisecond), behindSilent)
	}
	// The fence goes past that of the owner before anybody applies here.
	if _, err = a.c.ExecContext(ctx, "UPDATE cachedpg.queue SET fence = $2 WHERE stream OPERATOR(pg_catalog.=) $1",
		named(a.b.queue.QueueName(), max(r.fence, c.Fence)+1)); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	if _, err = a.b.queue.Force(ctx, a.owner(r)); err != nil {
		return 0, err
	}
	return max(0, c.Acked-r.sequence), nil
}

// DeadLetters calls f with the writes that PostgreSQL has refused for good, and that lie in
// Redis, in order, until it returns false. Those that were queued with a key which
// this process does not have are there without their text.
func DeadLetters(ctx context.Context, db *sql.DB, f func(DeadLetter) bool) error {
	b, err := queueOf(ctx, db)
	if err != nil {
		return err
	}
	const page = 100
	for after := "0"; ; {
		dead, err := b.queue.Dead(ctx, after, page)
		if err != nil {
			return err
		}
		for _, d := range dead {
			letter := DeadLetter{ID: d.ID, SQLState: d.SQLState, Message: d.Message}
			if w, err := decodeQueued(d.Payload); err == nil {
				letter.SQL, letter.Args = w.SQL, w.Args
			}
			if !f(letter) {
				return nil
			}
			after = d.At
		}
		if len(dead) < page {
			return nil
		}
	}
}
