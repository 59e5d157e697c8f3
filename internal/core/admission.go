package core

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// A result that is stored and never used has cost a lookup, a copy, and with a
// shared store some round trips. So there is an account of each text and of each
// table: a fill takes one from it, a hit gives back as many as fills would cost
// as much time as it has saved. What has used up its account is not looked up any
// more, but for the samples that show when it would gain again.
//
// To go past the cache is always correct, so nothing here has to be exact: counters
// are read and written one by one. What PostgreSQL has to be told is told all the same.
const (
	// accountLimit is with how many fills an account begins, and the most that is in it.
	// A text costs no more than these beyond what it saves, however long it is used.
	accountLimit = 128

	// leash is how many a text may take from its account when that of one of its tables is
	// used up, and how many it has to earn to be looked up again. An application
	// may have a text for every length of a list.
	leash = 16

	// minGain bounds from below what a hit gives: who has a hit in five
	// lookups is always looked up. It spares PostgreSQL work, whatever time it takes.
	minGain = 4

	// Of what is not looked up these are all the same: the keys whose first byte
	// is below sampledKeys of 256, and the first sampledRun of each sampledEvery lookups.
	// Among few of many keys it shows as soon as among all whether they
	// are asked for again; a run finds out about a text that has a few keys.
	sampledKeys  = 4
	sampledRun   = 4
	sampledEvery = 256

	// A fill costs this much beyond the SELECT and the lookup.
	fillCost = 10 * time.Microsecond
)

// account is that of a text or a table. Its methods may be called concurrently; the
// zero value is a full one.
type account struct {
	spent atomic.Int32 // from 0 to accountLimit
}

// take reports whether something is left.
func (a *account) take() bool {
	if a.spent.Load() < accountLimit {
		return a.spent.Add(1) < accountLimit
	}
	return false
}

// give lets at least low stay spent.
func (a *account) give(gain, low int32) {
	for {
		old := a.spent.Load()
		if old <= low || a.spent.CompareAndSwap(old, max(low, old-gain)) {
			return
		}
	}
}

func (a *account) empty() bool { return a.spent.Load() >= accountLimit }

// admission decides whether the results of a text are worth being looked up and
// stored. Its methods may be called concurrently.
type admission struct {
	account
	out     atomic.Bool   // its results are not looked up, but for samples
	skipped atomic.Uint32 // reads since, samples included
	lookup  atomic.Int64  // how long a lookup takes that finds nothing, in ns
}

// admits reports whether to look up the result with this key. It allocates nothing.
func (a *admission) admits(key store.Key) bool {
	return !a.out.Load() || a.skipped.Add(1)%sampledEvery < sampledRun || key[0] < sampledKeys
}

// worth is what a hit gives that saves a SELECT which takes as long as this.
func (a *admission) worth(saved time.Duration) int32 {
	cost := fillCost + time.Duration(a.lookup.Load())
	return int32(min(max(minGain, saved/cost), accountLimit))
}

// hit takes in that a lookup has saved a SELECT that takes as long as this.
func (a *admission) hit(tables []*account, saved time.Duration) {
	gain := a.worth(saved)
	a.give(gain, 0)
	for _, t := range tables {
		t.give(gain, 0)
	}
	if a.out.Load() && a.spent.Load() <= a.bound(tables)-leash {
		a.spent.Store(0) // its other keys are yet to be stored
		a.out.Store(false)
	}
}

// fill takes in that a SELECT was run to store its result, after a lookup that
// took as long as this; zero if that was not measured.
func (a *admission) fill(tables []*account, lookup time.Duration) {
	if lookup > 0 {
		known := a.lookup.Load()
		if known == 0 {
			known = int64(lookup)
		}
		a.lookup.Store(known + (int64(lookup)-known)/8)
	}
	for _, t := range tables {
		t.take()
	}
	if bound := a.bound(tables); a.spent.Load() < bound {
		a.take()
	} else {
		a.spent.Store(bound) // so that what samples earn counts
	}
	if a.spent.Load() >= a.bound(tables) {
		a.out.Store(true)
	}
}

// even reports that there is nothing to give back, as with a text that has hits all the time.
func (a *admission) even(tables []*account) bool {
	for _, t := range tables {
		if t.spent.Load() != 0 {
			return false
		}
	}
	return a.spent.Load() == 0 // who is out has spent something
}

// bound is how much may be spent.
func (a *admission) bound(tables []*account) int32 {
	for _, t := range tables {
		if t.empty() {
			return leash
		}
	}
	return accountLimit
}

// maxTables bounds the accounts of tables.
const maxTables = 4096

func newTableAccounts() *clock.Cache[uint32, *account] {
	return clock.New[uint32, *account](maxTables)
}

// accounts returns those of the tables that a text reads.
func (d *DB) accounts(plan *keying.Plan) []*account {
	var tables []*account
	for _, oid := range plan.Reads() {
		t, ok := d.tables.Get(oid)
		if !ok {
			t = d.tables.Add(oid, &account{}, 1)
		}
		tables = append(tables, t)
	}
	return tables
}

// admits reports whether to look up the result with this key, which depends on these tags.
func (c *Conn) admits(q *call, key store.Key, tags []store.Tag) bool {
	a := &q.text.stats.admission
	// What a writer refills is wanted, however rarely it is read.
	wanted := c.d.Config.Admission == config.AdmissionAll || q.text.through != nil
	switch {
	case !wanted && !a.admits(key):
		return false
	case q.space.Keeper == nil:
		return true
	}
	worth := int32(accountLimit)
	if !wanted {
		worth = a.worth(q.text.stats.took())
	}
	return q.space.Keeper.Doors.Lookup(tags, worth) || wanted
}

// ask looks the result up, and measures how long that takes unless the text has only hits.
func (c *Conn) ask(ctx context.Context, q *call, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if q.text.stats.admission.spent.Load() == 0 {
		return q.space.Lookup(ctx, key, tags, stamps)
	}
	begin := time.Now()
	entry, outcome, err := q.space.Lookup(ctx, key, tags, stamps)
	q.asked = time.Since(begin)
	return entry, outcome, err
}

// gained takes in a hit.
func (sh *shape) gained() {
	if a := &sh.stats.admission; !a.even(sh.tables) {
		a.hit(sh.tables, sh.stats.took())
	}
}
