package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// PostgreSQL analyses a statement when it prepares it. It does so again when a table that
// the statement reads has changed, or the search_path, or the role of which policies ask;
// but not when a table of the same name has appeared earlier on the search_path: such a statement may
// read another table than its tags say. And not when settings have changed by which it has read literals,
// the time zone of a timestamptz say: such a statement gives what nobody would get who
// asks anew. So the driver has it done, before it sends what that may concern.

// since is the catalog and the session with which statements were prepared on a connection.
type since struct {
	session     *planning.Session   // nil if none was, unknownSession if there were several
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
	if c.mustNotAsk() && !q.text.FixesSnapshot() {
		return // it is a command that PostgreSQL may accept before the first query alone
	}
	s := c.known.session
	switch {
	case c.since.session == nil:
		if c.since.session, c.since.view = s, c.known.view; s == nil {
			c.since.session = unknownSession
		}
	case s != nil && c.since.session != s && !c.since.session.ReadsLike(s, q.text.Dated):
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
