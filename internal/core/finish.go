package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation"
)

// done ends the write: PostgreSQL has answered, or the connection is gone.
// err is what the caller gets. A second call does nothing.
func (e *effect) done(err error) {
	if e.over {
		return
	}
	e.over = true
	c := e.c
	e.narrow(err)
	c.ran(&e.also, err)
	defer e.departed.end() // after an outcome that is not known has been counted
	if e.where == locationBlind {
		defer c.lookBack(e)
	}
	if tx := c.tx; tx != nil && e.write != nil { // a text that opened a transaction, or went on after a COMMIT
		tx.catalog = tx.catalog || e.also.catalog
		tx.add(e.view, e.tags)
	}
	if e.also.resolved && e.space != nil {
		e.space.Writes.Kick()
		if e.space.Keeper != nil {
			e.space.Keeper.Hurry()
		}
	}
	switch {
	case e.write == nil:
		e.unblock()
	case c.inner.Closed():
		e.lost()
	case e.also.prepared && err == nil && e.xid != "":
		e.abandon(c.d.ended(e.space, 0, e.xid, backend.CommitSync)) // to commit it waits for the disk, whatever is set
	case e.also.prepared && err == nil && e.nameless:
		// Whoever commits it, nobody can tell when.
		e.abandon(func(context.Context) (bool, error) { return false, nil })
	default:
		e.answered(err)
	}
}

// lost ends a write whose answer has not arrived.
func (e *effect) lost() {
	c, sp := e.c, e.space
	switch {
	case e.kind == writeCommit && !e.also.prepared && c.pid == 0 && !e.hasWritten() && sp.Keeper == nil:
		e.release() // the transaction had no id, so it had nothing to commit
	case (e.kind == writeAlone || e.nameless) && c.pid == 0 && sp.Keeper != nil:
		// Nothing can be asked by its id. The sweep of any process finds out when
		// it is over.
		c.d.stats.unknown.Add(1)
		if e.also.catalog {
			sp.DropView()
		}
		e.unblock()
		sp.Keeper.Hurry()
	default:
		// It may be on its way still, and only PostgreSQL knows. backend.ErrBadConn
		// proves nothing: pgx reports a connection that broke after the statement
		// was sent as one that was closed before.
		e.abandon(c.d.ended(sp, c.pid, e.xid, e.commits))
	}
}

// answered ends a write that has committed, or failed with err.
func (e *effect) answered(err error) {
	c := e.c
	step.At(step.Committed)
	if e.assumed && c.configured != e.space.Configured.Load() {
		e.commits = backend.CommitUnknown // the reload may have been before the commit
	}
	if e.commits == backend.CommitDoubtful && c.onDisk(e.space) {
		e.commits = backend.CommitSync
	}
	if err == nil {
		c.owe(e)
	}
	if e.commits != backend.CommitSync {
		e.releaseFlushed()
		return
	}
	e.release()
}

// release ends the marks. After a DDL it waits, off the caller's path, for
// those who planned with the old catalog.
func (e *effect) release() {
	if !e.also.catalog {
		e.unblock()
		e.write.ReleaseTelling(e.released)
		return
	}
	released := make(chan struct{})
	e.space.Loads.Follow(released)
	generation := e.space.DropView()
	e.unblock()
	e.space.Gens.WhenOlderLeft(generation, func() { e.write.ReleaseTelling(released) })
}

// abandon leaves the marks to the resolver, which asks ended until it says
// that nothing more can become visible.
func (e *effect) abandon(ended func(context.Context) (bool, error)) {
	e.c.d.stats.unknown.Add(1)
	e.lock.conn = nil // it ended with the connection, which is no longer ours to use

	if e.write.Empty() { // nobody opens what it has relied on before it is over
		e.unblock()
		return
	}
	e.space.Enter()
	waiting := make(chan struct{})
	dropped := false
	e.write.Abandon(func(ctx context.Context) (bool, error) {
		if !dropped {
			ok, err := ended(ctx)
			if errors.Is(err, backend.ErrServerReplaced) { // nobody asks for what was cached of that server: its marks may stay
				e.unblock()
				go e.space.Leave() // it may end the resolver that is calling
				return false, fmt.Errorf("%w: %w", invalidation.ErrNever, err)
			}
			if !ok || err != nil {
				return false, err
			}
			dropped = true
			if !e.also.catalog {
				close(waiting)
			} else {
				e.space.Gens.WhenOlderLeft(e.space.DropView(), func() { close(waiting) })
			}
			e.unblock()
		}
		select {
		case <-waiting:
			go e.space.Leave() // it may end the resolver that is calling
			return true, nil
		default:
			return false, nil
		}
	})
}

// releaseFlushed is release for a commit that may not be on disk.
func (e *effect) releaseFlushed() {
	sp := e.space
	if e.marking() == markedAfterwards {
		// Nothing is marked, others may read and store it. What they have stored
		// dies once more when it is known to stay, or to be lost.
		tags, catalog := e.tags, e.also.catalog
		e.release()
		sp.Flushed.After(func() {
			write := sp.Writes.Begin()
			write.Remember(tags)
			if !catalog {
				write.Release()
				return
			}
			sp.Gens.WhenOlderLeft(sp.DropView(), write.Release)
		})
		return
	}
	if e.also.catalog {
		sp.DropView() // this process has to know it at once
	}
	notice := e.leaveNotice
	e.leaveNotice = nil
	e.unblock()
	e.leaveNotice = notice // it stands as long as marks would
	sp.Flushed.After(e.release)
}
