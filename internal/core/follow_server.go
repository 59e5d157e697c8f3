package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
)

// location is what is known of the server on which a write commits, see Conn.moved and internal/space/move.go.
type location uint8

const (
	locationFixed     location = iota // the connection leads there for as long as it lives
	locationOpen                      // it may be another one: the transaction is to be asked
	locationBlind                     // so, and there is no transaction to ask: the server is asked when the statement has run
	locationConfirmed                 // the transaction was asked, and is where the marks are to be
	locationElsewhere                 // it was asked, and is not
)

// location is that of the next write.
func (c *Conn) location() location {
	if c.drifts() {
		return locationOpen
	}
	return locationFixed
}

// drifts reports that the connection may lead elsewhere, so that each transaction is asked where it is.
func (l location) drifts() bool { return l != locationFixed }

func (l location) asked() bool { return l == locationConfirmed || l == locationElsewhere }

// whereFrom takes the server off the answer to a question with identity, and
// notes whether the transaction is where the marks would be.
func (e *effect) whereFrom(answer string) string {
	if !e.where.drifts() {
		return answer
	}
	where, rest := backend.CutIdentity(answer)
	switch {
	case e.where == locationBlind: // a part of the text may run in another transaction
	case e.isAt(where):
		e.where = locationConfirmed
	default:
		e.where = locationElsewhere
	}
	return rest
}

// isAt reports that the server is the one where the marks would be.
func (e *effect) isAt(where string) bool {
	if e.space == nil {
		return backend.IsStandby(where)
	}
	return where == e.space.Key.Identity.Text()
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

// departure is a statement that is marked in memory and not answered yet, as its space counts
// it, see internal/space/move.go. The zero value is one that is not counted.
type departure struct {
	space *space.Space
	blind bool
}

// depart counts a statement in.
func depart(sp *space.Space, blind bool) departure {
	sp.Underway.Add(1)
	if blind {
		sp.Adrift.Add(1)
	}
	return departure{sp, blind}
}

// end counts it out, once.
func (d *departure) end() {
	if d.space == nil {
		return
	}
	d.space.Underway.Add(-1)
	if d.blind {
		d.space.Adrift.Add(-1)
	}
	d.space = nil
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
