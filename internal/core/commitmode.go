package core

import (
	"context"
	"strings"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
)

// commitFacts is what is known of the transaction in which a write commits. PostgreSQL tells it in that
// transaction, before COMMIT (takeFacts) or with an earlier statement (along.go), or refuses to (withoutAnswer).
type commitFacts struct {
	xid      string             // "" if the transaction has written nothing, or was not asked
	nameless bool               // PostgreSQL does not tell its id, so that "" means nothing: its backend tells it from others
	commits  backend.CommitMode // whether it waits for the disk
	assumed  bool               // commits is what the session had learned
}

// hasWritten reports that the transaction has written something, or may have, once it was asked.
func (f *commitFacts) hasWritten() bool { return f.xid != "" || f.nameless }

// takeFacts reads the answer to transactionFacts.
func (f *commitFacts) takeFacts(answer string) {
	xid, setting, _ := strings.Cut(answer, " ")
	f.xid, f.commits = xid, backend.CommitModeOf(setting)
}

// commitModeNow returns whether the commit of e, which is about to be sent, waits
// for the disk. It asks PostgreSQL only in a transaction that may have changed that.
func (e *effect) commitModeNow(ctx context.Context) backend.CommitMode {
	c := e.c
	switch {
	case e.commits != backend.CommitUnknown: // asked for together with something else
		return e.commits
	case e.also.durability || e.nameless:
		return backend.CommitUnknown
	case e.also.asks || e.also.opaque:
		return c.commitDoubtful()
	case c.tx != nil && c.commits == backend.CommitUnknown && c.inner.TxStatus() == 'T':
		setting, err := backend.KeepIn(ctx, c.inner, "SELECT "+backend.PinnedCommitSQL)
		if err != nil {
			return backend.CommitUnknown
		}
		return backend.CommitModeOf(setting)
	case c.pid == 0 && e.space.Asynchronous.Load():
		return backend.CommitUnknown // a pooler may give it another session than the one that was asked
	}
	e.assumed = true
	return c.commits
}

// commitDoubtful is what is known if code runs that is not seen.
func (c *Conn) commitDoubtful() backend.CommitMode {
	if c.commits == backend.CommitAsync {
		return backend.CommitAsync
	}
	return backend.CommitDoubtful
}

// onDisk makes sure that what the connection has committed is on disk. It is for code
// that is not seen and has hardly set synchronous_commit: to ask at once costs less than
// to keep everything marked that such code may have changed.
func (c *Conn) onDisk(sp *space.Space) bool {
	defer c.lent.pause()()
	if c.inner.Closed() || c.inner.TxStatus() != 'I' {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), backend.RollbackTimeout)
	defer cancel()
	ok, err := new(backend.FlushPoint).Forced(ctx, &sp.Log, sp.Key.Identity.Asker(c.inner))
	return ok && err == nil
}

// What a session learned of synchronous_commit ends when the server loads its
// configuration again, and does not say so. In a store that processes share
// each transaction is asked anyway. Of one in this process the watch asks whether
// the configuration is what it was, before it allows hits:
//
//	writer, learned: on             administrator           watch
//	                                synchronous_commit=off, reload
//	COMMIT, released
//	                                                        asks: another configuration;
//	                                                        cold until the log is flushed
//
// So only a crash between the reload and that question, less than store.Lease later,
// can leave a hit of what it has undone, and for no longer than that lease.
