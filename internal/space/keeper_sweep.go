package space

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// horizon is what an epoch that has lost the marks of the one before waits for:
// every write that was under way when it began, because such marks may be its.
//
// Who has marked in the new epoch is not waited for, and after a lease that only ran
// out nobody is: a mark that is in the store is not one that was lost.
//
//	writer                          store                   keeper
//	intend T, acknowledged
//	                                loses everything
//	                                new epoch
//	                                                        writers with marks: none
//	                                                        (… or it does not wait)
//	                                                        lease
//	(a reader fills T)
//	COMMIT                                                  (hit of old)
type horizon struct {
	epoch string
	bound string // the id of a transaction: those below it were under way
	disk  backend.FlushPoint
}

// nobodyPast is an SQL expression: nobody commits past the store, nor runs a
// statement alone, which may do so without a lock of its transaction.
var nobodyPast = "NOT " + guard.Held(guard.LockNotice) + " AND NOT " + guard.Held(guard.LockAlone)

// newHorizon asks PostgreSQL for the bound of what is under way. A snapshot's
// xmax would not do: an id above it may be assigned already. The query's own id
// is above all that are. Statements that run outside of transactions may have
// no id yet; their backends hold a lock.
func (k *Keeper) newHorizon(ctx context.Context, epoch string) (horizon, error) {
	xid, err := k.Guard.Text(ctx, "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text")
	return horizon{epoch: epoch, bound: xid}, err
}

// over asks whether all of it is over, but for marked, and on disk (I21). Prepared
// transactions are under way like any other. One that is known to belong to another
// database, where it stays to its end, is not waited for; every role sees that.
func (h *horizon) over(ctx context.Context, g *guard.Guard, log *backend.Log, marked []store.WriterID) (bool, error) {
	var known []string
	for _, w := range marked {
		if xid, ok := w.Transaction(); ok {
			known = append(known, strconv.FormatUint(xid, 10))
		}
	}
	ok, err := g.Yes(ctx, "SELECT "+nobodyPast+" AND NOT EXISTS (SELECT FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS under_way(xid)"+
		" WHERE xid OPERATOR(pg_catalog.<) '"+h.bound+"'::pg_catalog.xid8"+
		" AND xid OPERATOR(pg_catalog.<>) ALL ('{"+strings.Join(known, ",")+"}'::pg_catalog.xid8[])"+
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE backend_xid OPERATOR(pg_catalog.=) xid::pg_catalog.xid"+
		" AND datid::pg_catalog.text OPERATOR(pg_catalog.<>) "+backend.DatabaseSQL+")"+
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE transaction OPERATOR(pg_catalog.=) xid::pg_catalog.xid"+
		" AND database OPERATOR(pg_catalog.<>) pg_catalog.current_database()))")
	if err != nil || !ok {
		return false, err
	}
	return h.disk.Forced(ctx, log, g.Text)
}

// sweep resolves the intents of writers that are over and did not say so:
// their process died, or its release is still on its way. It asks about a
// writer that it has met for a while; only PostgreSQL's answer counts, not that time.
func (k *Keeper) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	writers, err := k.Store.Writers(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	seen := make(map[store.WriterID]time.Time, len(writers))
	var due []store.WriterID
	for _, w := range writers {
		since, ok := k.suspects[w]
		if !ok {
			since = now
		}
		seen[w] = since
		if now.Sub(since) >= suspectAfter {
			due = append(due, w)
		}
	}
	k.suspects = seen
	// One that is over already is not asked for again.
	due = slices.DeleteFunc(due, func(w store.WriterID) bool {
		return slices.ContainsFunc(k.unsure, func(u *unflushed) bool { return slices.Contains(u.writers, w) })
	})
	over := append(k.Guard.Over(ctx, due), k.orphaned(ctx, due)...)
	if over = k.onDisk(ctx, over); len(over) > 0 {
		_ = k.Store.Resolve(ctx, over) // what it does not take is met again
	}
}

// unflushed are writers that are over, but for a crash of PostgreSQL.
type unflushed struct {
	writers []store.WriterID
	disk    backend.FlushPoint
}

// onDisk returns of writers that are over, now or at a call before, those that a
// crash cannot undo.
func (k *Keeper) onDisk(ctx context.Context, over []store.WriterID) (sure []store.WriterID) {
	var unsure []store.WriterID
	for _, w := range over {
		if w.Async() {
			unsure = append(unsure, w)
		} else {
			sure = append(sure, w)
		}
	}
	if len(unsure) > 0 {
		k.unsure = append(k.unsure, &unflushed{writers: unsure})
	}
	k.unsure = slices.DeleteFunc(k.unsure, func(u *unflushed) bool {
		ok, err := u.disk.Forced(ctx, k.log, k.Guard.Text)
		if err != nil || !ok {
			return false
		}
		sure = append(sure, u.writers...)
		return true
	})
	return sure
}

// orphaned returns writers of which nothing but the announcement says that they
// are alive, see internal/core/alone.go, once they are over: at a moment when nobody was
// announced they were dead, and what they had sent before has ended since.
// What is still on its way through a pooler then cannot be seen.
func (k *Keeper) orphaned(ctx context.Context, due []store.WriterID) (over []store.WriterID) {
	if k.orphans != nil {
		if ok, err := k.gone.over(ctx, &k.Guard, k.log, nil); err != nil || !ok {
			return nil
		}
		over, k.orphans = k.orphans, nil
		return over
	}
	var orphans []store.WriterID
	for _, w := range due {
		_, transaction := w.Transaction()
		if _, _, backend := w.Backend(); !transaction && !backend {
			orphans = append(orphans, w)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	if ok, err := k.Guard.Yes(ctx, "SELECT NOT "+guard.Held(guard.LockAlone)); err != nil || !ok {
		return nil
	}
	if h, err := k.newHorizon(ctx, ""); err == nil {
		k.orphans, k.gone = orphans, h
	}
	return nil
}
