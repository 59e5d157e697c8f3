package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/store"
)

// expects notes that what q changes will be known from its rows, if it will be in time. In the caller's transaction its
// tags wait for that.
func (e *effect) expects(q *call, commits bool) {
	c := e.c
	switch {
	case q.returned == nil:
	case q.returned.plan != q.text.Plan || e.also.asks: // it was planned anew, or runs more than it says
		q.returned = nil
	case commits:
		e.returned = q.returned
	default:
		e.returned, e.tx = q.returned, c.tx
		c.tx.planned(q.view)
		c.tx.unread++
	}
}

// keepsReturned is called when the kind of e is known, and leaves q as it is where its rows would be of no use.
func (e *effect) keepsReturned(q *call) {
	switch {
	case e.returned == nil, e.kind == writeWrapped:
	case e.kind == writeAlone && e.marking() == markedHere && !e.where.drifts():
	default:
		e.returned, q.returned = nil, nil
	}
}

// narrow makes of what the statement may have changed what it has changed, once it has ended with err. If that is not known
// nothing is taken away.
func (e *effect) narrow(err error) {
	r := e.returned
	if r == nil {
		return
	}
	e.returned = nil
	if err == nil {
		r.stats.Changed.Note(r.rows)
	}
	precise, ok := r.precise()
	ok = ok && err == nil && !e.c.inner.Closed()
	if precise.Len() == 0 && e.marking() != markedHere { // a catalog that has changed since may know more, and is compared with tags alone
		ok = false
	}
	switch {
	case e.tx != nil:
		e.tx.unread--
		if ok {
			e.tags = precise.Tags()
		}
		e.tx.add(e.view, e.tags)
	case !ok:
	case e.kind == writeWrapped:
		e.tags = precise.Tags()
	case e.kind == writeAlone && e.write != nil:
		e.spare(&precise)
	}
}

// spareUnchanged takes the marks away of a statement that has changed no row: INSERT … ON CONFLICT DO NOTHING of one that is
// there, DELETE of one that is not. Where the tags are marked after it, it has no transaction id, and is not marked.
func (e *effect) spareUnchanged(q *call, result backend.Result, err error) {
	if err != nil || !q.text.Plan.Counted || e.kind != writeAlone || e.write == nil || e.marking() != markedHere || e.where.drifts() || e.c.inner.Closed() {
		return
	}
	if n, err := result.RowsAffected(); err == nil && n == 0 && !e.space.Superseded.Load() && e.write.Spare(context.Background(), e.tags) == nil {
		e.tags, e.returned = nil, nil
	}
}

// spare takes the marks away that were set for what was not changed, after those are set of what was. An entry that was
// filled before the statement and depends on a row that it has changed has a tag among precise, and dies of that.
func (e *effect) spare(precise *store.TagSet) {
	ctx := context.Background() // in memory nothing is waited for
	if e.space.Superseded.Load() || e.write.Intend(ctx, precise.Tags()) != nil {
		return
	}
	needless := slices.DeleteFunc(slices.Clone(e.tags), precise.Has)
	if len(needless) > 0 && e.write.Spare(ctx, needless) == nil {
		e.tags = precise.Tags()
	}
}
