package space

import (
	"context"
	"errors"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
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
// To load a catalog may take longer than what is left of the lease, so it is loaded
// beside (see loads), and the renewal waits for it only as long as the lease has time for.
// Then it doubts: it makes all that is valid stale, which is one step, and the lease goes
// on. What becomes valid after that was planned with a catalog that was loaded after it, so
// for as long as the question is answered with the same number it is that of PostgreSQL,
// and no digest is needed.
//
//	keeper                          psql                    another process
//	                                                        stamps; loads: digest 1
//	                                ALTER TABLE, COMMIT
//	question: number 2
//	(extends: …)                                            (… what it fills is a hit)
//	new stamps, acknowledged
//	extends
//	                                                        agree: the stamps moved,
//	                                                        so it loads again: digest 2
//	question: still number 2
//	extends
//
// A process that dies before its stamps are acknowledged has extended nothing, and one
// that dies after them has made too much stale. Another one that renews then has numbers of
// its own, and doubts by itself or compares.
//
// Who would have to load the catalog for it leaves this renewal to others once: of
// many processes one goes on renewing, which asks a question of some tens of microseconds.
func (k *Keeper) sameCatalog(ctx context.Context, left time.Duration) (bool, error) {
	if !k.watch.armed() && !k.deferred {
		k.deferred = true
		if _, err := k.ask(); err == nil {
			k.space.Loads.Begin() // it is there when nobody else has renewed
		}
		return false, nil
	}
	limit, cancel := context.WithTimeout(ctx, left-patience.Lease/8)
	defer cancel()
	for {
		stamps, err := k.stamps(ctx)
		if err != nil {
			return false, ignoreCold(err)
		}
		number, err := k.ask()
		if err != nil || number == k.doubted {
			return err == nil, err
		}
		if stamps[0] == 0 { // a DDL of the driver's is under way: who loads after it compares
			if stamps, err = k.stamps(ctx); err != nil || stamps[0] == 0 { // after the question nothing was valid
				return err == nil, ignoreCold(err)
			}
			continue
		}
		digest, known := k.watch.digest(number)
		agreement := store.Moved
		if known && stamps[1] != 0 {
			if agreement, err = k.Store.Agree(ctx, digestVersion, digest, &stamps); err != nil {
				return false, ignoreCold(err)
			}
		}
		switch {
		case agreement != store.Moved:
			return true, nil
		case limit.Err() != nil:
			return k.doubt(ctx, number)
		case known: // stamps move
		default:
			select {
			case <-k.space.Loads.Begin(): // a nil channel if it is too soon for another load
			case <-limit.Done():
			}
		}
	}
}

// stamps returns those of the tags of schema and catalog, zero of one that is dirty.
func (k *Keeper) stamps(ctx context.Context) (stamps [2]store.Stamp, err error) {
	_, _, err = k.Store.Lookup(ctx, store.Key{}, Everything, stamps[:])
	return stamps, err
}

// doubt makes everything in the store stale, so that what the watch has given a number
// for need not be compared.
func (k *Keeper) doubt(ctx context.Context, number uint64) (bool, error) {
	if err := k.space.InvalidateAll(ctx); err != nil {
		return false, err
	}
	k.doubted = number
	return true, nil
}

// ask asks the watch. With a new connection, and many tables, that may take longer than a
// renewal has time. Then the lease ends, and the next one is quick.
func (k *Keeper) ask() (uint64, error) {
	long, cancel := context.WithTimeout(k.life, catalogTimeout)
	defer cancel()
	return k.watch.ask(long)
}

func ignoreCold(err error) error {
	if errors.Is(err, store.ErrCold) {
		return nil
	}
	return err
}
