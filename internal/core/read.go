package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// query is the life of a SELECT: plan, look up, replay; or bypass; or fill.
func (c *Conn) query(ctx context.Context, q *call) (backend.ResultSet, error) {
	if ctx.Err() != nil {
		if err := c.readyFor(ctx, q); err != nil {
			return nil, err
		}
		return c.inner.QueryContext(ctx, q.sql, q.args) // pgx sends nothing and says why
	}
	if err := c.plan(ctx, q); err != nil {
		return nil, err
	}
	l, reason := c.lookup(ctx, q)
	if reason != keying.NoReason {
		return c.direct(ctx, q, reason)
	}
	if q.space.Large.Has(l.key, c.d.Config.MaxEntry) {
		c.d.stats.miss(q.text.Stats, false)
		return c.fill(ctx, q, &fetch{key: l.key, large: true, outcome: store.Busy}, nil)
	}
	if !c.admits(q, l.key, l.tags) {
		return c.direct(ctx, q, keying.NoGain)
	}
	key, tags, always := l.key, l.tags, l.always
	stamps := c.stamps[:]
	if len(tags) > len(stamps) {
		stamps = make([]store.Stamp, len(tags))
	}
	stamps = stamps[:len(tags)]

	entry, outcome, err := c.ask(ctx, q, key, tags, stamps)
	if err == nil && outcome == store.Hit && q.tooOld(entry) {
		entry, outcome, err = q.space.Lookup(ctx, store.Key{}, tags, stamps) // a hit gives no stamps
	}
	switch {
	case err != nil:
		c.d.stats.storeErrors.Add(1)
		return c.direct(ctx, q, q.space.StoreReason(err))
	case l.others && (outcome != store.Hit || entry.Rows < l.rows):
		q.space.GiveUp(key, stamps, outcome)
		return c.direct(ctx, q, keying.InTransactionAfterWrite)
	case outcome == store.Hit && !c.refreshes(ctx, q, entry, tags, stamps):
		c.d.stats.hit(q.text.Stats)
		q.text.Gained()
		if q.text.Through != nil {
			c.remember(ctx, q, l, entry)
		}
		return newRows(c, entry), nil
	case outcome == store.Dirty && (always == len(tags) || slices.Contains(stamps[:always], 0)):
		// Someone's commit is under way: only PostgreSQL knows on which side of it we are.
		return c.direct(ctx, q, keying.DirtyTag)
	case stamps[0] != q.view.Stamp:
		// tags[0] is the schema tag: the plan stands on a catalog that is out
		// of date. A fill would leave an entry with new stamps and the tags of
		// an old schema.
		q.space.GiveUp(key, stamps, outcome)
		if q.replanned || q.space.Loads.Await(ctx, q.view, c.d.readPatience) == nil {
			return c.direct(ctx, q, keying.CatalogUnavailable)
		}
		q.replanned = true
		return c.query(ctx, q)
	}
	if outcome == store.Dirty {
		// Only what a result without rows, or with too few, depends on is being
		// changed: other rows of the table come and go. With rows it may be kept.
		tags, stamps = tags[:always], stamps[:always]
		q.rowsOnly = true
	}
	c.d.stats.miss(q.text.Stats, outcome == store.Stale)
	if entry != nil {
		c.d.stats.refreshed.Add(1)
	}
	step.At(step.LookedUp)
	return c.miss(ctx, q, &fetch{key: key, tags: tags, always: always, rows: l.rows, stamps: stamps, outcome: outcome, early: entry})
}

// unknownSession stands in for a session whose settings are not known.
var unknownSession = &planning.Session{}
