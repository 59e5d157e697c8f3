package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// plan finds out what the text means to the session that will run it. An
// error is one of dialling.
func (c *Conn) plan(ctx context.Context, q *call) error {
	known, err := c.state(ctx)
	if err != nil {
		return err
	}
	q.session, q.space, q.view = known.session, known.space, known.view
	if q.mode == 0 {
		if q.mode = c.d.mode; c.inner != nil {
			q.mode = c.inner.Mode()
		}
	}
	if q.session == nil || q.mode < 0 || int(q.mode) >= len(q.session.Digests) {
		q.session, q.view = unknownSession, space.NoCatalog
	} else if q.view == nil || c.tx == nil && !known.current() {
		q.view = space.NoCatalog
	}
	reader := q.session
	if reader == unknownSession {
		reader = c.reported()
	}
	if c.misread {
		reader = reader.Unreadable()
	}
	if c.planText(ctx, q, known, reader); q.view != space.NoCatalog && !known.current() && !q.text.Plan.Writes {
		q.view = space.NoCatalog // but for a write in a transaction, whose commit compares
		c.planText(ctx, q, known, reader)
	}
	c.since.unknown = c.since.unknown || q.text.Plan.Unknown
	switch plan := q.text.Plan; {
	case q.view == space.NoCatalog:
		if known.session != nil && q.space != nil && !q.refreshed && (plan.Writes || q.text.Has(parser.Begin) && q.space.Loads.Begins()) {
			q.refreshed = true
			if q.space.Loads.Await(ctx, nil, patience.Load) != nil {
				return c.plan(ctx, q)
			}
		}
	case q.refreshed:
	case plan.Unknown:
		return c.refresh(ctx, q)
	case plan.Reason == keying.UnreadableView && q.view.Snapshot.Incomplete() && q.space.Refresh.Due(time.Now()):
		q.refreshed = true // someone held a lock on it when it was loaded
		if q.space.Loads.Await(ctx, q.view, c.d.readPatience) != nil {
			return c.plan(ctx, q)
		}
	}
	return nil
}

// refresh has the catalog loaded again because it lacks a name of the text, which
// a DDL past the driver may have made. If it has changed, everything that
// was planned or stored before is cold, see the space's agree.
func (c *Conn) refresh(ctx context.Context, q *call) error {
	q.refreshed = true
	if !q.space.Refresh.Due(time.Now()) || q.space.Loads.Await(ctx, q.view, c.d.readPatience) == nil {
		return nil
	}
	q.space.Refresh.Helped()
	return c.plan(ctx, q)
}
