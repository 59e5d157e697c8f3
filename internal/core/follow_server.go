package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// locate makes sure that the marks will be those of the server that the
// transaction which is about to commit is on. There it stays until its end.
//
//	writer, knows A                 pooler                  reader
//	BEGIN; UPDATE
//	                                leads to B
//	marks what A has
//	COMMIT, on B
//	                                                        (a hit of what B had before)
func (e *effect) locate(ctx context.Context) error {
	if e.c.inner.TxStatus() == 'E' {
		return nil
	}
	if e.where == locationOpen {
		if err := e.transaction(ctx); err != nil {
			return err
		}
	}
	if e.where != locationElsewhere {
		return nil
	}
	if e.xid == "" { // it has written nothing
		e.c.known.session = nil
		return nil
	}
	return e.follow(ctx)
}

// follow goes on in the space of the server that the connection has come to.
// What was planned says nothing there: everything is to be marked.
func (e *effect) follow(ctx context.Context) error {
	c := e.c
	e.unmark()
	if e.where == locationElsewhere {
		e.where = locationConfirmed
	}
	if err := c.learn(ctx); err != nil {
		if c.inner.Closed() && c.tx == nil && e.kind != writeWrapped {
			return backend.ErrBadConn // nothing was sent
		}
		return err
	}
	e.space, e.view, e.tags = c.known.space, nil, nil
	if e.space != nil {
		e.everything()
		e.leave = e.space.Gens.Enter()
	}
	return nil
}

// lookBack asks where a statement was that could not be asked while it ran. If
// that was elsewhere, everything that is cached there is out of date.
func (c *Conn) lookBack(e *effect) {
	if c.inner.Closed() || c.inner.TxStatus() != 'I' {
		return
	}
	if e.space == nil && c.inStandby() == "on" {
		return // it was a standby when the statement had ended
	}
	defer c.lent.pause()()
	ctx, cancel := context.WithTimeout(context.Background(), backend.RollbackTimeout)
	defer cancel()
	answer, err := c.inner.Ask(ctx, backend.WithIdentity("SELECT ''"))
	if err == nil {
		if where, _ := backend.CutIdentity(answer); e.isAt(where) {
			return
		}
		err = c.learn(ctx)
	}
	if sp := c.known.space; sp != nil {
		if err == nil {
			err = sp.InvalidateAll(ctx)
		}
		if err != nil {
			sp.Supersede()
		}
	}
}
