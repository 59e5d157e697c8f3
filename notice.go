package cachedpg

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// notice is how a process that cannot reach the store tells the others, through
// PostgreSQL, that it commits past it. While it is posted nobody renews the
// lease, so a lease after it was posted no hit of what was stored before is
// possible, and what the process commits then needs no marks:
//
//	other process                        this process
//	ask PostgreSQL: no notice
//	                                     post the notice
//	extend the lease: at most until
//	one lease after the question
//	                                     wait one lease and a margin
//	ask: a notice; no lease any more     COMMIT
//
// The notice is an advisory lock, see rotation. It stays until the store can be reached again, so that only the
// first commit waits. If the process dies, so does the notice, while its COMMIT
// may go on: therefore the transaction that commits holds the same lock.
type notice struct {
	guard *guard

	mu      sync.Mutex // guards the fields below
	held    *rotation  // nil: there is no notice
	posted  time.Time
	holders int       // commits under way
	left    time.Time // when the last of them ended
}

// What processes tell each other through PostgreSQL are advisory locks of one class,
// shared but for the leader's and the setup's.
const (
	lockClass  = 0x63616368 // "cach"
	lockNotice = 0x65647067 // "edpg": commits go past the store
	lockAlone  = 0x65647068 // a statement runs outside of transactions
	lockLeader = 0x65647069 // a process follows the log, or is about to
	lockFeed   = 0x6564706a // a feed from the log is live
	lockRelay  = 0x6564706b // a relay is there that can reach the store
	lockSetup  = 0x6564706c // the tables are being made

	// Classes of their own, for the object says who holds them: see camp and policyPost.
	lockCamps    = 0x63616369
	lockPolicies = 0x6361636a
)

const (
	// noticeMargin is for clocks that do not run alike: a twentieth of a lease.
	noticeMargin = store.Lease / 20

	// noticeRest is how long a notice stays that no commit needs. While it is
	// there nobody has a cache, and the next commit can wait once more.
	noticeRest = 4 * store.Lease
)

// held is an SQL expression: somebody holds the lock.
func held(object int) string {
	return fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"+
		" AND classid OPERATOR(pg_catalog.=) %d AND objid OPERATOR(pg_catalog.=) %d AND objsubid OPERATOR(pg_catalog.=) 2"+
		" AND database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))", lockClass, object)
}

// lock is a statement that calls one of PostgreSQL's functions for such a lock.
func lock(function string, object int) string {
	return fmt.Sprintf("SELECT pg_catalog.%s(%d, %d)::pg_catalog.text", function, lockClass, object)
}

var noticePost = post{lockClass, lockNotice}

// lockInTx takes the lock until the open transaction ends.
func lockInTx(object int) string { return lock("pg_advisory_xact_lock_shared", object) }

// stand returns when a commit needs no marks, or when retry has set them after
// all; leave is nil then. Otherwise its caller calls leave when the outcome of
// the commit is known. in is the connection with the transaction that is about
// to commit; nil if there is none.
func (n *notice) stand(ctx context.Context, in inner, retry func() bool) (leave func(), err error) {
	for {
		posted, err := n.post(ctx)
		if err != nil {
			return nil, err
		}
		if done, err := outlast(ctx, posted, retry); done || err != nil {
			return nil, err
		}
		if in != nil { // before hold finds the notice there: then one of the two always is
			if _, err := in.text(ctx, lockInTx(lockNotice)); err != nil {
				return nil, err
			}
		}
		if n.hold(ctx, posted) {
			return n.leave, nil
		}
	}
}

// standIn is stand in the transaction open on in, which is about to commit: the
// notice is the transaction's own, and there is only one commit under it.
func standIn(ctx context.Context, in inner, retry func() bool) error {
	if _, err := in.text(ctx, lockInTx(lockNotice)); err != nil {
		return err
	}
	_, err := outlast(ctx, time.Now(), retry)
	return err
}

// outlast waits until every lease is over that was extended before a notice was
// posted, or until retry succeeds.
func outlast(ctx context.Context, posted time.Time, retry func() bool) (done bool, err error) {
	for due := posted.Add(store.Lease + noticeMargin); time.Now().Before(due); {
		if retry() {
			return true, nil
		}
		if err := sleep(ctx, min(time.Until(due), noticeMargin)); err != nil {
			return false, err
		}
	}
	return false, nil
}

// post makes sure that a notice is posted and returns since when it is.
func (n *notice) post(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // others wait for mu
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == nil {
		n.held = newRotation(n.guard, 0, false)
	}
	if n.posted = n.held.heldSince(noticePost); !n.posted.IsZero() {
		return n.posted, nil
	}
	return n.posted, n.askLocked(ctx)
}

// askLocked makes sure that the notice is there. After an error it may be gone.
func (n *notice) askLocked(ctx context.Context) error {
	_, since, err := n.held.hold(ctx, []post{noticePost}, "")
	n.posted = since[noticePost]
	return err
}

// patient keeps PostgreSQL from ending a transaction that does nothing while it
// has to wait.
func patient(ctx context.Context, in inner) error {
	_, err := in.text(ctx, "SELECT pg_catalog.count(pg_catalog.set_config(name, '0', true))::pg_catalog.text FROM pg_catalog.pg_settings"+
		" WHERE name OPERATOR(pg_catalog.=) ANY ('{idle_in_transaction_session_timeout,transaction_timeout}') AND setting OPERATOR(pg_catalog.<>) '0'")
	return err
}

// hold counts a commit in if the notice posted at that time is still there.
// PostgreSQL may drop it at any time; a lease that begins after that waits for
// the transaction that is about to commit.
func (n *notice) hold(ctx context.Context, posted time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == nil || n.posted != posted || n.askLocked(ctx) != nil || n.posted != posted {
		return false
	}
	n.holders++
	return true
}

func (n *notice) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holders--
	n.left = time.Now()
}

// unused reports that a notice is posted which no commit has needed for a while.
func (n *notice) unused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held != nil && n.holders == 0 && time.Since(n.left) > noticeRest && time.Since(n.posted) > noticeRest
}

// idle reports that a notice is posted which no commit needs.
func (n *notice) idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held != nil && n.holders == 0
}

// lift takes the notice down if no commit needs it.
func (n *notice) lift() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held != nil && n.holders == 0 {
		n.dropLocked()
	}
}

func (n *notice) dropLocked() {
	n.held.close()
	n.held, n.posted = nil, time.Time{}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
