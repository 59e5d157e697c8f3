package core

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store"
)

// transactionFacts is the question for the id of the open transaction, and whether
// its commit waits for the disk. It has no id, and nothing to commit, until it writes.
const transactionFacts = "SELECT pg_catalog.concat(pg_catalog.pg_current_xact_id_if_assigned(), ' ', " + backend.PinnedCommitSQL + ")"

// newTransactionFacts gives the transaction an id if it has none, because it may
// yet write while it commits.
const newTransactionFacts = "SELECT pg_catalog.concat(pg_catalog.pg_current_xact_id(), ' ', " + backend.PinnedCommitSQL + ")"

// mark protects the tags: on return nobody gets an entry that depends on one
// of them, until release. In a transaction they are those of everything that it wrote. After
// an error nothing is marked.
func (e *effect) mark(ctx context.Context) error {
	err := e.setMarks(ctx)
	switch {
	case err != nil:
		e.unmark()
	case e.write == nil:
		e.unblock()
	}
	return err
}

func (e *effect) setMarks(ctx context.Context) (err error) {
	c := e.c
	if c.tx != nil && e.kind != writeWrapped {
		e.gather()
		if e.kind == writeCommit {
			if err := e.askAtCommit(ctx); err != nil {
				return err // PostgreSQL's, of a deferred trigger
			}
		}
	}
	if len(e.tags) == 0 {
		return nil
	}
	if err := e.locate(ctx); err != nil {
		return err
	}
	if m := e.marking(); m == markedHere || m == markedAfterwards { // else when the store is known in which it is marked
		if err := e.space.Peers.Announce(ctx, committer{c}); err != nil {
			return fmt.Errorf("cachedpg: showing others that the process writes: %w", err)
		}
	}
	switch e.marking() {
	case markedNowhere:
		if s := c.known.session; s == nil || s.Standby {
			return nil
		}
		return c.d.Outer.Load().Announce(ctx, committer{c}, c.pid == 0)
	case markedHere:
		err = e.markHere(ctx)
	case markedShared:
		err = e.markShared(ctx)
	case markedAfterwards:
		e.write = e.space.Writes.Begin()
		e.write.Remember(e.tags)
	}
	if err != nil {
		return fmt.Errorf("cachedpg: marking what the transaction changed: %w", err)
	}
	if err := e.post(ctx); err != nil {
		return err
	}
	if e.write != nil {
		e.commits = e.commitModeNow(ctx)
	}
	return nil
}

// gather adds what the caller's transaction has written so far.
func (e *effect) gather() {
	tx := e.c.tx
	if tx.mixed || e.marking() == markedHere && tx.view != nil && !tx.view.Same(e.space.View.Load()) {
		// Some statement was planned with a catalog that has changed since;
		// its locks keep its own tables as they were, but not those that
		// a new foreign key or view leads to.
		tx.tags.Add(store.Tag{Kind: store.TagSchema})
	}
	if tx.unread > 0 {
		tx.tags.Add(space.Everything...)
	}
	e.view, e.also.catalog = tx.view, e.also.catalog || tx.catalog
	e.tags = slices.Clone(tx.tags.Tags())
}

// markHere is mark in a store in this process.
func (e *effect) markHere(ctx context.Context) error {
	if e.xid == "" && !e.where.asked() && (e.also.prepared || e.c.tx != nil && e.c.pid == 0) {
		// The outcome may have to be asked of PostgreSQL later, and there is
		// nothing but the transaction's id to ask with. In a failed
		// transaction there is no answer, and nothing to ask.
		if e.c.inner.TxStatus() == 'T' {
			if err := e.transaction(ctx); err != nil {
				return err
			}
		}
	}
	for {
		e.departed = depart(e.space, e.where == locationBlind)
		e.write = e.space.Writes.Begin()
		if err := e.write.Intend(ctx, e.tags); err != nil || !e.space.Superseded.Load() {
			return err
		}
		// Who supersedes a space does not see the marks of who comes later.
		before := e.space
		if err := e.follow(ctx); err != nil {
			return err
		}
		if e.space == nil || e.space == before {
			return nil
		}
	}
}

