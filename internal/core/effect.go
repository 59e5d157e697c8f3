package core

import (
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// effect is the life of a write, from before PostgreSQL gets it until it has answered:
//
//	begin       what is written, and of which kind the write is; also beginCommit, beginUnseen
//	mark        before the commit, whenever that is (mark.go)
//	done        the marks are released, or left to the resolver (finish.go)
//
// It is used by one goroutine at a time.
type effect struct {
	c    *Conn
	kind writeKind
	also sideEffects // what the statements do besides writing tables

	// What is written, and in which space it is marked. Whoever finds out more than the texts say
	// adds tags; nothing is taken away but by PostgreSQL's word that the transaction wrote nothing.
	space *space.Space // nil where nothing is cached
	view  *space.View  // the catalog that the tags were planned with; nil if there were several
	tags  []store.Tag

	where location
	commitFacts
	event outboxEvent
	marks
	returned *returned // what tells more than tags, once it has run; nil if nothing does
	tx       *txState  // the caller's, which is to get the tags then
	over     bool      // done was called
}

// writeKind says in which transaction a write commits, and so when it is marked. begin decides
// it; only one that was wrapped becomes another, where PostgreSQL refuses to run it so (goAlone). A write
// that is queued (queue.go) is of none: it is a write when it is applied.
type writeKind uint8

const (
	// writeRemembered is in the caller's transaction, whose state has its tags until its COMMIT
	// marks them; or where nothing is cached.
	writeRemembered writeKind = iota

	// writeCommit is the COMMIT of the caller's transaction, or its PREPARE TRANSACTION, which
	// marks everything that the transaction wrote.
	writeCommit

	// writeWrapped runs in a transaction of the driver's own, and is marked when that has an id,
	// see autocommit.go.
	writeWrapped

	// writeAlone may commit while it runs, so it is marked before: a statement outside of
	// transactions, a text with a COMMIT in the middle, or whatever a caller does with the
	// pgx connection that is lent to him.
	writeAlone
)

// marking is how tags are marked.
type marking uint8

const (
	markedNowhere    marking = iota // nothing is cached where the write runs
	markedHere                      // in this process
	markedShared                    // in a store that processes share, with what others can ask PostgreSQL about
	markedAfterwards                // there, but not before the commit, see Config.Consistency
)

func (e *effect) marking() marking {
	switch sp := e.space; {
	case sp == nil:
		return markedNowhere
	case sp.Keeper == nil:
		return markedHere
	case e.c.d.Config.Consistency == config.ConsistencyEventual && !e.c.d.Stranger(sp):
		return markedAfterwards
	}
	return markedShared
}

// marks are what protects a write until it is over.
type marks struct {
	write    *invalidation.Write // nil while nothing is marked
	schema   bool                // the shared store has marked the schema tag as well
	departed departure           // it is counted among what is under way
	released chan struct{}       // closed when the store was asked to release; nil if nobody waits for that, see refill.go

	// Others wait for the end of these, see unblock.
	leave       func() // of the generation that the tags were planned in; nil if it is in none
	leaveNotice func() // of the notice under which it commits past the store; nil if there is none
	lock        aloneLock
}

// unblock lets those go on who wait for the write.
func (m *marks) unblock() {
	m.lock.release()
	for _, leave := range []*func(){&m.leave, &m.leaveNotice} {
		if *leave != nil {
			(*leave)()
			*leave = nil
		}
	}
}

// unmark ends what protects a write that PostgreSQL was never sent, or has not committed.
func (m *marks) unmark() {
	m.departed.end()
	if m.write != nil {
		m.write.Release()
		m.write = nil
	}
	m.unblock()
}

// writes reports that the texts write tables, or may.
func (e *effect) writes() bool { return len(e.tags) > 0 || e.also.asks }

// everything adds what nothing survives: it is not known what was changed.
func (e *effect) everything() {
	e.tags = append(e.tags, space.Everything...)
	e.also.catalog, e.also.session = true, true
}

// posts reports that the effect's commit writes an event. A writer that marks
// nothing beforehand has nothing but its memory to invalidate by afterwards: with
// "auto" it writes one while the store is known to be out of reach.
func (e *effect) posts() bool {
	if e.space == nil || e.space.Keeper == nil {
		return false
	}
	switch e.c.d.Config.Outbox {
	case config.OutboxAlways:
		return true
	case config.OutboxAuto:
		return e.marking() == markedAfterwards && e.space.Keeper.Store.SharedStats().Down
	}
	return false
}

// departure is a statement that is marked in memory and not answered yet, as its space counts
// it, see internal/space/move.go. The zero value is one that is not counted.
type departure struct {
	space *space.Space
	blind bool
}

// depart counts a statement in.
func depart(sp *space.Space, blind bool) departure {
	sp.Underway.Add(1)
	if blind {
		sp.Adrift.Add(1)
	}
	return departure{sp, blind}
}

// end counts it out, once.
func (d *departure) end() {
	if d.space == nil {
		return
	}
	d.space.Underway.Add(-1)
	if d.blind {
		d.space.Adrift.Add(-1)
	}
	d.space = nil
}
