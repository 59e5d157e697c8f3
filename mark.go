package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store"
)

// transactionFacts is the question for the id of the open transaction, and whether
// its commit waits for the disk. It has no id, and nothing to commit, until it writes.
const transactionFacts = "SELECT pg_catalog.concat(pg_catalog.pg_current_xact_id_if_assigned(), ' ', " + pinnedCommit + ")"

// newTransactionFacts gives the transaction an id if it has none, because it may
// yet write while it commits.
const newTransactionFacts = "SELECT pg_catalog.concat(pg_catalog.pg_current_xact_id(), ' ', " + pinnedCommit + ")"

// takeFacts reads the answer.
func (e *effect) takeFacts(answer string) {
	xid, setting, _ := strings.Cut(answer, " ")
	e.xid, e.commits = xid, commitModeOf(setting)
}

// markShared is mark in a store that processes share. What is marked there
// outlives this process, so the marks carry what others can ask PostgreSQL
// about: the transaction or, for what runs outside of one, the backend.
func (e *effect) markShared(ctx context.Context) error {
	k := e.space.keeper
	// The store compares with the catalog of now, after the statement has run.
	// What runs alone has yet to run: no catalog is good enough for its tags.
	var planned store.Stamp
	if !e.alone {
		step.At(step.Executed)
		if e.view != nil && (e.wraps || !e.c.tx.mixed) {
			planned = e.view.catalog
		}
	}
	if closed, err := e.leavesOut(ctx, planned); closed || err != nil {
		return err
	}
	id, err := e.writer(ctx)
	if err != nil || id == (store.WriterID{}) {
		return err
	}
	e.write = e.space.writes.BeginAs(id)
	k.doors.commits(e.tags)
	mark := func() (marked store.Marked, err error) {
		return e.write.Mark(ctx, k.store, e.tags, planned)
	}
	marked, err := mark()
	if err != nil {
		if marked, err = e.pastStore(ctx, planned, mark, err); err != nil {
			return err
		}
	}
	if e.leaveNotice == nil { // else it is past the store that it commits
		if err := k.peers.announce(ctx, e.c); err != nil {
			return err
		}
	}
	e.unsure = marked.Schema
	if v := e.space.view.Load(); marked.Schema && v != nil && v.catalog == planned && !e.also.catalog {
		e.space.loads.begin()
	}
	if marked.Wait > 0 && !e.alone {
		if err := patient(ctx, e.c.inner); err != nil {
			return err
		}
	}
	if err := sleep(ctx, marked.Wait); err != nil {
		return err
	}
	step.At(step.Marked)
	return nil
}

// leavesOut reports that the commit needs no intent, because its tags are all of relations that are closed to the cache
// (I26). Then PostgreSQL need not be asked for the transaction's id: it has one if it has written anything, and
// that is all that a relation which opens waits for.
func (e *effect) leavesOut(ctx context.Context, planned store.Stamp) (bool, error) {
	c, doors := e.c, &e.space.keeper.doors
	switch {
	case !e.mayLeaveOut(), c.inner.txStatus() != 'T', !e.space.doors().Closed(e.tags):
		return false, nil
	}
	closed, err := doors.store.AllClosed(ctx, e.tags, planned)
	if err != nil || !closed {
		return false, nil // whatever it is, marking meets it too
	}
	doors.commits(e.tags)
	step.At(step.Marked)
	return true, e.space.keeper.peers.announce(ctx, c)
}

// mayLeaveOut reports that nothing is to be found out of the caller's transaction but its id: it waits for the disk, and
// all that it writes has an id before COMMIT.
func (e *effect) mayLeaveOut() bool {
	tx := e.c.tx
	return (e.commit || e.ends) && tx != nil && !tx.cursor && !tx.asks && !tx.durability && !e.also.prepared && !e.drifts && !e.posts() && e.c.commits == commitSync
}

