package behind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store/redis"
)

// applier empties the queue, over a connection of the driver's own kind: so
// what it writes is marked, committed and released as any other write is. Many
// processes may try; the lock of the row with the position lets one at a time.
//
//	BEGIN; lock the position
//	is the queue this server's?
//	read the entries behind it, run them
//	record the new position, and those that were refused
//	COMMIT
//	take the applied out of the queue, put the refused among the dead
//
// Killed before COMMIT, nothing has happened. Killed after it, the next one
// finds the position, begins behind it and repeats the last line.
type applier struct {
	b    *Queue
	c    Conn // nil when it is given up
	seen bool // the queue was compared with the position on this connection

	place   string
	rival   rival
	catalog *catalog.Snapshot // of now, for the batch
	keyBuf  []byte            // scratch space
}

func (a *applier) close() {
	if a.c != nil {
		_ = a.c.Close()
		a.c, a.seen, a.place = nil, false, ""
	}
}

// isClosed reports that there is no connection that could be used.
func (a *applier) isClosed() bool { return a.c == nil || isClosed(a.c) }

func isClosed(c Conn) bool { return c.Inner() == nil || c.Inner().Closed() }

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

func named(values ...any) []backend.Arg {
	args := make([]backend.Arg, len(values))
	for i, v := range values {
		args[i] = backend.Arg{Ordinal: i + 1, Value: v}
	}
	return args
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

// session is the session that the transaction is in, as entries give it.
func (a *applier) session(ctx context.Context) (settings map[string]string, err error) {
	s, err := a.c.Session(ctx)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errors.New("cachedpg: write-behind: the session's settings cannot be read")
	}
	return SettingsOf(s), nil
}

// enterSession gives the transaction the settings under which the write was
// queued, where they are not the applier's own.
func (a *applier) enterSession(ctx context.Context, wanted map[string]string) error {
	c := a.c
	own, err := a.session(ctx)
	if err != nil {
		return err
	}
	var calls []string
	var args []any
	for name, want := range wanted {
		if own[name] != want {
			args = append(args, name, want)
			calls = append(calls, fmt.Sprintf("pg_catalog.set_config($%d, $%d, true)", len(args)-1, len(args)))
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if _, err := c.Exec(ctx, "SELECT "+strings.Join(calls, ", "), named(args...)); err != nil {
		err = fmt.Errorf("cachedpg: write-behind: a write was queued in a session that this process cannot enter: %w", err)
		if isGone(err) { // nobody can
			err = &refusedWrite{err}
		}
		return err
	}
	c.Forget()
	return nil
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

// isGone reports that a setting has a value that there is not any more, such as a role.
func isGone(err error) bool { return pgerr.Is(err, pgerr.InvalidValue, pgerr.UndefinedObject) }

// isVictim reports that PostgreSQL has undone the transaction for the sake of another.
func isVictim(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && strings.HasPrefix(refused.Code, "40")
}

func isLockTimeout(err error) bool { return pgerr.Is(err, pgerr.LockNotAvailable) }
