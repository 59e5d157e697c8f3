package space

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// A commit marks what it has changed in a store that processes share, and releases it, also where
// nobody reads that from the cache. So relations that are written much more often than they are
// looked up are closed to the cache: nobody mints their stamps, and their commits leave out the
// intents (I26). Reads of them go to PostgreSQL without a lookup. The lookups that they would have made
// are counted, so that a relation opens again when that is worth it.
//
// All processes count, the store adds up, and the one whose count ends a window decides.
// Steps that need more than a moment are that process's to do; if the list has not moved on
// for doorsTakeOver, they are everybody's.
const (
	countEvery    = time.Second
	doorsTakeOver = 5 * time.Second

	// A relation that has fewer commits in a window stays as it is.
	closeCommits = 200

	// closeRatio times as many commits as lookups, by their weight, close a relation. As many
	// lookups as commits open it. What is between keeps the cost of changes low.
	closeRatio = 4
)

// Doorkeeper counts what is written and looked up of each relation, and closes and opens
// relations for the keeper. See docs/decisions/shared-store.md (D45).
type Doorkeeper struct {
	keeper  *Keeper
	Store   store.Closable // nil: nothing is ever closed
	traffic sync.Map       // *traffic by OID, since the last count

	// Of the keeper's goroutine alone.
	counted time.Time
	seen    string    // version of a list with steps to be taken
	since   time.Time // when it was seen first
	ours    string    // version of the list that this process made
	horizon horizon   // of the relations that are opening, by the list's version
	sweep   *sweep    // of those that are closing
	refused time.Time // when a sweep failed last
}

// sweep is store.Sweep under way.
type sweep struct {
	version string
	done    chan struct{}
	err     error // once done is closed
}

type traffic struct{ commits, lookups atomic.Uint64 }

func (d *Doorkeeper) of(relation uint32) *traffic {
	if t, ok := d.traffic.Load(relation); ok {
		return t.(*traffic)
	}
	t, _ := d.traffic.LoadOrStore(relation, new(traffic))
	return t.(*traffic)
}

// relations calls f for the relations of tags. Those of one stand together, mostly.
func relations(tags []store.Tag, f func(relation uint32)) {
	last := uint32(0)
	for _, t := range tags {
		if t.Relation != last && t.Relation != 0 {
			last = t.Relation
			f(last)
		}
	}
}

// Commits counts one.
func (d *Doorkeeper) Commits(tags []store.Tag) {
	if d.Store != nil {
		relations(tags, func(oid uint32) { d.of(oid).commits.Add(1) })
	}
}

// Lookup counts one by its weight, and reports whether it can find anything: all relations are open.
func (d *Doorkeeper) Lookup(tags []store.Tag, worth int32) (open bool) {
	if d.Store == nil {
		return true
	}
	open = true
	list := d.Store.Doors()
	relations(tags, func(oid uint32) {
		d.of(oid).lookups.Add(uint64(worth))
		open = open && list.Of(oid) == store.Open
	})
	return open
}

// Doors is the list as this process knows it; nil if all are open.
func (sp *Space) Doors() *store.Doors {
	if sp.Keeper == nil || sp.Keeper.Doors.Store == nil {
		return nil
	}
	return sp.Keeper.Doors.Store.Doors()
}

// tick counts, decides, and takes the steps that are due. It reports that there is one soon.
func (d *Doorkeeper) tick(ctx context.Context) (soon bool) {
	if d.Store == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	if time.Since(d.counted) >= countEvery {
		window, err := d.Store.Count(ctx, d.take())
		d.counted = time.Now()
		if err != nil {
			return false
		}
		d.decide(ctx, window)
	}
	return d.work(ctx)
}

// take takes what was counted. A counter that was taken from its map under an Add loses that.
func (d *Doorkeeper) take() map[uint32]store.Traffic {
	taken := make(map[uint32]store.Traffic)
	d.traffic.Range(func(oid, counted any) bool {
		t := counted.(*traffic)
		n := store.Traffic{Commits: t.commits.Swap(0), Lookups: t.lookups.Swap(0)}
		if n == (store.Traffic{}) {
			d.traffic.Delete(oid)
		} else {
			taken[oid.(uint32)] = n
		}
		return true
	})
	return taken
}