// pastStore lets a commit go on whose tags could not be marked, as
// Config.OnStoreDown says, unless a relay marks them or trying again helps.
func (e *effect) pastStore(ctx context.Context, planned store.Stamp, mark func() (store.Marked, error), cause error) (marked store.Marked, err error) {
	if e.markByRelay(ctx, e.write.ID(), e.tags, planned) {
		return store.Marked{}, nil
	}
	if e.c.d.config.OnStoreDown == onStoreDownFail {
		if e.space.keeper.store.SharedStats().Down && !errors.Is(cause, store.ErrDown) { // it is who found out
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
	if e.alone {
		in = nil // another lock is held for it, which a new epoch waits for as well
	}
	e.leaveNotice, refused = e.space.keeper.notice.stand(ctx, in, retry)
	if refused != nil && !e.alone && ctx.Err() == nil { // no other connection is to be had
		refused = standIn(ctx, e.c.inner, retry)
	}
	if refused != nil {
		return store.Marked{}, fmt.Errorf("%w, and a notice cannot be posted: %v", cause, refused) // not wrapped: it may be driver.ErrBadConn
	}
	return marked, nil
}

// writer returns the id to mark with, or none if the transaction that is about
// to commit has written nothing.
func (e *effect) writer(ctx context.Context) (id store.WriterID, err error) {
	c := e.c
	switch {
	case e.alone:
		return e.backend(ctx)
	case c.inner.txStatus() == 'E':
		return id, nil // PostgreSQL will answer ROLLBACK
	}
	if err := e.transaction(ctx); err != nil {
		return id, err
	}
	switch {
	case e.nameless:
		return e.backend(ctx)
	case e.xid == "":
		return id, nil
	}
	xid, err := strconv.ParseUint(e.xid, 10, 64)
	if err != nil {
		return id, fmt.Errorf("cachedpg: PostgreSQL gives %q as a transaction id", e.xid)
	}
	if e.commits != commitSync {
		return store.NewAsyncWriter(xid), nil
	}
	return store.NewTransactionWriter(xid), nil
}

// backend returns an id to mark with where there is none of a transaction.
func (e *effect) backend(ctx context.Context) (id store.WriterID, err error) {
	if err := e.announce(ctx); err != nil {
		return id, err
	}
	if e.also.prepared { // which the backend does not outlast
		return store.NewWriter(), nil
	}
	return e.c.backendWriter(ctx), nil
}

// transaction asks for the id of the transaction that is about to commit.
func (e *effect) transaction(ctx context.Context) (err error) {
	if e.wraps || e.xid != "" || e.nameless {
		return nil // it was asked for beside the statement
	}
	if e.wasFound() {
		return nil
	}
	if e.isRefused() {
		e.untold()
		return nil
	}
	question := transactionFacts
	if e.c.tx != nil && e.c.tx.cursor {
		question = newTransactionFacts
	}
	posts := e.posts()
	if posts {
		question += " OPERATOR(pg_catalog.||) " + readOnly
	}
	if e.drifts {
		question = withIdentity(question)
	}
	answer, err := keepIn(ctx, e.c.inner, question)
	if unanswered(e.c.inner, err) {
		e.refuses(err)
		return nil
	}
	if err != nil {
		return err
	}
	answer = e.whereFrom(answer)
	if posts {
		answer, e.readOnly = strings.CutSuffix(answer, readOnlyAnswer)
	}
	e.takeFacts(answer)
	return nil
}

// backendWriter returns an id by the connection's backend. Behind a pooler it
// is not known which backend will run a statement: then only this process can
// release what it marks.
func (c *Conn) backendWriter(ctx context.Context) store.WriterID {
	if c.pid == 0 || c.started == 0 && c.mustNotAsk() {
		return store.NewWriter()
	}
	if c.started == 0 {
		start, err := askIn(ctx, c.inner, "SELECT (extract(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text"+
			" FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()")
		if err == nil {
			c.started, err = strconv.ParseInt(start, 10, 64)
		}
		if err != nil {
			return store.NewWriter()
		}
	}
	return store.NewBackendWriter(c.pid, time.UnixMicro(c.started))
}
