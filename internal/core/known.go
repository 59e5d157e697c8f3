package core

import (
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// state is where a connection stands: a session, the space of its database,
// and the catalog in use when the session was learned, or one with the same schemas. The
// effective search_path depends on which schemas exist, so that one with others wants it learned again.
type state struct {
	session     *planning.Session // nil when not known, because a statement may have changed it
	space       *space.Space      // nil when nothing may be cached there
	view        *space.View
	schemas     catalog.Schemas
	temporaries *keying.Temporaries // known if session is
}

// shared is the session as others see it, nil when it is not known.
func (st *state) shared() *backend.Session {
	if st.session == nil {
		return nil
	}
	return &st.session.Session
}

// fits reports that a session that was learned with these schemas is what it was with the catalog v.
func (st *state) fits(v *space.View) bool {
	schemas := st.schemas
	if st.view != nil {
		schemas = st.view.Snapshot.Schemas() // a SET may have led to it since, which was looked up with that
	}
	return st.session != nil && st.temporaries == nil && schemas != "" && schemas == v.Snapshot.Schemas()
}

// current reports that nothing has happened since the state was learned.
func (st *state) current() bool {
	return st != nil && st.session != nil && (st.space == nil || st.view != nil && st.space.View.Load() == st.view)
}

// forget makes the session's state unknown: a statement may have changed it.
func (c *Conn) forget() {
	c.known.session, c.pristine, c.unsettled = nil, false, nil
	if c.tx == nil {
		c.refused = time.Time{}
	}
}

// mustNotAsk reports that a question would be the first query of the caller's transaction, see
// stateInTx.
func (c *Conn) mustNotAsk() bool {
	return c.tx != nil && !c.tx.queried && c.inner.TxStatus() == 'T'
}