// markShared is mark in a store that processes share. What is marked there
// outlives this process, so the marks carry what others can ask PostgreSQL
// about: the transaction or, for what runs outside of one, the backend.
func (e *effect) markShared(ctx context.Context) error {
	k := e.space.Keeper
	// The store compares with the catalog of now, after the statement has run.
	// What runs alone has yet to run: no catalog is good enough for its tags.
	var planned store.Stamp
	if e.kind != writeAlone {
		step.At(step.Executed)
		if e.view != nil && (e.kind == writeWrapped || !e.c.tx.mixed) {
			planned = e.view.Catalog
		}
	}
	if closed, err := e.leavesOut(ctx, planned); closed || err != nil {
		return err
	}
	id, err := e.writer(ctx)
	if err != nil || id == (store.WriterID{}) {
		return err
	}
	e.write = e.space.Writes.BeginAs(id)
	k.Doors.Commits(e.tags)
	mark := func() (marked store.Marked, err error) {
		return e.write.Mark(ctx, k.Store, e.tags, planned)
	}
	marked, err := mark()
	if err != nil {
		if marked, err = e.pastStore(ctx, planned, mark, err); err != nil {
			return err
		}
	}
	if e.leaveNotice == nil { // else it is past the store that it commits
		if err := k.Peers.Announce(ctx, committer{e.c}); err != nil {
			return err
		}
	}
	e.schema = marked.Schema
	if v := e.space.View.Load(); marked.Schema && v != nil && v.Catalog == planned && !e.also.catalog {
		e.space.Loads.Begin()
	}
	if marked.Wait > 0 && e.kind != writeAlone {
		if err := backend.Patient(ctx, e.c.inner); err != nil {
			return err
		}
	}
	if err := pause.For(ctx, marked.Wait); err != nil {
		return err
	}
	step.At(step.Marked)
	return nil
}

// leavesOut reports that the commit needs no intent, because its tags are all of relations that are closed to the cache
// (I26). Then PostgreSQL need not be asked for the transaction's id: it has one if it has written anything, and
// that is all that a relation which opens waits for.
func (e *effect) leavesOut(ctx context.Context, planned store.Stamp) (bool, error) {
	c, doors := e.c, &e.space.Keeper.Doors
	switch {
	case !e.mayLeaveOut(), c.inner.TxStatus() != 'T', !e.space.Doors().Closed(e.tags):
		return false, nil
	}
	closed, err := doors.Store.AllClosed(ctx, e.tags, planned)
	if err != nil || !closed {
		return false, nil // whatever it is, marking meets it too
	}
	doors.Commits(e.tags)
	step.At(step.Marked)
	return true, e.space.Keeper.Peers.Announce(ctx, committer{c})
}

// mayLeaveOut reports that nothing is to be found out of the caller's transaction but its id: it waits for the disk, and
// all that it writes has an id before COMMIT.
func (e *effect) mayLeaveOut() bool {
	tx := e.c.tx
	return e.kind == writeCommit && !tx.cursor && !tx.asks && !tx.durability && !e.also.prepared && !e.where.drifts() && !e.posts() && e.c.commits == backend.CommitSync
}

// pastStore lets a commit go on whose tags could not be marked, as
// Config.OnStoreDown says, unless a relay marks them or trying again helps.
func (e *effect) pastStore(ctx context.Context, planned store.Stamp, mark func() (store.Marked, error), cause error) (marked store.Marked, err error) {
	if e.markByRelay(ctx, planned) {
		return store.Marked{}, nil
	}
	if e.c.d.Config.OnStoreDown == config.OnStoreDownFail {
		if e.space.Keeper.Store.SharedStats().Down && !errors.Is(cause, store.ErrDown) { // it is who found out
			cause = fmt.Errorf("%w: %w", store.ErrDown, cause)
		}
		return marked, fmt.Errorf("cache_on_store_down=fail: %w", cause)
	}
	e.c.d.stats.unmarked.Add(1)
	retry := func() bool {
		marked, err = mark()
		return err == nil
	}
	var refused error
	in := e.c.inner
	if e.kind == writeAlone {
		in = nil // another lock is held for it, which a new epoch waits for as well
	}
	e.leaveNotice, refused = e.space.Keeper.Notice.Stand(ctx, in, retry)
	if refused != nil && e.kind != writeAlone && ctx.Err() == nil { // no other connection is to be had
		refused = guard.StandIn(ctx, e.c.inner, retry)
	}
	if refused != nil {
		return store.Marked{}, fmt.Errorf("%w, and a notice cannot be posted: %v", cause, refused) // not wrapped: it may be backend.ErrBadConn
	}
	return marked, nil
}
