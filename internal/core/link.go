package core

import (
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/space"
)

// link is a connection to PostgreSQL, with everything that is known of it. The zero
// value is one that is not dialled.
type link struct {
	inner  backend.Conn // nil until dialled
	holder *Conn        // whose statements run there

	known    state
	pristine bool      // no statement has changed the session: its state is that of a new connection
	pid      uint32    // of the backend, 0 when it is not known or a pooler may change it
	located  bool      // it was found out once where it leads
	asked    time.Time // when that was
	refused  time.Time // when PostgreSQL refused to say so, such as to a role without rights; zero if it did not
	started  int64     // of the backend, in microseconds since 1970; 0 when it was not asked for

	// misread says that standard_conforming_strings was off: what was prepared
	// then means for ever what it meant then.
	misread bool

	since   since    // see prepared.go
	foundIn *txState // the transaction in which it was found out what the session has; nil if that was outside

	home      stance            // of a new session, as RESET ALL leaves it; zero when it is not known
	defaults  map[string]string // what RESET was found to give, by setting; nil if nothing
	unsettled *change           // the last statement, if what it has left is to be asked
	reports   bool              // PostgreSQL reports settings as it says that they are when it is asked

	// dialled is the catalog when inner was dialled: the view that was in use
	// then, or the first one after.
	dialled struct {
		space      *space.Space
		view       *space.View
		generation uint64
	}

	commits    backend.CommitMode // of a transaction that changes nothing about it
	configured uint64             // that of the space when it was learned
	limit      time.Duration      // what PostgreSQL gives a statement, see patience.go

	tx         *txState // nil outside transactions
	needsReset bool     // inner.ResetSession is due before inner is used again
	suspect    bool     // and a ping before that, see places.suspect

	returning sentReturning // which texts were sent here with what they are made to return

	handedOut bool                // a caller had the pgx connection
	prepared  bool                // there is a Stmt on it
	attached  bool                // the session has something that is its holder's own, see places.go
	until     time.Time           // when it has lasted long enough
	freed     time.Time           // when it was given back
	discarded []backend.Statement // that are to be closed; guarded by places.mu
	gone      atomic.Bool         // it was closed

	aloneLocks int        // how many it holds for statements that run alone, see alone.go
	shown      guard.Lock // the lock by which it shows that it writes, see Conn.showOn
}

// close ends the connection, and its part in a space. A connection of a pool must not be used after that.
func (b *link) close() error {
	if b.inner == nil {
		return nil
	}
	b.gone.Store(true)
	err := b.inner.Close()
	b.tx = nil
	if b.known.space != nil {
		b.known.space.Leave()
	}
	return err
}

// detach takes the backend from the connection, with its place.
func (c *Conn) detach() *link {
	b := c.link
	c.link, c.placement.state = &c.undialled, placementNone
	b.holder = nil
	return b
}

// Inner is the wrapped connection, nil until it is dialled.
func (c *Conn) Inner() backend.Conn { return c.inner }

// DB is what the connection shares with others.
func (c *Conn) DB() *DB { return c.d }

// lending is the pgx connection in the hands of a caller, until the next call here.
type lending struct {
	seen bool        // a tracer sees what he sends; false while the driver sends something of its own
	over func(error) // of a use that no tracer sees; nil if there is none
}

// end ends what is going on past the driver.
func (l *lending) end() {
	l.seen = false
	if over := l.over; over != nil {
		l.over = nil
		over(nil)
	}
}

// pause has the tracer take what is sent for the driver's own, until resume is called.
func (l *lending) pause() (resume func()) {
	seen := l.seen
	l.seen = false
	return func() { l.seen = seen }
}
