package cachedpg

import (
	"context"
	"errors"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

// sameCatalog makes sure, before a lease is extended, that everything valid in the
// store was planned with the catalog that PostgreSQL has (I22): what others than the
// driver change is noticed by whichever process renews, and kills what all of them
// have stored. No hit is older than a lease from the question that did not see the change.
//
// The digest is compared with the one kept in the store and not with the last one of
// this process: another may have renewed meanwhile, or have loaded first.
//
// Who would have to load the catalog for it leaves this renewal to others once: of
// many processes one goes on renewing, which asks a question of some tens of microseconds.
func (k *keeper) sameCatalog(ctx context.Context) (bool, error) {
	if !k.watch.armed() && !k.deferred {
		k.deferred = true
		return false, nil
	}
	for range loadAttempts {
		var stamps [2]store.Stamp
		_, outcome, err := k.store.Lookup(ctx, store.Key{}, everything, stamps[:])
		if err != nil {
			return false, ignoreCold(err)
		}
		// To load a catalog may take longer than a renewal has time. Then the
		// lease ends, and the digest is there for the next.
		long, cancel := context.WithTimeout(k.life, catalogTimeout)
		number, err := k.watch.ask(long)
		var digest catalog.Digest
		if err == nil {
			digest, err = k.watch.digest(long, number)
		}
		cancel()
		if err != nil {
			return false, err
		}
		if outcome == store.Dirty || stamps[0] == 0 || stamps[1] == 0 {
			return true, nil // a DDL of the driver's is under way: nothing is valid, and who loads after it compares
		}
		agreement, err := k.store.Agree(ctx, digestVersion, digest, &stamps)
		if err != nil {
			return false, ignoreCold(err)
		}
		if agreement != store.Moved {
			return true, nil
		}
	}
	return false, nil
}

func ignoreCold(err error) error {
	if errors.Is(err, store.ErrCold) {
		return nil
	}
	return err
}
