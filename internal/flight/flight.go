package flight

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// Group lets concurrent identical misses share one SELECT.
//
// A read may join a flight only if its own lookup saw the same stamps
// (invariant: flights join by key and stamps). By key alone it would not be linearizable:
//
//	reader 1              writer             reader 2
//	lookup: miss
//	SELECT → old
//	                      intend, COMMIT
//	                      Commit returns
//	                                         lookup: miss (new stamps)
//	                                         joins reader 1 → old
//
// Who joins, follows; and is not to be worse off than alone:
//
//   - It waits for one flight. If that ends without a result, all who followed run the
//     SELECT themselves, at the same time.
//   - If the one who leads is called off, another takes over at once. For that one the
//     rest wait only as long as the SELECT should take.
//   - A flight that takes longer than its SELECT should, because the one who leads is held
//     up, is joined by one more who runs the SELECT, after twice that time by another,
//     and so on: not everybody runs a slow SELECT, and nobody is held up for long.
//   - It waits for a quarter of its own time at most, see Conn.patience.
//   - Of one process whoever is waited for by others runs the SELECT, also if another one leads, see takes.
//
// See docs/decisions/reads.md (D3).
type Group struct {
	mu    sync.Mutex // guards byKey, and what runs in the flights
	byKey map[store.Key]*Flight
}

// Flight is one SELECT under way. Its landing is written before done is closed and
// only read afterwards.
type Flight struct {
	of     *Group
	key    store.Key
	stamps []store.Stamp
	done   chan struct{}
	vacant chan struct{} // has a token when nobody runs the SELECT any more, for one who follows
	should time.Duration // what the SELECT may take
	Landed Landing

	// Guarded by of.mu.
	runners   int           // who run the SELECT
	followers int           // who wait for them
	leaders   int           // who have taken over, one after another
	over      bool          // done is closed
	waits     bool          // the one who leads waits for another process
	begun     time.Time     // when the last of the runners began
	patience  time.Duration // how long after that another one may
}

// Landing is what a SELECT gave that others may have as well; zero if nothing did.
type Landing struct {
	Entry *store.Entry    // the rows before err, if there is one
	Err   *pgconn.PgError // which every one of them would get
	SQL   string          // that err speaks of
}

// Join returns the flight that a read with these stamps may share. When the
// caller leads it must call leave, whatever happens. took is how long the SELECT took
// last time, zero if nobody knows; waits says that it waits for another process before it runs it.
func (fs *Group) Join(key store.Key, stamps []store.Stamp, took time.Duration, waits bool) (f *Flight, leader bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byKey[key]; f != nil && slices.Equal(f.stamps, stamps) {
		return f, false
	}
	// A flight with other stamps goes on for those who joined it; later reads
	// are more likely to have the stamps seen now.
	f = &Flight{of: fs, key: key, stamps: slices.Clone(stamps), done: make(chan struct{}), vacant: make(chan struct{}, 1),
		should: Overdue(took), runners: 1, waits: waits, begun: time.Now(), patience: Overdue(took)}
	if fs.byKey == nil {
		fs.byKey = make(map[store.Key]*Flight)
	}
	fs.byKey[key] = f
	return f, true
}

// Lead is join by one who follows nobody: nil if another leads.
func (fs *Group) Lead(key store.Key, stamps []store.Stamp, took time.Duration) *Flight {
	f, leader := fs.Join(key, stamps, took, false)
	if !leader {
		return nil
	}
	return f
}

// Overdue is how long somebody waits for a SELECT that took so long last time.
func Overdue(took time.Duration) time.Duration { return max(patience.Flight, 2*took) }

// Takes reports that the one who leads waits for another process, as far as it can see, and that the caller
// shall run the SELECT and call leave: it is what the leader waits for, since its own
// lookup makes all others Busy.
//
//	leads                           follows                         another process
//	lookup: busy                    lookup: miss, is waited for     lookup: busy
//	                                joins
//	                                (gives up what it has taken)
//	                                                                lookup: miss; takes it for a failure, so that
//	                                                                all who follow there run the SELECT
func (f *Flight) Takes() bool {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if !f.waits || f.over {
		return false
	}
	f.waits, f.begun = false, time.Now()
	f.runners++
	return true
}

// Begins is told that the one who leads runs the SELECT from now on.
func (f *Flight) Begins() {
	if f == nil {
		return
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.waits, f.begun = false, time.Now()
}

// Land gives the flight its landing, the first that there is. Of a nil flight nobody waits.
func (f *Flight) Land(l Landing) {
	if f == nil {
		return
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if !f.over {
		f.Landed = l
		f.endLocked()
	}
}

// Leave is called by each who runs the SELECT when it does no longer. The last
// one ends the flight; or leaves it to one who follows, if all that has happened
// is that its caller's context has ended.
func (f *Flight) Leave(ctx context.Context) {
	if f == nil {
		return
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.runners--; f.runners > 0 || f.over {
		return
	}
	if ctx.Err() == nil || f.followers == 0 {
		f.endLocked()
		return
	}
	f.wakeLocked()
}

// wakeLocked lets one who follows know that nobody runs the SELECT.
func (f *Flight) wakeLocked() {
	select {
	case f.vacant <- struct{}{}:
	default:
	}
}

func (f *Flight) endLocked() {
	f.over = true
	if f.of.byKey[f.key] == f {
		delete(f.of.byKey, f.key)
	}
	close(f.done)
}

// Follow waits for the flight, for as long as patience allows. joins says that the
// caller shall run the SELECT in it and call leave; else the flight is over. An error is
// that of the context.
func (f *Flight) Follow(ctx context.Context, patience time.Duration) (joins bool, err error) {
	until := time.Now().Add(patience)
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.followers++
	defer func() {
		if f.followers--; f.runners == 0 && !f.over { // it was left to one who is gone too
			if f.followers == 0 {
				f.endLocked()
			} else {
				f.wakeLocked()
			}
		}
	}()
	for leader := f.leaders; !f.over; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := time.Until(until)
		wait := time.Until(f.begun.Add(f.patience))
		switch {
		case f.runners == 0:
			f.leaders++
			f.begun, f.patience = time.Now(), f.should
			f.runners++
			return true, nil
		case left <= 0 || wait <= 0 && f.leaders != leader: // it has waited for the one before
			f.runners++
			return true, nil
		case wait <= 0:
			f.begun, f.patience = time.Now(), 2*f.patience
			f.runners++
			return true, nil
		}
		f.of.mu.Unlock()
		timer := time.NewTimer(min(wait, left))
		select {
		case <-f.done:
		case <-f.vacant:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		f.of.mu.Lock()
	}
	return false, nil
}

// Certain returns err if PostgreSQL refuses a text with it whoever sends it, as long as
// the tables are what they are: an error in the data or in the text. One of limits,
// locks or connections, or of a server that has not enough of something, is none.
func Certain(err error) *pgconn.PgError {
	refused, ok := err.(*pgconn.PgError) // not wrapped: who follows gets it as it is
	if !ok || len(refused.Code) != 5 {
		return nil
	}
	switch refused.Code[:2] {
	case "21", "22", "42", "P0": // cardinality, data, syntax and rights, RAISE
		return refused
	}
	return nil
}

// OwnErr gives each caller an error of its own, which it may change.
func (l Landing) OwnErr() error {
	own := *l.Err
	return &own
}
