package core

import (
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/through"
	"github.com/cachedpg/cachedpg/store"
)

// debt is what a connection has to refill before the call ends that committed.
type debt struct {
	space    *space.Space
	due      []through.Recipe
	released []chan struct{} // closed when the store was asked to release
}

// owe notes what the commit of e, which PostgreSQL has confirmed, invalidates of
// what was cached. It is called before the release.
func (c *Conn) owe(e *effect) {
	switch {
	case !c.d.through, c.whose == usedByApplier, c.tx != nil:
		return
	case e.also.catalog || e.also.session || e.schema || e.leaveNotice != nil:
		return // plans, session or store are not what they were
	case slices.ContainsFunc(e.tags, func(t store.Tag) bool { return t.Kind == store.TagSchema }):
		return // everything was invalidated
	}
	limit := int(min(c.d.Config.RefillMax, through.MaxRecipes))
	if e.commits != backend.CommitSync {
		limit = 0 // what is not on disk yet is not cached
	}
	if c.owed != nil { // several commits while the connection was lent out
		limit -= len(c.owed.due)
	}
	due, left := e.space.Recipes.Affected(e.tags, c.known.shared(), limit, store.Now())
	c.d.stats.refillSkipped.Add(uint64(left))
	if len(due) == 0 {
		return
	}
	if c.owed == nil {
		c.owed = &debt{space: e.space}
	}
	for _, r := range due {
		if !slices.ContainsFunc(c.owed.due, func(o through.Recipe) bool { return o.Key == r.Key }) {
			c.owed.due = append(c.owed.due, r)
		}
	}
	e.released = make(chan struct{})
	c.owed.released = append(c.owed.released, e.released)
}
