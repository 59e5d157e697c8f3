package core

import (
	"context"
	"strings"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// txState is what the driver knows of the transaction that is open on a
// connection, however it was begun. Statements change it by runs and ran, and effect.plan. See
// docs/decisions/transactions-and-sessions.md (D24, D25, D26).
type txState struct {
	txWrites
	txSettings

	queried   bool // the caller has run a statement in it that fixes its snapshot, see stateInTx
	isolation backend.Isolation
	found     found // see along.go
}

// txWrites is what the transaction has written so far, or may have. Nothing is taken away: a savepoint that is
// rolled back leaves its tags.
type txWrites struct {
	tags    store.TagSet
	view    *space.View // the catalog that the writes were planned with, the first one if mixed
	mixed   bool        // there were several
	catalog bool        // the catalog was changed
	asks    bool        // code was run that is not understood, see ask.go
	cursor  bool        // a cursor was declared: COMMIT runs the query of one WITH HOLD, which may write then
	unseen  bool        // it is not known on which server, see showAnyway
	unread  int         // statements whose tags are known when their rows are read, see returned.go
}

// txSettings is what the transaction does to the settings of the session, which its end undoes or keeps, see
// setting.go.
type txSettings struct {
	session    bool   // it has changed some
	began      stance // before the first change, where ROLLBACK goes back to; zero if that is not known
	kept       stance // what COMMIT leaves of the changes; zero if that is not known
	durability bool   // synchronous_commit may be one of them
	refused    bool   // PostgreSQL does not tell what they are
	end        txEnd  // how the transaction has ended, once it is over
}

// begin notes that settings change from now on. before is what they were.
func (t *txSettings) begin(before stance) {
	if !t.session {
		t.session, t.began, t.kept = true, before, before
	}
}

// txEnd is how a transaction has ended.
type txEnd uint8

const (
	endUnknown txEnd = iota
	endCommitted
	endRolledBack
)

// maxTxTags bounds what a transaction remembers of single rows.
const maxTxTags = 4096

// planned notes the catalog that a writing statement was planned with.
func (t *txWrites) planned(v *space.View) {
	if t.view == nil {
		t.view = v
	}
	t.mixed = t.mixed || !t.view.Same(v)
}

// add records what a statement writes.
func (t *txWrites) add(v *space.View, tags []store.Tag) {
	if len(tags) == 0 {
		return
	}
	t.planned(v)
	if t.tags.Add(tags...); t.tags.Len() > maxTxTags {
		t.tags.Widen()
	}
}

// wrote reports that the transaction wrote something with one of the tags, or
// may have: then only PostgreSQL can tell what it sees.
//
// tags were planned with the catalog v. If the writes were planned with another
// one, they may have gone elsewhere than their tags say, and a fill would
// publish what is not committed:
//
//	transaction                          DDL
//	plan UPDATE view: {one}
//	                                     the view reads two from now on
//	UPDATE changes two
//	plan SELECT view: {two}, not written
//	miss, SELECT → its own change, fill
func (t *txWrites) wrote(v *space.View, tags []store.Tag) bool {
	if t.asks || t.unread > 0 {
		return true
	}
	if t.tags.Len() == 0 {
		return false
	}
	if t.mixed || !t.view.Same(v) {
		return true
	}
	for _, tag := range tags {
		wide := tag // as of a write that was widened to all rows of a key
		if wide.Kind, wide.Value = store.TagRows, 0; t.tags.Has(tag) || t.tags.Has(wide) {
			return true
		}
	}
	return t.tags.Has(store.Tag{Kind: store.TagSchema})
}

// mayRead reports why a read in the transaction must go to PostgreSQL.
func (t *txState) mayRead(ctx context.Context, c *Conn) keying.Reason {
	if c.inner.TxStatus() != 'T' {
		return keying.FailedTransaction // PostgreSQL refuses, in its own words
	}
	if t.isolationOf(ctx, c) != backend.IsolationReadCommitted {
		return keying.Isolation
	}
	return keying.NoReason
}

// begunWith is the isolation level of a transaction that a text has begun, which is one command.
func (c *Conn) begunWith(begin string) backend.Isolation {
	switch words := strings.ToLower(begin); {
	case strings.Contains(words, "serializable"), strings.Contains(words, "repeatable"):
		return backend.IsolationSnapshot
	case strings.Contains(words, "isolation"):
		return backend.IsolationReadCommitted
	}
	return c.defaultIsolation()
}

// defaultIsolation is that of a transaction which is begun without another one.
func (c *Conn) defaultIsolation() backend.Isolation {
	switch s := c.known.session; {
	case s == nil:
		return backend.IsolationUnknown
	case s.ReadCommitted:
		return backend.IsolationReadCommitted
	}
	return backend.IsolationSnapshot
}

// isolationOf asks for the level if it is not known, because a statement in the transaction
// may have set it. SHOW takes no snapshot, so a SET TRANSACTION may still follow.
func (t *txState) isolationOf(ctx context.Context, c *Conn) backend.Isolation {
	if t.isolation == backend.IsolationUnknown {
		if level, err := backend.AskIn(ctx, c.inner, "SHOW transaction_isolation"); err == nil {
			t.isolation = backend.IsolationOf(level)
		}
	}
	return t.isolation
}

// settle brings what the driver believes of the transaction in line with what
// PostgreSQL said last.
func (c *Conn) settle() {
	if c.inner.Closed() {
		c.tx = nil
		return
	}
	switch inTx := c.inner.TxStatus() != 'I'; {
	case inTx && c.tx == nil:
		c.tx = &txState{} // a BEGIN that did not come by Conn.Begin
	case !inTx && c.tx != nil:
		c.leave()
		c.retract()
	}
}
