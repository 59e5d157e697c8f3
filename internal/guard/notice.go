package guard

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/store"
)

// Notice is how a process that cannot reach the store tells the others, through
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
//
// See docs/decisions/shared-store.md (D49).
type Notice struct {
	Guard *Guard
	group sync.WaitGroup // of rounds

	mu      sync.Mutex // guards the fields below; nobody asks PostgreSQL under it
	held    *Rotation  // nil: there is no notice
	posted  time.Time  // as PostgreSQL has said last
	holders int        // commits under way
	left    time.Time  // when the last of them ended
	next    *round     // that has not begun; nil: nobody wants one
	asking  bool       // one is under way
}

// round is one question whether the notice is there, which posts it if it is not, for all
// who came before it was sent. Were each to ask for itself, commits would go one at a
// time as long as the store cannot be reached.
type round struct {
	done   chan struct{} // closed when there is an answer
	posted time.Time
	err    error
}

// What processes tell each other through PostgreSQL are advisory locks of one class,
// shared but for the leader's and the setup's.
const (
	LockClass  = 0x63616368 // "cach"
	LockNotice = 0x65647067 // "edpg": commits go past the store
	LockAlone  = 0x65647068 // a statement runs outside of transactions
	LockLeader = 0x65647069 // a process follows the log, or is about to
	LockFeed   = 0x6564706a // a feed from the log is live
	LockRelay  = 0x6564706b // a relay is there that can reach the store
	LockSetup  = 0x6564706c // the tables are being made

	// Classes of their own, for the object says who holds them: see peers.Camp and the locks of its policies.
	LockCamps    = 0x63616369
	LockPolicies = 0x6361636a
)

const (
	// NoticeMargin is for clocks that do not run alike: a twentieth of a lease.
	NoticeMargin = store.Lease / 20

	// noticeRest is how long a notice stays that no commit needs. While it is
	// there nobody has a cache, and the next commit can wait once more.
	noticeRest = 4 * store.Lease
)

// Held is an SQL expression: somebody holds the lock.
func Held(object int) string {
	return fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"+
		" AND classid OPERATOR(pg_catalog.=) %d AND objid OPERATOR(pg_catalog.=) %d AND objsubid OPERATOR(pg_catalog.=) 2"+
		" AND database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))", LockClass, object)
}

// LockSQL is a statement that calls one of PostgreSQL's functions for such a lock.
func LockSQL(function string, object int) string {
	return fmt.Sprintf("SELECT pg_catalog.%s(%d, %d)::pg_catalog.text", function, LockClass, object)
}

var noticePost = Lock{Class: LockClass, Object: LockNotice}

// lockInTx takes the lock until the open transaction ends.
func lockInTx(object int) string { return LockSQL("pg_advisory_xact_lock_shared", object) }

