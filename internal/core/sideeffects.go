package core

import (
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/parser"
)

// sideEffects is what statements that run as one unit do besides writing tables: to the catalog,
// to the transaction that is open, and to the session. Conn.sideEffectsOf reads it from their
// texts. What PostgreSQL tells of code that the texts do not show may add to it before COMMIT
// (effect.take); nothing is taken away.
type sideEffects struct {
	asks     bool // they run code that they do not show: PostgreSQL is asked what it wrote, see ask.go
	catalog  bool // the catalog changes
	snapshot bool // they fix the snapshot of their transaction
	cursor   bool // they declare a cursor

	begins   string // the text of a BEGIN, nothing else
	level    bool   // the isolation level may change
	undoes   bool   // the transaction ends, or goes back to a savepoint
	stays    bool   // they are one ROLLBACK TO, after which the transaction is the one that it was
	end      txEnd  // of the transaction, if they are one statement which ends it and succeeds
	prepared bool   // PREPARE TRANSACTION
	resolved bool   // COMMIT PREPARED, ROLLBACK PREPARED

	session    bool    // settings or temporary objects change
	change     *change // the one of them that does, nil if there may be several or it is not known
	durability bool    // synchronous_commit may change, see commitmode.go
	opaque     bool    // anything may
}

// anything is what a caller may do with the pgx connection that is lent to him, unseen.
var anything = sideEffects{catalog: true, undoes: true, session: true, opaque: true}

// sideEffectsOf reads the texts of the calls, which are about to run. before is what is known of the session.
func (c *Conn) sideEffectsOf(calls []*call, before stance) (s sideEffects) {
	for i, q := range calls {
		s.add(q)
		if t := q.text.Plan.Temporary; t != nil && slices.ContainsFunc(calls[i+1:], func(q *call) bool { return t.Concerns(q.text.Plan) }) {
			s.asks = true // what comes after it in the same message was planned before it
		}
	}
	if len(calls) != 1 {
		return s
	}
	s.change = before.changedBy(calls[0], c.tx)
	if kinds := calls[0].text.Plan.Kinds; len(kinds) == 1 {
		switch kinds[0] {
		case parser.RollbackTo:
			s.stays = true
		case parser.Rollback:
			s.end = endRolledBack
		case parser.Commit:
			if s.end = endCommitted; c.inner.TxStatus() == 'E' {
				s.end = endRolledBack
			}
		}
	}
	return s
}

func (s *sideEffects) add(q *call) {
	p, plan := q.text, q.text.Plan
	s.asks = s.asks || plan.Asks
	s.catalog = s.catalog || plan.Catalog
	s.snapshot = s.snapshot || p.FixesSnapshot()
	s.cursor = s.cursor || p.Has(parser.Cursor)
	if p.Has(parser.Begin) && len(plan.Kinds) == 1 {
		s.begins = q.sql
	}
	s.level = s.level || plan.Level
	s.undoes = s.undoes || p.Has(parser.RollbackTo) || p.Has(parser.Rollback) || p.MayCommit()
	s.prepared = s.prepared || p.Has(parser.PrepareTransaction)
	s.resolved = s.resolved || p.Has(parser.CommitPrepared) || p.Has(parser.RollbackPrepared)
	s.session = s.session || plan.Session
	s.durability = s.durability || plan.Durability
	s.opaque = s.opaque || plan.Opaque && plan.Session
}

// commitsOtherwise reports that what is known of synchronous_commit does not hold any more.
func (s *sideEffects) commitsOtherwise() bool { return s.durability || s.opaque }

// forget makes unknown what of the session may change, from before PostgreSQL gets the statements
// until ran.
func (s *sideEffects) forget(c *Conn) {
	if s.session {
		c.forget()
	}
	if s.commitsOtherwise() {
		c.commits = backend.CommitUnknown
	}
}

// runs records what statements in the transaction are about to do. before is what is known of the session.
func (t *txState) runs(s *sideEffects, before stance) {
	if s.session {
		t.begin(before)
	}
	t.catalog = t.catalog || s.catalog
	t.durability = t.durability || s.commitsOtherwise()
	t.cursor = t.cursor || s.cursor
}

// ran records what the statements have done to the transaction, which PostgreSQL has answered with
// err, and to the session.
func (c *Conn) ran(s *sideEffects, err error) {
	before := c.tx
	if before != nil && err == nil {
		before.end = s.end
	}
	c.settle()
	if tx := c.tx; tx != nil {
		if tx.end = endUnknown; before == nil && s.begins != "" {
			tx.isolation = c.begunWith(s.begins)
		}
		tx.ran(s)
		if tx.durability {
			c.commits = backend.CommitUnknown
		}
	}
	if s.commitsOtherwise() {
		c.commits = backend.CommitUnknown
	}
	c.changed(s, err)
}

// ran records what statements have done that have left the transaction open.
func (t *txState) ran(s *sideEffects) {
	t.queried = t.queried || s.snapshot
	if s.lapses() {
		t.found = found{}
	}
	t.session = t.session || s.session
	if s.level || s.session && s.change == nil { // SET transaction_isolation = … is a SET like any other
		t.isolation = backend.IsolationUnknown
	}
}

// lapses reports that what was found of the transaction (along.go) may not be so any more. COMMIT AND CHAIN
// leaves another transaction.
func (s *sideEffects) lapses() bool {
	return s.asks || s.undoes || s.prepared || s.session || s.commitsOtherwise()
}

// isPlain reports that a statement is of a kind that a read-only transaction refuses.
func isPlain(q *call) bool {
	switch plan := q.text.Plan; {
	case len(plan.Kinds) != 1:
		return false
	default:
		return slices.Contains([]parser.Kind{parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate}, plan.Kinds[0])
	}
}
