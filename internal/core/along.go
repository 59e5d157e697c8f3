package core

import (
	"context"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// With a store that processes share, COMMIT needs the transaction's id for its marks, and has to know whether it waits for
// the disk. Both are asked together with the first statement that writes, by a question that travels with it
// (see backend.Along), and then COMMIT asks nothing:
//
//	UPDATE …; question      one round trip, as without the question
//	(more statements)
//	mark                    one, to the store
//	COMMIT                  one
//
// The id is the transaction's own for as long as it lasts; that of a savepoint is another one, for which nobody asks.
// It is only known earlier: what is marked, and when, is what it was. If the process dies in between nothing is
// marked, and PostgreSQL rolls back.
//
// synchronous_commit stays what it is found to be until the transaction ends, unless something after it changes that, or
// takes the pin away:
//
//	SAVEPOINT a
//	UPDATE …; pinned: on
//	ROLLBACK TO a           the pin is gone
//	SET LOCAL synchronous_commit = off
//	COMMIT                  (with "on" it would be released, and PostgreSQL may crash)
//
// So after a statement that may do either, what was found is forgotten, and the next one that writes, or COMMIT, asks again.
type found struct {
	commitFacts
	mute bool // it is not asked again before COMMIT
}

// earlyFacts is the question. It may be long until COMMIT, and the caller may be idle meanwhile: so his
// limit for that stays as it is, and where the store might not be marked within it COMMIT asks, see backend.PinnedCommitSQL.
const earlyFacts = "SELECT pg_catalog.concat(pg_catalog.pg_current_xact_id_if_assigned(), ' ', " + backend.PinnedSQL + ", ' ', " + backend.HurriesSQL + ")"

var factsAlong = backend.NewAlong("cachedpg_facts", earlyFacts)

// shortLimit is a statement_timeout so short that a question sent with a statement might exceed it.
const shortLimit = 100 * time.Millisecond

// asksAlong has the question travel with q, which is about to run, if that is the time for it.
func (e *effect) asksAlong(q *call) {
	c := e.c
	in, ok := c.inner.(*backend.Pgx)
	if !ok || !in.Carries() || c.tx == nil || c.tx.found.xid != "" || c.tx.found.mute || !isPlain(q) || len(q.values) == 0 {
		return
	}
	switch {
	case e.marking() != markedShared, e.posts(), e.where.drifts(): // it is another question then, or none
	case c.tx.asks, c.tx.cursor, e.also.asks, e.also.session, e.also.commitsOtherwise():
	case c.commits == backend.CommitSync && e.space.Doors().Closed(e.tags): // COMMIT may need none
	case c.limit > 0 && c.limit < shortLimit, c.inner.TxStatus() != 'T', e.isRefused():
	default:
		in.Carry(factsAlong)
	}
}

// hears records the answer, once the statement has ended with err, and returns the caller's error.
func (c *Conn) hears(err error) error {
	in, ok := c.inner.(*backend.Pgx)
	if !ok || !in.Carries() {
		return err
	}
	heard := in.Hear()
	if !heard.OK || c.tx == nil || in.Closed() {
		return err
	}
	if heard.Refused != nil {
		c.tx.found.mute = true
		if in.UndoAside(context.Background()) != nil {
			// What has ended the question, such as a cancel request, came before its savepoint. A moment earlier it
			// would have ended the statement.
			return heard.Refused
		}
		c.d.denied(backend.Denial{Question: aboutID, Role: c.role()}, heard.Refused)
		return err
	}
	xid, rest, _ := strings.Cut(heard.Value, " ")
	setting, hurried, _ := strings.Cut(rest, " ")
	if hurried != "f" {
		c.tx.found.mute = true
		return err
	}
	c.tx.found.xid, c.tx.found.commits = xid, backend.CommitModeOf(setting)
	return err
}

// wasFound records what was found, and reports whether it is all that there is to ask.
func (e *effect) wasFound() bool {
	tx := e.c.tx
	if tx == nil || tx.found.xid == "" || tx.cursor || e.also.prepared || e.where.drifts() || e.posts() {
		return false
	}
	e.commitFacts = tx.found.commitFacts
	return true
}
