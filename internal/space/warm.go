package space

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// A cache in memory begins empty, and so does its knowledge of writers. A process
// that was killed a moment ago may have sent what becomes visible only now, and
// nobody has marked it:
//
//	process before            PostgreSQL                process now
//	UPDATE, COMMIT →          (waits, or still runs)
//	(killed)
//	                                                    miss, SELECT → old, fill
//	                          visible
//	                                                    (a hit of old)
//
// So nothing is stored before what was under way is over (I14 says the same of a
// store that processes share). What is under way is asked of what every role may
// see: pg_locks, and of pg_stat_activity the columns that are not hidden.
//
//  1. The transactions of this database, by their virtual ids, that may still commit
//     a change. One that has an id, or holds or wants a lock for writing while it runs,
//     may; who has neither may if it runs a statement, which may be about to write.
//     Who has neither and runs nothing is idle: what it has not been sent yet is
//     none of a dead process. It runs something if it has a snapshot; the snapshot
//     of a REPEATABLE READ transaction looks the same while it is idle. What has
//     written nothing is waited for at most readsOver long, so that neither a report
//     nor a dump keeps the cache cold for its hours, and not at all if the role may see
//     that it runs a plain query; what has written, until it is over, which
//     idle_in_transaction_session_timeout bounds if anything does.
//  2. Then the prepared transactions of this database, as they are then: one of the
//     first kind may have become one. Their manager decides, when it likes.
//  3. Then the log is on disk up to where it is then (I21): what was seen to be over
//     may have been committed asynchronously.
type UnderWay struct {
	Warm atomic.Bool // all of it

	mu       sync.Mutex // guards the fields below
	since    time.Time  // when it was asked first
	running  []string   // virtual ids
	over     bool       // they are
	prepared []string   // ids, once the running are over
	settled  bool       // those are over
	disk     backend.FlushPoint
}

// readsOver is how long a transaction is waited for that runs something but has
// neither written anything nor a lock to do so.
const readsOver = 30 * time.Second

// runningQuestion lists the virtual ids of transactions that may still commit a
// change: those that have a sign of writing behind a "w", the others behind an "r",
// with what they run where the role may see it. Sessions of no role are PostgreSQL's own.
const runningQuestion = `SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat(kind, virtualtransaction, pg_catalog.chr(31), text), pg_catalog.chr(30)), '') FROM (
 SELECT v.virtualtransaction, CASE WHEN a.backend_xid IS NOT NULL OR writing.locks THEN 'w' ELSE 'r' END AS kind,
  CASE WHEN a.state OPERATOR(pg_catalog.=) 'active' THEN pg_catalog.translate(a.query, pg_catalog.concat(pg_catalog.chr(30), pg_catalog.chr(31)), '') END AS text
 FROM pg_catalog.pg_stat_activity a
 JOIN pg_catalog.pg_locks v ON v.pid OPERATOR(pg_catalog.=) a.pid AND v.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND v.granted
  AND v.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
 CROSS JOIN LATERAL (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS locks, pg_catalog.count(*) FILTER (WHERE NOT l.granted) OPERATOR(pg_catalog.>) 0 AS waits
  FROM pg_catalog.pg_locks l
  WHERE l.pid OPERATOR(pg_catalog.=) a.pid AND l.locktype OPERATOR(pg_catalog.=) 'relation'
   AND l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock' AND l.mode OPERATOR(pg_catalog.<>) 'RowShareLock') writing
 WHERE a.datid OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
  AND a.usesysid IS NOT NULL AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
  AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL OR writing.waits)) running`

// preparedQuestion lists the prepared transactions.
const preparedQuestion = `SELECT coalesce(pg_catalog.string_agg(transaction::pg_catalog.text, ' '), '') FROM pg_catalog.pg_prepared_xacts
 WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()`

// IsWarm reports that every commit is over which nobody has marked. It asks over
// in unless that is in a transaction, which an error would abort, and which
// sees one state of pg_stat_activity for as long as it lasts.
func (sp *Space) IsWarm(ctx context.Context, in backend.Conn, s *backend.Session, v *View) bool {
	before := sp.Before.Load() // see chill
	if before.Warm.Load() {
		return true
	}
	if in == nil || in.Closed() || in.TxStatus() != 'I' || !sp.warming.Due(time.Now()) ||
		slices.ContainsFunc(sp.after, func(before *Space) bool { return !before.settled(sp.Key.Identity) }) {
		return false
	}
	onlyReads := func(text string) bool { return Asks(text) || onlyReads(text, s, v) }
	ok, err := before.isOver(ctx, &sp.Log, onlyReads, sp.Key.Identity.Asker(in))
	if err != nil || !ok {
		return false
	}
	before.Warm.Store(true)
	return true
}

// Asks reports that a text of another session is what a process of the driver asks, this
// one beside its pool, say. A question that writes to the log has a sign of writing.
func Asks(text string) bool {
	return catalog.Asks(text) || strings.HasPrefix(text, backend.QuestionOfOne) || strings.HasPrefix(text, backend.QuestionOfSession)
}

// onlyReads reports that a text of another session is one query that runs no code but
// PostgreSQL's own and writes nothing. What that session has been sent beside it,
// in one batch, nobody can see.
func onlyReads(text string, s *backend.Session, v *View) bool {
	if text == "" || s == nil || v == nil || v == NoCatalog {
		return false
	}
	statements, err := parser.Parse(text, nil)
	if err != nil || len(statements) != 1 || statements[0].Kind != parser.Select {
		return false
	}
	plan := keying.New(text, statements, v.Snapshot, s.Path)
	return !plan.Writes && !plan.Asks && !plan.Calls && !plan.Opaque && !plan.Catalog && !plan.Session && !plan.Unknown
}

func (u *UnderWay) isOver(ctx context.Context, log *backend.Log, onlyReads func(string) bool, ask backend.AskFunc) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.over {
		answer, err := ask(ctx, runningQuestion)
		if err != nil {
			return false, err
		}
		u.seen(strings.FieldsFunc(answer, func(r rune) bool { return r == 30 }), onlyReads, time.Now())
		if !u.over {
			return false, nil
		}
	}
	if !u.settled {
		answer, err := ask(ctx, preparedQuestion)
		if err != nil {
			return false, err
		}
		now := strings.Fields(answer)
		if u.prepared == nil {
			u.prepared = now
		}
		u.prepared = slices.DeleteFunc(u.prepared, func(id string) bool { return !slices.Contains(now, id) })
		if len(u.prepared) > 0 {
			return false, nil
		}
		u.settled = true
	}
	return u.disk.Forced(ctx, log, ask)
}

// seen takes an answer to runningQuestion.
func (u *UnderWay) seen(answer []string, onlyReads func(string) bool, now time.Time) {
	running := make(map[string]bool) // by virtual id; true if it has a sign of writing
	for _, s := range answer {
		id, text, _ := strings.Cut(s[1:], "\x1f")
		if writes := s[0] == 'w'; writes || !onlyReads(text) {
			running[id] = writes
		}
	}
	if u.since.IsZero() {
		u.since = now
		u.running = slices.Collect(maps.Keys(running))
	}
	// Who does not run now may run something again, but only what it was sent since.
	u.running = slices.DeleteFunc(u.running, func(id string) bool { _, ok := running[id]; return !ok })
	u.over = !slices.ContainsFunc(u.running, func(id string) bool { return running[id] || now.Sub(u.since) < readsOver })
}
