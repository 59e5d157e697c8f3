package behind

import (
	"context"
	"fmt"
	"time"
)

// TakeOver makes the server behind the host's connections the owner. missing is how many queued writes
// the owner before had applied that this server does not have.
func (b *Queue) TakeOver(ctx context.Context) (missing int64, err error) {
	a := applier{b: b, c: b.host.NewConn()}
	defer a.close()
	missing, err = a.takeOver(ctx)
	if err != nil {
		return 0, err
	}
	return missing, b.once(ctx)
}

func (a *applier) takeOver(ctx context.Context) (missing int64, err error) {
	tx, err := a.c.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing behind Commit
	a.place = place(a.c.Inner())
	r, err := a.record(ctx)
	if err != nil {
		return 0, err
	}
	c, err := a.b.store.Look(ctx, a.owner(r))
	switch {
	case err != nil:
		return 0, err
	case !c.Owns && c.Server != "" && c.Silent.Abs() < silent: // further ahead is a beat of before the clock was put back
		return 0, fmt.Errorf("cachedpg: the owner of the queue was seen %v ago: stop its processes first, and wait for %v", c.Silent.Round(time.Millisecond), silent)
	}
	// The fence goes past that of the owner before anybody applies here.
	if _, err = a.c.Exec(ctx, "UPDATE cachedpg.queue SET fence = $2 WHERE stream OPERATOR(pg_catalog.=) $1",
		named(a.b.store.QueueName(), max(r.fence, c.Fence)+1)); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	if _, err = a.b.store.Force(ctx, a.owner(r)); err != nil {
		return 0, err
	}
	return max(0, c.Acked-r.sequence), nil
}

// Dead calls f with the writes that were refused, in order, until it returns false.
func (b *Queue) Dead(ctx context.Context, f func(Letter) bool) error {
	const page = 100
	for after := "0"; ; {
		dead, err := b.store.Dead(ctx, after, page)
		if err != nil {
			return err
		}
		for _, d := range dead {
			letter := Letter{ID: d.ID, SQLState: d.SQLState, Message: d.Message}
			if w, err := Decode(d.Payload); err == nil {
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
