package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
)

// Temporary objects are kept beside the settings of the session (see stance): what a statement makes or
// drops is read from its text, a transaction's end goes back to what was or keeps what lasts, and after
// code that is not seen the session is asked.
//
//	BEGIN                                  began   kept   now
//	CREATE TEMP TABLE a … ON COMMIT DROP   -       -      a
//	CREATE TEMP TABLE b …                  -       b      a b
//	COMMIT                                         kept
//	ROLLBACK                               began

// planText finds out what the text of q means, with the temporary objects that it mentions.
func (c *Conn) planText(ctx context.Context, q *call, known *state, reader *planning.Session) {
	q.text, q.loose = c.d.Plan(q.view, reader, q.sql), false
	own := known.temporaries
	if own == nil || q.view == space.NoCatalog {
		return
	}
	q.loose = known.session.Placed || c.pid == 0 && (c.tx == nil || c.foundIn != c.tx)
	if q.loose {
		own = own.Loose()
	}
	among := own.Among(q.text.Plan)
	if among == nil {
		return
	}
	if !c.unveiled(ctx, known, q.view) {
		q.session, q.view = unknownSession, space.NoCatalog
		q.text = c.d.Plan(q.view, c.reported(), q.sql)
		return
	}
	q.text = c.d.PlanAmong(q.view, reader, among, q.sql)
}

// unveiled has PostgreSQL analyse again what was prepared before a temporary object came to stand in
// front of another: it goes on to use the other one. It is false after an error.
func (c *Conn) unveiled(ctx context.Context, known *state, v *space.View) bool {
	if c.inner == nil || c.since.temporaries == known.temporaries {
		return true
	}
	hides := c.since.unknown
	for name := range known.temporaries.Names {
		hides = hides || v.Snapshot.Names(known.session.Path, name)
	}
	if hides {
		c.reanalyse(ctx)
	}
	c.since.temporaries = known.temporaries
	return c.known.session != nil
}
