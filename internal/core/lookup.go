package core

import (
	"cmp"
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// lookup is what a read asks of the store.
type lookup struct {
	key    store.Key
	tags   []store.Tag // until the next lookup on the connection
	always int         // that many of tags concern every result
	rows   int         // the others concern one of fewer rows

	// others says that the transaction has changed other rows of a table. One
	// that was there is as it was; but what the transaction reads may be its own
	// new row.
	others bool
}

// lookup says what to ask of the store, or why it must not be asked. It asks
// the store nothing.
func (c *Conn) lookup(ctx context.Context, q *call) (l lookup, reason keying.Reason) {
	if reason = c.mayRead(ctx, q); reason != keying.NoReason {
		return l, reason
	}
	key, buf, reason := q.text.Plan.Key(&q.session.Digests[q.mode], q.keyingValues(), c.keyBuf)
	c.keyBuf = buf[:0]
	moment := q.text.Plan.Reason
	if reason == keying.ClockInput && q.excused(ctx) {
		reason, moment = keying.NoReason, cmp.Or(moment, reason)
	}
	if reason != keying.NoReason {
		return l, reason
	}
	tags, always, rows := q.text.Plan.ReadTags(c.tags[:0], q.keyingValues())
	if c.tx != nil && c.tx.wrote(q.view, tags[:always]) {
		return l, keying.InTransactionAfterWrite
	}
	if moment != keying.NoReason && c.tx != nil {
		return l, moment // see ttl.go
	}
	if reason = q.space.NotFollowed(tags); reason != keying.NoReason {
		return l, reason
	}
	others := c.tx != nil && c.tx.wrote(q.view, tags[always:])
	l = lookup{key: key, tags: tags, always: always, rows: rows, others: others}
	if q.byAge = moment != keying.NoReason || len(q.text.Aged) > 0; q.byAge {
		l.byAge(q.text.Aged, q.ttl(ctx))
	}
	return l, keying.NoReason
}

// mayRead reports why the cache must not be asked, NoReason if it may.
func (c *Conn) mayRead(ctx context.Context, q *call) keying.Reason {
	h := hintsOf(ctx)
	switch {
	case q.text.Plan.Reason != keying.NoReason && q.view != space.NoCatalog && !q.excused(ctx):
		return q.text.Plan.Reason
	case c.d.Config.Store == config.StoreOff:
		return keying.CacheOff
	case c.d.Config.Mode != config.ModeReadWrite:
		return bypassOf(&c.d.Config)
	case c.d.Stranger(q.space):
		return keying.OtherStore
	case q.session == unknownSession || c.misread:
		return keying.SessionUnknown
	case q.session.Standby:
		return keying.HotStandby
	case q.view == space.NoCatalog:
		return q.space.Unavailable()
	case h.Bypass:
		return keying.ContextBypass
	case q.text.Hints.Bypass:
		return keying.HintBypass
	case q.text.Off:
		return keying.PolicyOff
	case q.formats:
		return keying.ResultFormats
	case q.loose:
		return keying.TemporaryObjects
	case q.space.Feed.Load().Down():
		return keying.FeedDown
	case q.space.Keeper == nil && q.space.Peers.MayHit(ctx) != keying.NoReason:
		return q.space.Peers.Reason()
	case q.space.Lease != nil && !q.space.Lease.Holds(ctx):
		return keying.Unwatched
	case !q.space.IsWarm(ctx, c.inner, &q.session.Session, q.view):
		return keying.Warming
	case c.tx != nil:
		return c.tx.mayRead(ctx, c)
	}
	return keying.NoReason
}

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
