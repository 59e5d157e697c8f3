package peers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/store"
)

// Peers is what a process shows of itself to those that do not share its cache,
// and what it sees of them. Each camp shows by one lock that it may answer from
// its cache, by another that it may commit, and both look after they have shown
// themselves: of two that begin at the same time one sees the other (I23).
//
//	process with a cache                 process that writes past it
//	shows its cache
//	asks: no writer
//	hits, for one lease
//	                                     shows that it writes
//	                                     asks: a cache
//	                                     waits one lease and a margin
//	asks: a writer; no hit any more
//	                                     COMMIT
//
// A writer that sees no cache does not wait: one that comes later sees the writer.
//
// A process that has not asked for longer than a lease may have missed one that came,
// waited, committed and went. So what it had then is never a hit again (I24):
//
//	process with a cache                 process that writes past it
//	asks: no writer
//	(nothing is asked for a while)
//	                                     shows that it writes, waits
//	                                     COMMIT, goes
//	asks: no writer
//	(the old entry …)
//
// And a writer may not know yet that its lock is gone, because the connection
// that held it is. It asks at least every lease; so who has seen a writer begins
// again no sooner than a lease after it saw none.
//
// The folder model has this as peers.pml.
//
// A process with a cache in memory asks by itself. A shared store has a lease, which
// nobody extends who sees a writer of another camp; then its epoch ends, see Keeper.sure.
type Peers struct {
	guard    *guard.Guard
	self     func() Camp // of now
	process  string      // its name in tests, which play several in one; else empty
	policies string      // what all of a camp must agree on

	// cold is called when what was a hit before may be none any more, first when
	// there is nothing yet; nil if others see to that, or there is no cache.
	cold func(ctx context.Context, first bool)

	Watches bool // by itself; else the keeper does, with what it asks anyway

	// ByEvents says that the commits of other camps come as events. So it is not
	// withheld for them, and no writer waits for it.
	ByEvents bool

	turn  sync.Mutex // one asks at a time
	began time.Time  // when the last one did; guarded by turn
	last  error      // its outcome, if it did not find out what it wanted; guarded by turn

	// On the clock of elapsed.
	hitsUntil atomic.Int64 // may go on until
	commits   atomic.Int64 // may go on until

	nudged chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex // guards the fields below
	closed   bool
	done     chan struct{} // nil until it asks by itself
	answered chan struct{} // closed, and made anew, after each round
	camp     Camp
	writes   bool // it has written, or is about to

	writing time.Time // since when others can see that, without a break
	covered bool      // by a lock that is another's
	due     time.Time // commits wait until
	caching time.Time // since when others can see its cache, without a break
	asked   time.Time // before the last answer that allowed hits; zero: nothing may be left of before
	first   bool      // there was no answer yet that did not allow them

	met     []Camp    // that write: others than its own
	metAt   time.Time // zero: never
	metFrom time.Time // since when there is one in each answer
	mate    bool      // another process of its camp writes
	rivals  bool      // one of its camp has other policies
	notice  bool      // commits go past a shared store
	problem error     // PostgreSQL does not let it ask
}

// RenewEvery is how often it asks: every quarter of a lease leaves three tries before hits stop.
const RenewEvery = store.Lease / 4

// started is what elapsed counts from.
var started = time.Now()

func elapsed(t time.Time) int64 { return int64(t.Sub(started)) }

