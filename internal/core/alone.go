package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
)

// A statement that runs alone has no transaction id by which a new epoch could
// wait for it, see Keeper.newHorizon in internal/space: it is marked before it is sent to PostgreSQL. So
// before it is marked, the connection that will run it takes a shared advisory
// lock, which ends with the statement or with the backend. Unlike
// pg_stat_activity, pg_locks tells every role.
var (
	announceAlone = guard.LockSQL("pg_advisory_lock_shared", guard.LockAlone)
	retractAlone  = guard.LockSQL("pg_advisory_unlock_shared", guard.LockAlone)
)

// announce takes the lock. Behind a pooler, in a failed transaction, and before the first query of
// one, the connection cannot: then another does, in a transaction of its own.
func (e *effect) announce(ctx context.Context) error {
	c := e.c
	if c.pid != 0 && c.inner.TxStatus() != 'E' && !c.mustNotAsk() {
		if _, err := backend.AskIn(ctx, c.inner, announceAlone); err != nil { // a lock of the session's stays
			return err
		}
		c.aloneLocks++
		e.lock.conn = c
		return nil
	}
	if c.d.statementPool.Load() {
		return nil
	}
	// What it waits for may be PAUSE, which waits for the lock: while the statement
	// has not begun it can be lost. Then it is taken as soon as there is a connection.
	other := guard.NewRotation(&e.space.Keeper.Guard, 0, true)
	if _, _, err := other.Hold(ctx, []guard.Lock{{Class: guard.LockClass, Object: guard.LockAlone}}, ""); err != nil {
		other.Close()
		return err
	}
	e.lock.other = other
	return nil
}
