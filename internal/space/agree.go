package space

import (
	"context"
	"strconv"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// digestVersion is the name under which digests are kept in a store that processes
// share: those of another build may be made otherwise.
var digestVersion = strconv.Itoa(catalog.DigestVersion)

// agree compares a catalog with the one that what is cached was planned with, and
// makes everything cold if it is another (I22): somebody has changed it past the
// driver. stamps are those that the tags of schema and catalog had before it was
// loaded. It is not agreed when the catalog has to be loaded again.
//
//	process 1                       psql                    process 2
//	load: digest 1; fills
//	                                ALTER TABLE, COMMIT
//	                                                        load: digest 2
//	                                                        digest 1 is kept: replaced,
//	                                                        new stamps, all is cold
//	hit? no: the stamps moved
//
// A process that has loaded before, and compares after, must not put the old digest
// back, under which what the others fill now would be planned wrongly:
//
//	process 1                       psql                    process 2
//	stamps; load: digest 1
//	                                ALTER TABLE, COMMIT
//	                                                        stamps; load: digest 2; replaced
//	agree: the stamps moved, so it
//	loads again
//
// It does so unless its digest is the one that the others have put there with these stamps, as
// when they begin at the same time.
func (sp *Space) agree(ctx context.Context, snapshot *catalog.Snapshot, stamps *[2]store.Stamp, generation, number uint64) (agreed bool, err error) {
	digest := snapshot.Digest()
	if digest == (catalog.Digest{}) {
		return true, nil
	}
	if stamps[0] == 0 || stamps[1] == 0 {
		stamps[0] = 0 // a DDL of the driver's is under way: to plan writes with, no more
		return true, nil
	}
	if sp.Keeper != nil {
		agreement, err := sp.Keeper.Store.Agree(ctx, digestVersion, digest, stamps)
		return agreement != store.Moved, err
	}
	sp.viewMu.Lock()
	switch {
	case sp.Gens.Current() != generation: // its stamps are not valid any more
		agreed = true
	case sp.Lease != nil && sp.Lease.now() != number:
		// It may have changed since, which nobody was told as nothing was planned.
		sp.viewMu.Unlock()
		return false, nil
	case sp.digest == (catalog.Digest{}) && sp.View.Load() == nil:
		sp.digest, agreed = digest, true
	case sp.digest == (catalog.Digest{}): // writers plan with a catalog, nothing is valid
		if agreed = sp.View.Load().Snapshot.Digest() == digest; agreed {
			sp.digest = digest
		}
	default:
		agreed = sp.digest == digest
	}
	sp.viewMu.Unlock()
	if !agreed {
		// Not with new stamps at once: a DDL of ours may have moved them again.
		err = sp.InvalidateAll(ctx)
	}
	return agreed, err
}

// planned reports that something in this process's memory may be valid.
func (sp *Space) planned() bool {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	return sp.digest != (catalog.Digest{})
}

// differs reports that what is cached in this process's memory was planned with
// another catalog than that of digest.
func (sp *Space) differs(digest catalog.Digest) bool {
	sp.viewMu.Lock()
	defer sp.viewMu.Unlock()
	return sp.digest != (catalog.Digest{}) && sp.digest != digest
}

// watched returns the number under which a catalog that is loaded now is known to be
// unchanged, and who wants to know its digest. Both are nothing where nobody watches.
func (sp *Space) watched(ctx context.Context) (w *watch, number uint64) {
	switch {
	case sp.Lease != nil:
		if w = &sp.Lease.watch; w.now() == 0 {
			sp.Lease.first(ctx)
		}
	case sp.Keeper != nil:
		w = &sp.Keeper.watch
	default:
		return nil, 0
	}
	if number = w.now(); number != 0 { // else it is not this process that asks
		ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
		defer cancel()
		number, _ = w.ask(ctx)
	}
	return w, number
}