// New returns what shows nothing and asks nothing yet. process is the name that tests tell processes of one binary apart by, and
// policies what all processes of its camp must agree on; empty if there is nothing.
func New(g *guard.Guard, process string, self func() Camp, policies string, cold func(ctx context.Context, first bool)) *Peers {
	p := &Peers{guard: g, process: process, self: self, policies: policies, cold: cold, first: true, nudged: make(chan struct{}, 1), answered: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Watch has it ask by itself from now on.
func (p *Peers) Watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil && !p.closed {
		p.done = make(chan struct{})
		go p.run(p.done)
	}
}

func (p *Peers) run(done chan struct{}) {
	defer close(done)
	for {
		rest := RenewEvery
		if err := p.round(func() bool { return false }); pgerr.Is(err, pgerr.InsufficientPrivilege) { // who wants to know looks
			rest = backend.RefusedFor
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-p.nudged:
		case <-p.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Close ends the watch. The guard is its owner's to close.
func (p *Peers) Close() {
	p.mu.Lock()
	p.closed = true
	done := p.done
	p.mu.Unlock()
	p.cancel()
	if done != nil {
		<-done
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	kinOf(p.process, p.camp, Camp{})
	p.camp = Camp{}
}

// round asks once, unless enough is true when it is its turn. No caller's context
// ends it: with the question pgx would end the connection, and the locks with it.
//
// Who has waited for a question that was asked after it came, and has failed, shares
// that: while PostgreSQL does not answer, callers do not wait for each other in turn.
func (p *Peers) round(enough func() bool) (err error) {
	came := time.Now()
	p.turn.Lock()
	defer p.turn.Unlock()
	switch {
	case enough() || p.ctx.Err() != nil:
		return p.ctx.Err()
	case p.last != nil && p.began.After(came):
		return p.last
	}
	p.began = time.Now()
	defer func() { p.last = err }()
	ctx, cancel := context.WithTimeout(p.ctx, guard.AskTimeout)
	defer cancel()
	p.mu.Lock()
	was := p.camp
	p.camp = p.self()
	kinOf(p.process, was, p.camp)
	hidden := p.camp.kind == Off || p.camp.kind == unknown || len(p.met) > 0 || !p.restedLocked()
	p.mu.Unlock()
	err = p.ask(ctx, hidden)
	if err != nil && !guard.Refused(err) { // PostgreSQL may have ended the connection
		err = p.ask(ctx, hidden)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if hidden && err == nil && p.camp.kind != Off && len(p.met) == 0 && p.restedLocked() {
		p.mu.Unlock()
		err = p.ask(ctx, false)
		p.mu.Lock()
	}
	close(p.answered)
	p.answered = make(chan struct{})
	return err
}

// restedLocked reports that writers which were seen have been gone for long enough.
func (p *Peers) restedLocked() bool { return p.metAt.IsZero() || time.Since(p.metAt) >= Wait() }

// ask shows what there is to show, asks, and draws the conclusions. Who answers
// nothing from a cache hides it: nobody needs to wait for it.
func (p *Peers) ask(ctx context.Context, hidden bool) error {
	pooled := p.guard.IsPooled()
	p.mu.Lock()
	var shown []guard.Lock
	hidden = hidden || p.camp.kind == unknown
	if !hidden && !p.ByEvents {
		shown = append(shown, guard.Lock{Class: guard.LockCamps, Object: p.camp.cacheLock()})
	}
	// Behind a pooler a lock takes one of few connections, so there it is not
	// taken while those of others have the same effect.
	holds := !p.writing.IsZero() && !p.covered
	if p.writes && p.camp.kind != unknown && (holds || !pooled || !p.mate && len(p.met) < 2) {
		shown = append(shown, p.camp.Writing())
	}
	if p.policies != "" && (len(shown) > 0 || p.ByEvents) {
		shown = append(shown, p.policyPost())
	}
	p.mu.Unlock()
	at := time.Now()
	var s census
	answer, since, err := p.guard.Holding(ctx, shown, censusOf(p.guard.ID.Database))
	if err == nil {
		s, err = parseCensus(answer)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failedLocked(err)
		return err
	}
	p.problem = nil
	p.meetLocked(at, s)
	p.sawWritingLocked(at, s, since[p.camp.Writing()], pooled)
	caching := since[guard.Lock{Class: guard.LockCamps, Object: p.camp.cacheLock()}]
	if p.ByEvents {
		caching = started
	}
	if hidden || caching.IsZero() || len(p.met) > 0 {
		p.asked, p.first = time.Time{}, p.first && p.metAt.IsZero()
		p.hitsUntil.Store(0)
		return nil
	}
	if p.cold != nil && (p.asked.IsZero() || caching != p.caching || time.Since(p.asked) > patience.Lease) {
		first := p.first
		p.mu.Unlock()
		p.cold(ctx, first)
		p.mu.Lock()
		p.first = false
	}
	p.caching, p.asked = caching, at
	p.hitsUntil.Store(elapsed(at.Add(patience.Lease)))
	return nil
}

func (p *Peers) meetLocked(at time.Time, s census) {
	p.notice = s.notice
	p.met = nil
	if !p.ByEvents {
		p.met = withoutKin(p.process, others(s.writers, p.camp))
	}
	p.mate = slices.Contains(s.writers, p.camp)
	if s.notice && p.camp.kind != Shared {
		p.met = append(p.met, Camp{kind: Shared})
	}
	if len(p.met) == 0 {
		p.metFrom = time.Time{}
	} else if p.metAt = at; p.metFrom.IsZero() {
		p.metFrom = at
	}
	p.rivals = false
	if p.policies != "" {
		own := p.policyPost().Object
		p.rivals = slices.ContainsFunc(s.policies, func(o int) bool { return o != own && o>>16 == own>>16 })
	}
}

// sawWritingLocked is told since when the lock is held that shows that the process writes.
func (p *Peers) sawWritingLocked(at time.Time, s census, since time.Time, pooled bool) {
	was := p.covered
	p.covered = since.IsZero() && p.writes && pooled && (p.mate || len(p.met) > 1)
	if p.covered {
		if since = p.writing; !was {
			since = at
		}
	}
	if since != p.writing {
		p.writing, p.due = since, time.Time{}
		if len(withoutKin(p.process, others(s.caches, p.camp))) > 0 || s.young {
			p.due = time.Now().Add(Wait())
		}
	}
	if p.writing.IsZero() || time.Now().Before(p.due) {
		p.commits.Store(0)
	} else {
		p.commits.Store(elapsed(at.Add(patience.Lease)))
	}
}

// failedLocked is told that there is no answer. A cache in memory that was alone
// goes on while nobody answers at all, and is cold when somebody does.
func (p *Peers) failedLocked(err error) {
	switch {
	case errors.Is(err, context.Canceled): // of who asked
	case guard.Refused(err) || errors.As(err, new(backend.Elsewhere)):
		p.problem, p.asked, p.first = err, time.Time{}, false
		p.hitsUntil.Store(0)
	case !p.asked.IsZero():
		p.hitsUntil.Store(elapsed(time.Now().Add(patience.Lease)))
	default:
		p.problem = err
	}
}

// policyPost shows those of the same camp what must be equal in it.
func (p *Peers) policyPost() guard.Lock {
	return guard.Lock{Class: guard.LockPolicies, Object: int(p.camp.id>>13)<<16 | int(NewCamp(0, p.policies).id>>12)}
}
