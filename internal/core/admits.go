package core

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/store"
)

// admits reports whether to look up the result with this key, which depends on these tags.
func (c *Conn) admits(q *call, key store.Key, tags []store.Tag) bool {
	a := &q.text.Stats.Admission
	// What a writer refills is wanted, however rarely it is read.
	wanted := c.d.Config.Admission == config.AdmissionAll || q.text.Through != nil
	switch {
	case !wanted && !a.Admits(key):
		return false
	case q.space.Keeper == nil:
		return true
	}
	worth := int32(planning.AccountLimit)
	if !wanted {
		worth = a.Worth(q.text.Stats.Took())
	}
	return q.space.Keeper.Doors.Lookup(tags, worth) || wanted
}

// ask looks the result up, and measures how long that takes unless the text has only hits.
func (c *Conn) ask(ctx context.Context, q *call, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if q.text.Stats.Admission.Spent.Load() == 0 {
		return q.space.Lookup(ctx, key, tags, stamps)
	}
	begin := time.Now()
	entry, outcome, err := q.space.Lookup(ctx, key, tags, stamps)
	q.asked = time.Since(begin)
	return entry, outcome, err
}
