package planning

import (
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/clock"
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
// are read and written one by one. What else a call has to do is done all the same.
const (
	// AccountLimit is with how many fills an account begins, and the most that is in it.
	// A text costs no more than these beyond what it saves, however long it is used.
	AccountLimit = 128

	// leash is how many a text may take from its account when that of one of its tables is
	// used up, and how many it has to earn to be looked up again. An application
	// may have a text for every length of a list.
	leash = 16

	// minGain bounds from below what a hit gives: who has a hit in five
	// lookups is always looked up. It spares PostgreSQL work, whatever time it takes.
	minGain = 4

	// Of what is not looked up these are all the same: the keys whose first byte
	// is below sampledKeys of 256, and the first sampledRun of each SampledEvery lookups.
	// Among few of many keys it shows as soon as among all whether they
	// are asked for again; a run finds out about a text that has a few keys.
	sampledKeys  = 4
	sampledRun   = 4
	SampledEvery = 256

	// A fill costs this much beyond the SELECT and the lookup.
	fillCost = 10 * time.Microsecond
)

// account is that of a text or a table. Its methods may be called concurrently; the
// zero value is a full one.
type account struct {
	Spent atomic.Int32 // from 0 to AccountLimit
}

// take reports whether something is left.
func (a *account) take() bool {
	if a.Spent.Load() < AccountLimit {
		return a.Spent.Add(1) < AccountLimit
	}
	return false
}

// give lets at least low stay spent.
func (a *account) give(gain, low int32) {
	for {
		old := a.Spent.Load()
		if old <= low || a.Spent.CompareAndSwap(old, max(low, old-gain)) {
			return
		}
	}
}

func (a *account) empty() bool { return a.Spent.Load() >= AccountLimit }

// admission decides whether the results of a text are worth being looked up and
// stored. Its methods may be called concurrently.
type admission struct {
	account
	Out     atomic.Bool   // its results are not looked up, but for samples
	skipped atomic.Uint32 // reads since, samples included
	lookup  atomic.Int64  // how long a lookup takes that finds nothing, in ns
}

// Admits reports whether to look up the result with this key. It allocates nothing.
func (a *admission) Admits(key store.Key) bool {
	return !a.Out.Load() || a.skipped.Add(1)%SampledEvery < sampledRun || key[0] < sampledKeys
}

// Worth is what a hit gives that saves a SELECT which takes as long as this.
func (a *admission) Worth(saved time.Duration) int32 {
	cost := fillCost + time.Duration(a.lookup.Load())
	return int32(min(max(minGain, saved/cost), AccountLimit))
}

// hit records that a lookup has saved a SELECT that takes as long as this.
func (a *admission) hit(tables []*account, saved time.Duration) {
	gain := a.Worth(saved)
	a.give(gain, 0)
	for _, t := range tables {
		t.give(gain, 0)
	}
	if a.Out.Load() && a.Spent.Load() <= a.bound(tables)-leash {
		a.Spent.Store(0) // its other keys are yet to be stored
		a.Out.Store(false)
	}
}

// Fill records that a SELECT was run to store its result, after a lookup that
// took as long as this; zero if that was not measured.
func (a *admission) Fill(tables []*account, lookup time.Duration) {
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
	if bound := a.bound(tables); a.Spent.Load() < bound {
		a.take()
	} else {
		a.Spent.Store(bound) // so that what samples earn counts
	}
	if a.Spent.Load() >= a.bound(tables) {
		a.Out.Store(true)
	}
}

// even reports that there is nothing to give back, as with a text that has hits all the time.
func (a *admission) even(tables []*account) bool {
	for _, t := range tables {
		if t.Spent.Load() != 0 {
			return false
		}
	}
	return a.Spent.Load() == 0 // who is out has spent something
}

// bound is how much may be spent.
func (a *admission) bound(tables []*account) int32 {
	for _, t := range tables {
		if t.empty() {
			return leash
		}
	}
	return AccountLimit
}

// maxTables bounds the accounts of tables.
const maxTables = 4096

func newTableAccounts() *clock.Cache[uint32, *account] {
	return clock.New[uint32, *account](maxTables)
}

// accounts returns those of the tables that a text reads.
func (d *Texts) accounts(plan *keying.Plan) []*account {
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

// Gained records a hit.
func (sh *Shape) Gained() {
	if a := &sh.Stats.Admission; !a.even(sh.Tables) {
		a.hit(sh.Tables, sh.Stats.Took())
	}
}
