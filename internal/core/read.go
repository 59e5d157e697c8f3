package core

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
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
// was planned or stored before is cold, see Space.Agree.
func (c *Conn) refresh(ctx context.Context, q *call) error {
	q.refreshed = true
	if !q.space.Refresh.Due(time.Now()) || q.space.Loads.Await(ctx, q.view, c.d.readPatience) == nil {
		return nil
	}
	q.space.Refresh.Helped()
	return c.plan(ctx, q)
}

// unknownSession stands in for a session whose settings are not known.
var unknownSession = &planning.Session{}

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

// direct runs the statement on PostgreSQL, exactly as pgx would.
func (c *Conn) direct(ctx context.Context, q *call, reason keying.Reason) (backend.ResultSet, error) {
	c.d.stats.bypass(q.text.Stats, reason)
	before := c.inner
	if err := c.readyFor(ctx, q); err != nil {
		return nil, err
	}
	if c.inner != before { // planned with what was known of another one
		if err := c.plan(ctx, q); err != nil {
			return nil, err
		}
	}
	if err := c.catchUp(ctx, q); err != nil {
		return nil, err
	}
	c.prepares(ctx, q)
	if q.text.Plan.Limits {
		c.limit = hurried
	}
	if !q.text.Effects() {
		c.sends(q)
		return c.pass(ctx, q)
	}
	if err := c.check(ctx, q); err != nil {
		return nil, err
	}
	q.ours = true
	e, err := c.begin(ctx, q)
	if err != nil {
		return nil, c.unsent(ctx, err)
	}
	if e.kind == writeWrapped {
		return c.autocommitRows(ctx, q, e)
	}
	e.asksAlong(q)
	rows, err := c.pass(ctx, q)
	if err != nil {
		err = c.hears(err)
		e.done(err)
		return nil, err
	}
	return withEffect(rows, e), nil
}

// pass runs a query of which nothing is stored, as pgx' stdlib would.
func (c *Conn) pass(ctx context.Context, q *call) (backend.ResultSet, error) {
	if q.mode != pgx.QueryExecModeDescribeExec || c.inner.TxStatus() != 'I' || q.sql == "" { // which pgx sends otherwise
		return c.inner.QueryContext(ctx, q.sql, q.args)
	}
	wire, err := c.inner.Read(ctx, q.sent())
	if err != nil {
		return nil, pgerr.AsStdlib(err)
	}
	rows, err := c.readRowsUpTo(0, wire, &planning.Shape{}) // pgx has read the first one too
	if err != nil {
		return nil, err
	}
	return rows, nil
}
