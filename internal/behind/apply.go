package behind

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store/redis"
)

// round applies one batch. more says that there may be others.
func (a *applier) round(ctx context.Context) (more bool, pos string, err error) {
	refusing, again := false, a.c != nil
	for {
		more, pos, err = a.batch(ctx, refusing)
		if err != nil && again && ctx.Err() == nil && a.isClosed() {
			again = false // the connection may have been gone for long
			a.close()
			continue
		}
		if err == nil || ctx.Err() != nil || refusing || !isRefusal(err) || a.isClosed() {
			break
		}
		refusing = true // some statement of the batch is at fault: find out which
	}
	if err != nil && a.isClosed() {
		a.close()
	}
	return more, pos, err
}

// batch applies entries in one transaction. With refusing each of them has a
// savepoint, and one that fails is put aside.
func (a *applier) batch(ctx context.Context, refusing bool) (more bool, pos string, err error) {
	b := a.b
	if a.c == nil {
		a.c = b.host.NewConn()
	}
	c := a.c
	if err := c.Ready(ctx); err != nil {
		return false, "", err
	}
	if err := a.enroll(ctx); err != nil {
		return false, "", err
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return false, "", err
	}
	defer func() {
		if tx != nil {
			_ = tx.Rollback()
		}
	}()
	a.catalog = nil
	if a.place == "" {
		a.place = place(c.Inner())
	}
	rec, err := a.record(ctx)
	if err != nil {
		return false, "", err
	}
	pos = rec.position
	claim, err := a.claim(ctx, rec)
	if err != nil {
		return false, "", err
	}
	if !a.seen {
		lost, err := b.store.Revive(ctx, pos)
		if err != nil {
			return false, "", err
		}
		if lost {
			b.lost.Add(1)
		}
		if risk, err := b.store.QueueRisk(ctx); err == nil {
			b.risk.Store(&risk)
		}
		a.seen = true
	}
	if err := a.learn(ctx, rec, claim); err != nil {
		return false, "", err
	}
	if len(rec.refused) > 0 { // before they are forgotten
		if err := b.store.Applied(ctx, a.owner(rec), pos, rec.refused); err != nil {
			return false, "", err
		}
	}
	entries, err := b.store.After(ctx, pos, batchMost)
	if err != nil {
		return false, "", err
	}
	if slices.ContainsFunc(entries, func(e redis.Queued) bool { return e.Sequence > claim.Given }) { // queued since then, if it was
		if claim, err = b.store.Look(ctx, a.owner(rec)); err != nil {
			return false, "", err
		}
	}
	if len(entries) == 0 && !rec.changed {
		err := tx.Commit() // it may have made the row
		tx = nil
		if err == nil {
			err = b.store.Applied(ctx, a.owner(rec), pos, nil)
		}
		return false, pos, err
	}
	own, err := a.session(ctx)
	if err != nil {
		return false, "", err
	}
	// What is deferred to COMMIT would fail the whole batch there, again and again.
	if _, err := c.Inner().ExecContext(ctx, "SET CONSTRAINTS ALL IMMEDIATE", nil); err != nil {
		return false, "", err
	}
	var dead []redis.Refused
	var letters []Letter
	for _, e := range entries {
		letter, err := a.apply(ctx, e, rec, claim.Given, refusing)
		if err != nil {
			return false, "", err
		}
		if letter != nil {
			letters = append(letters, *letter)
			dead = append(dead, redis.Refused{ID: letter.ID, SQLState: letter.SQLState, Message: letter.Message})
		}
	}
	if len(entries) > 0 {
		pos = entries[len(entries)-1].ID
	}
	rec.fence++
	known, err := json.Marshal(rec.known)
	if err != nil {
		return false, "", err
	}
	refused, err := json.Marshal(append([]redis.Refused{}, dead...))
	if err != nil {
		return false, "", err
	}
	if err := a.enterSession(ctx, own); err != nil { // the role of a write need not know the queue
		return false, "", err
	}
	_, err = c.Exec(ctx, "UPDATE cachedpg.queue SET position = $2, refused = $3, fence = $4, sequence = $5, known = $6,"+
		" applied = pg_catalog.clock_timestamp() WHERE stream OPERATOR(pg_catalog.=) $1",
		named(b.store.QueueName(), pos, string(refused), rec.fence, rec.sequence, string(known)))
	if err != nil {
		return false, "", err
	}
	step.At(step.Applied)
	err = tx.Commit()
	tx = nil
	if err != nil {
		return false, "", err
	}
	step.At(step.Recorded)
	b.applied.Add(uint64(len(entries)))
	b.dead.Add(uint64(len(dead)))
	b.lost.Add(uint64(rec.lost))
	b.gave(rec.sequence)
	for _, letter := range letters {
		if b.host.DeadLetter != nil {
			b.host.DeadLetter(letter)
		}
	}
	// If this fails the next round repeats it.
	err = b.store.Applied(ctx, a.owner(rec), pos, dead)
	return len(entries) == batchMost, pos, err
}

// settingsSQL are those of the transaction that applies. A process that is stopped,
// and not dead, must not keep the position from others for long, and a transaction
// that PostgreSQL may forget must not take writes out of the queue.
const settingsSQL = "SELECT pg_catalog.set_config('lock_timeout', '" + lockTimeout + "', true)" +
	" OPERATOR(pg_catalog.||) pg_catalog.set_config('statement_timeout', '0', true)" +
	" OPERATOR(pg_catalog.||) pg_catalog.set_config('idle_in_transaction_session_timeout', '" + idleTimeout + "', true)" +
	" OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' THEN pg_catalog.set_config('synchronous_commit', 'local', true) ELSE '' END"

// refusedWrite is a statement that PostgreSQL does not take, now or ever.
type refusedWrite struct{ cause error }

func (r *refusedWrite) Error() string { return r.cause.Error() }
func (r *refusedWrite) Unwrap() error { return r.cause }

func isRefusal(err error) bool { return errors.As(err, new(*refusedWrite)) }

// apply runs one entry. With refusing, one that is refused gives a letter.
func (a *applier) apply(ctx context.Context, e redis.Queued, rec *record, given int64, refusing bool) (*Letter, error) {
	c := a.c
	if refusing {
		if _, err := c.Inner().ExecContext(ctx, "SAVEPOINT cachedpg", nil); err != nil {
			return nil, err
		}
	}
	w, err := a.open(e, rec, given)
	if err == nil {
		err = a.run(ctx, w, rec)
	}
	if !refusing || err != nil && !isRefusal(err) {
		return nil, err
	}
	end := "RELEASE cachedpg"
	if err != nil {
		end = "ROLLBACK TO cachedpg"
	}
	if _, ending := c.Inner().ExecContext(ctx, end, nil); ending != nil {
		return nil, ending
	}
	if err == nil {
		return nil, nil
	}
	c.Forget() // the savepoint has undone what apply has set
	letter := &Letter{ID: e.ID, Message: err.Error(), SQL: w.SQL, Args: w.Args}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		letter.SQLState = refused.Code
	}
	return letter, nil
}
