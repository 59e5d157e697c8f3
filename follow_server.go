package cachedpg

import (
	"context"
	"database/sql/driver"
)

// whereFrom takes the server off the answer to a question with identity, and
// notes whether the transaction is where the marks would be.
func (e *effect) whereFrom(answer string) string {
	if !e.drifts {
		return answer
	}
	where, rest := cutIdentity(answer)
	e.located = true
	if e.space == nil {
		e.strayed = !isStandby(where)
	} else {
		e.strayed = where != e.space.key.identity.text()
	}
	return rest
}

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
	if !e.drifts || e.blind || e.c.inner.txStatus() == 'E' {
		return nil
	}
	if !e.located {
		if err := e.transaction(ctx); err != nil {
			return err
		}
	}
	if !e.strayed {
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
	e.strayed = false
	if err := c.learn(ctx); err != nil {
		if c.inner.closed() && c.tx == nil && !e.wraps {
			return driver.ErrBadConn // nothing was sent
		}
		return err
	}
	e.space, e.view, e.tags = c.known.space, nil, nil
	if e.space != nil {
		e.everything()
		e.leave = e.space.gens.Enter()
	}
	return nil
}

// depart counts a statement in that is marked in memory and not answered yet,
// see space.settled.
func (e *effect) depart() {
	e.counted = e.space
	e.space.underway.Add(1)
	if e.blind {
		e.space.adrift.Add(1)
	}
}

// arrived counts it out.
func (e *effect) arrived() {
	sp := e.counted
	if e.counted = nil; sp == nil {
		return
	}
	sp.underway.Add(-1)
	if e.blind {
		sp.adrift.Add(-1)
	}
}

// lookBack asks where a statement was that could not be asked while it ran. If
// that was elsewhere, everything that is cached there is out of date.
func (c *Conn) lookBack(e *effect) {
	if c.inner.closed() || c.inner.txStatus() != 'I' {
		return
	}
	if e.space == nil && c.inStandby() == "on" {
		return // it was a standby when the statement had ended
	}
	defer func(raw bool) { c.raw = raw }(c.raw)
	c.raw = false // what is asked here is the driver's own
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	answer, err := c.inner.text(ctx, withIdentity("SELECT ''"))
	if err == nil {
		if e.whereFrom(answer); !e.strayed {
			return
		}
		err = c.learn(ctx)
	}
	if sp := c.known.space; sp != nil {
		if err == nil {
			err = sp.invalidateAll(ctx)
		}
		if err != nil {
			sp.supersede()
		}
	}
}
