package core

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// PostgreSQL analyses a statement when it prepares it. It does so again when a table that
// the statement reads has changed, or the search_path, or the role of which policies ask;
// but not when a table of the same name has appeared earlier on the search_path: such a statement may
// read another table than its tags say. And not when settings have changed by which it has read literals,
// the time zone of a timestamptz say: such a statement gives what nobody would get who
// asks anew. So the driver has it done, before it sends what that may concern.

// since is the catalog and the session with which statements were prepared on a connection.
type since struct {
	session     *session            // nil if none was, unknownSession if there were several
	view        *space.View         // nil if it was several, or none
	temporaries *keying.Temporaries // those that nothing was prepared without; nil if that is not known
	unknown     bool                // a name was not in the catalog
}

// holds reports that no statement was prepared with another catalog than v.
func (s since) holds(v *space.View) bool { return s.session == nil || s.view == v }

// renew makes PostgreSQL analyse again what was prepared with another catalog than v.
func (c *Conn) renew(ctx context.Context, v *space.View) {
	switch s := c.known.session; {
	case s == nil || c.since.holds(v):
	case v == nil:
		c.since.view = nil // nothing is cached, so it has time until there is a catalog again
	default:
		c.reanalyse(ctx)
		c.since.view = v
	}
}

// prepares is called before q is sent, by which it may come to be prepared.
func (c *Conn) prepares(ctx context.Context, q *call) {
	if c.mustNotAsk() && !q.text.fixesSnapshot() {
		return // it is a command that PostgreSQL may accept before the first query alone
	}
	s := c.known.session
	switch {
	case c.since.session == nil:
		if c.since.session, c.since.view = s, c.known.view; s == nil {
			c.since.session = unknownSession
		}
	case s != nil && c.since.session != s && !c.since.session.readsLike(s, q.text.dated):
		c.reanalyse(ctx)
	}
}

func (c *Conn) reanalyse(ctx context.Context) {
	if _, err := c.inner.ExecContext(ctx, "DISCARD PLANS", nil); err != nil {
		c.known.session = nil
		return
	}
	c.since.session, c.since.unknown = c.known.session, false
}

// dated reports that the zone and the style of dates may decide what PostgreSQL reads when it
// prepares a text: in a literal of it, or of a function that it calls. Every other setting may
// decide that without any: NULL is compared with by transform_null_equals, and (1/3.0)::text is a
// constant of the extra_float_digits of then.
func dated(scanned parser.Scanned, plan *keying.Plan) bool {
	return scanned.Text == "" || plan.Calls || slices.ContainsFunc(scanned.Literals, func(l parser.Literal) bool { return l.Kind == parser.String })
}

// readsLike reports that what is prepared in s is what it would be in other.
func (s *session) readsLike(other *session, dated bool) bool {
	if len(s.Values) != len(other.Values) || len(s.Values) <= backend.FirstSetting || s.Reading != other.Reading {
		return false
	}
	for i := backend.FirstSetting; i < len(s.Values); i++ {
		if s.Values[i] != other.Values[i] && (dated || i != valueTimeZone && i != valueDateStyle) {
			return false
		}
	}
	return true
}

var (
	valueTimeZone  = backend.FirstSetting + slices.Index(keying.Settings, "TimeZone")
	valueDateStyle = backend.FirstSetting + slices.Index(keying.Settings, "DateStyle")
)