// decide says which relations are to close and to open, by the traffic of a window.
func (d *Doorkeeper) decide(ctx context.Context, window map[uint32]store.Traffic) {
	list := d.Store.Doors()
	next := make(map[uint32]store.Door)
	version := ""
	if list != nil {
		version = list.Version
		maps.Copy(next, list.Relations)
	}
	if pending(list) {
		return
	}
	changed := false
	for oid, t := range window {
		switch door := list.Of(oid); {
		case door == store.Open && t.Commits >= closeCommits && t.Lookups*closeRatio < t.Commits && time.Since(d.refused) > time.Hour:
			next[oid], changed = store.Closing, true
		case door == store.Closed && t.Lookups > 0 && t.Lookups >= t.Commits:
			next[oid], changed = store.Opening, true
		}
	}
	if changed {
		d.set(ctx, version, next)
	}
}

func pending(list *store.Doors) bool {
	if list == nil {
		return false
	}
	for _, door := range list.Relations {
		if door == store.Closing || door == store.Opening {
			return true
		}
	}
	return false
}

// set replaces the list, if nobody else has.
func (d *Doorkeeper) set(ctx context.Context, version string, relations map[uint32]store.Door) {
	if ok, err := d.Store.SetDoors(ctx, version, relations); err != nil || !ok {
		return
	}
	if list := d.Store.Doors(); list != nil { // else Redis has been replaced meanwhile
		d.ours = list.Version
	}
}

// work takes the steps that the list asks for: what closes is closed when its stamps are
// gone, what opens is open when the commits are over that may have left out intents. Both
// begin after the list has said so, and count for that version of it.
//
// A process that dies in between leaves a list that is as good: nobody mints, and commits mark
// what is not closed. Another one takes its steps from the beginning.
func (d *Doorkeeper) work(ctx context.Context) (soon bool) {
	list := d.Store.Doors()
	if !pending(list) {
		return false
	}
	if list.Version != d.seen {
		d.seen, d.since = list.Version, time.Now()
	}
	if list.Version != d.ours && time.Since(d.since) < doorsTakeOver {
		return false
	}
	next := make(map[uint32]store.Door, len(list.Relations))
	var closing []uint32
	opening := false
	for oid, door := range list.Relations {
		switch door {
		case store.Closing:
			closing = append(closing, oid)
			next[oid] = store.Closed
		case store.Opening:
			opening = true
		default:
			next[oid] = door
		}
	}
	opened := !opening || d.opened(ctx, list.Version)
	swept, err := d.swept(list.Version, closing)
	if !opened || !swept {
		return time.Since(d.since) < time.Second
	}
	if err != nil { // none of these was ever closed
		d.refused = time.Now()
		for _, oid := range closing {
			delete(next, oid)
		}
	}
	d.set(ctx, list.Version, next)
	return false
}

// opened reports that everything is over, and on disk, that was under way at a moment when the
// list had this version.
func (d *Doorkeeper) opened(ctx context.Context, version string) bool {
	k := d.keeper
	if d.horizon.epoch != version {
		h, err := k.newHorizon(ctx, version)
		if err != nil {
			return false
		}
		d.horizon = h
	}
	over, err := d.horizon.over(ctx, &k.Guard, k.log, nil)
	return err == nil && over
}

// swept reports that a sweep has ended that began when the list had this version.
func (d *Doorkeeper) swept(version string, closing []uint32) (bool, error) {
	if len(closing) == 0 {
		return true, nil
	}
	if d.sweep != nil {
		select {
		case <-d.sweep.done:
		default:
			return false, nil
		}
		if d.sweep.version == version {
			return true, d.sweep.err
		}
	}
	s := &sweep{version: version, done: make(chan struct{})}
	d.sweep = s
	go func() {
		defer close(s.done)
		s.err = d.Store.Sweep(d.keeper.life, closing)
	}()
	return false, nil
}

// rest waits for a sweep under way, whose context has ended.
func (d *Doorkeeper) rest() {
	if d.sweep != nil {
		<-d.sweep.done
	}
}