// Stand returns when a commit needs no marks, or when retry has set them after
// all; leave is nil then. Otherwise its caller calls leave when the outcome of
// the commit is known. in is the connection with the transaction that is about
// to commit; nil if there is none.
func (n *Notice) Stand(ctx context.Context, in backend.Conn, retry func() bool) (leave func(), err error) {
	n.enter()
	defer func() {
		if leave == nil {
			n.leave()
		}
	}()
	for {
		if in != nil && !n.stands() {
			if err := backend.Patient(ctx, in); err != nil {
				return nil, err
			}
		}
		posted, err := n.post(ctx)
		if err != nil {
			return nil, err
		}
		if done, err := outlast(ctx, posted, retry); done || err != nil {
			return nil, err
		}
		if in != nil { // before hold finds the notice there: then one of the two always is
			if _, err := backend.KeepIn(ctx, in, lockInTx(LockNotice)); err != nil {
				return nil, err
			}
		}
		if n.hold(ctx, posted) {
			return n.leave, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// StandIn is stand in the transaction open on in, which is about to commit: the
// notice is the transaction's own, and there is only one commit under it.
func StandIn(ctx context.Context, in backend.Conn, retry func() bool) error {
	if err := backend.Patient(ctx, in); err != nil {
		return err
	}
	if _, err := backend.KeepIn(ctx, in, lockInTx(LockNotice)); err != nil {
		return err
	}
	_, err := outlast(ctx, time.Now(), retry)
	return err
}

// outlasted is when every lease is over that was extended before a notice was posted.
func outlasted(posted time.Time) time.Time { return posted.Add(patience.Lease + NoticeMargin) }

// outlast waits until every lease is over that was extended before a notice was
// posted, or until retry succeeds.
func outlast(ctx context.Context, posted time.Time, retry func() bool) (done bool, err error) {
	for due := outlasted(posted); time.Now().Before(due); {
		if retry() {
			return true, nil
		}
		if err := pause.For(ctx, min(time.Until(due), NoticeMargin)); err != nil {
			return false, err
		}
	}
	return false, nil
}

// stands reports that a notice was posted so long ago that a commit need not wait.
func (n *Notice) stands() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.posted.IsZero() && !time.Now().Before(outlasted(n.posted))
}

// post makes sure that a notice is posted and returns since when it is, as far as is
// known: hold finds out whether it still is.
func (n *Notice) post(ctx context.Context) (time.Time, error) {
	n.mu.Lock()
	posted := n.posted
	n.mu.Unlock()
	if !posted.IsZero() {
		return posted, nil
	}
	return n.ask(ctx)
}

// ask asks whether the notice is there, in a round that begins after the call.
func (n *Notice) ask(ctx context.Context) (posted time.Time, err error) {
	n.mu.Lock()
	r := n.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		n.next = r
	}
	if !n.asking {
		n.asking = true
		n.group.Go(n.rounds)
	}
	n.mu.Unlock()
	select {
	case <-r.done:
		return r.posted, r.err
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// rounds asks until nobody wants to know. No caller's context ends a question: the
// connection would go with it, and the notice of all the others.
func (n *Notice) rounds() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.next != nil {
		r := n.next
		n.next = nil
		if n.held == nil {
			n.held = NewRotation(n.Guard, 0, false)
		}
		held := n.held
		n.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), AskTimeout)
		_, since, err := held.Hold(ctx, []Lock{noticePost}, "")
		cancel()
		n.mu.Lock()
		r.posted, r.err = since[noticePost], err
		if n.held == held { // else it was lifted meanwhile
			n.posted = r.posted // after an error it may be gone
		}
		close(r.done)
	}
	n.asking = false
}

// hold reports that the notice posted at that time is still there.
// PostgreSQL may drop it at any time; a lease that begins after that waits for
// the transaction that is about to commit.
func (n *Notice) hold(ctx context.Context, posted time.Time) bool {
	now, err := n.ask(ctx)
	return err == nil && now == posted
}

// enter counts a commit in: while there is one nobody lifts the notice. One that waits for
// leases to be over counts too, or it would wait for as long as the store can
// be reached and takes no marks.
func (n *Notice) enter() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holders++
}

// leave counts a commit out that enter has counted in.
func (n *Notice) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holders--
	n.left = time.Now()
}

// Unused reports that a notice is posted which no commit has needed for a while.
func (n *Notice) Unused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.idleLocked() && time.Since(n.left) > noticeRest && time.Since(n.posted) > noticeRest
}

// Idle reports that a notice is posted which no commit needs.
func (n *Notice) Idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.idleLocked()
}

func (n *Notice) idleLocked() bool { return n.held != nil && n.holders == 0 }

// Close lifts the notice and returns when nobody asks for it any more.
func (n *Notice) Close() {
	n.Lift()
	n.group.Wait()
	n.Lift()
}

// Lift takes the notice down if no commit needs it.
func (n *Notice) Lift() {
	n.mu.Lock()
	if n.held == nil || n.holders > 0 {
		n.mu.Unlock()
		return
	}
	held := n.held
	n.held, n.posted = nil, time.Time{}
	n.mu.Unlock()
	held.Close()
}
