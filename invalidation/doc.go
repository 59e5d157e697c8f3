// Package invalidation keeps cached results equal to the database while others
// write to it. It is the writers' half of a protocol whose other half is
// store.Store; this comment explains all of it.
//
// # Authority
//
// PostgreSQL alone decides what is committed. The store is a cache of what it
// said, and nothing in it is true because of its age: no timeout, lease or
// clock decides whether a result may be served. What PostgreSQL can be asked
// about a writer that fell silent is whether its transaction is over. It says
// "in progress" until the effect is visible to every new snapshot, also while a
// commit waits for a synchronous replica and for a prepared transaction, so
// "over" means that whoever reads from now on sees what there is to see.
//
// # The states of a tag
//
// A result depends on tags: rows, tables, the schema. A tag is clean with a
// stamp, or dirty with the set of writers that have an intent on it:
//
//	             ┌───────────── evict ─────────────┐
//	             ▼                                 │
//	        (no stamp) ─── a lookup mints ──▶ clean(stamp)
//	             ▲ │                               │
//	             │ └─────── intend(w) ──┐          │ intend(w)
//	release(w),  │                      ▼          ▼
//	none is left └───────────────── dirty{w, …} ◀──┘
//	                                 ▲  │ intend(w'), release(w)
//	                                 └──┘ while one is left
//
// A clean tag that is released by a writer without an intent goes to "no stamp"
// too. An entry is valid while each of its tags is clean with the very stamp
// that the entry was filled with. Because stamps are never reused, the way from
// clean to anything else cannot be walked back: an entry dies once and for all.
//
// # The life of a read
//
//  1. Lookup: the entry is valid → hit. The read linearises there.
//  2. A tag is dirty → a bypass: ask PostgreSQL, store nothing that depends on it.
//  3. Otherwise the lookup has read, and minted where missing, the stamps of
//     all tags.
//  4. SELECT.
//  5. Fill with the stamps of step 3, unconditionally: if one of them moved
//     meanwhile the entry is simply never valid.
//
// # The life of a write
//
//  1. Begin gives it an id, Intend makes all its tags dirty. They are acknowledged.
//  2. COMMIT (or, without a transaction, the statement itself).
//  3. Outcome known, whichever it is: Release. Not known: Abandon, with the
//     question that tells one day that the transaction is over.
//
// # Why no read is stale
//
// Let a commit change what an entry was read from; they share a tag T. The
// entry's stamp of T was read before its SELECT. If that was before the intent
// on T, the stamp died at the intent, before the commit could be visible to
// anyone. If it was between intent and release, there was no stamp and no fill.
// If it was after the release, the commit was visible or will never be, and the
// SELECT came later still. So at the moment when a lookup finds all stamps
// standing, no commit that the entry misses is visible to anyone, and the entry
// is what PostgreSQL would answer.
//
// # Invariants
//
// Tests and comments cite these by number.
//
//	I1   The stamps of an entry were read before its SELECT was sent.
//	I2   The intents of a write are acknowledged on all its tags before its
//	     commit can become visible.
//	I3   A dirty tag is neither hit nor filled, until the last of its writers released it.
//	I4   An intent is released only when the outcome is known: by its owner, or
//	     when PostgreSQL says that the transaction is over. Exactly that writer's.
//	I5   A release leaves the tag with a new stamp, whatever the outcome was.
//	I6   Stamps and writer ids are never used twice.
//	I7   Dirty tags are exempt from eviction and expiry. A stamp may be evicted;
//	     it is minted anew, never restored.
//	I8   A read joins another's SELECT only if it saw the same stamps itself. A bypass
//	     joins none that has been sent.
//	I9   The tags of an entry were planned with the catalog that the schema
//	     tag's stamp in it stands for: the stamp was read before that catalog was.
//	I10  The tags of a write were planned with the catalog that its statements
//	     ran under, or the schema tag is dirty until the write is over.
//	I11  Whatever was intended, or may have been, is released in the end, unless
//	     the store ends first.
//
// I1 to I7 are the store's and this package's to keep, I8 and I9 the reader's,
// I10 is what Generations is for. I11 is not needed for fresh results, only for
// cached ones: a tag with a lost intent is served by PostgreSQL for ever.
//
// # Races
//
// Each is stopped by the invariant named. TestRaces plays them with it and
// without; those that only a store can lose are played in package storetest.
//
// A load that began before a write stores after it (I1, with I5):
//
//	reader                          writer
//	lookup: miss, stamp 1
//	SELECT → old
//	                                intend: stamp 1 is dead
//	                                COMMIT, release
//	fill old with stamp 1
//	lookup: stale, not a hit
//
// The commit is visible and the cache does not know yet (I2, I3). With
// invalidation after the commit, reader 2 goes back in time:
//
//	reader 1                        writer                  reader 2
//	                                intend
//	                                COMMIT
//	bypass: SELECT → new
//	                                                        bypass, not a hit of old
//	                                release
//
// A load between intent and commit (I3):
//
//	reader                          writer
//	                                intend
//	lookup: dirty, no stamp
//	SELECT → old
//	                                COMMIT, release
//	nothing to fill with
//
// Two writers on one tag (I3): the release of the first must not clear the
// second's intent.
//
//	writer 1                        writer 2                reader
//	intend
//	                                intend
//	COMMIT, release
//	                                                        lookup: still dirty
//	                                COMMIT
//	                                release
//
// COMMIT was sent and the answer lost (I4). It may become visible at any time:
//
//	writer                          PostgreSQL              reader
//	intend
//	COMMIT →                        (received)
//	connection lost
//	(a release here …)                                      (… and miss, SELECT → old, fill)
//	                                commit visible          (… and a hit of old)
//
// A rollback puts the old stamp back (I5), because nothing has changed, has it?
//
//	writer 1                        writer 2                reader
//	intend: stamp 1 is dead
//	                                intend, COMMIT, release
//	ROLLBACK, release
//	(with stamp 1 again …)                                  (… a hit of old)
//
// The same id for two writes (I6): the resolver's late release hits the wrong one.
//
//	writer                          resolver                reader
//	write 1 as w: outcome unknown
//	write 2 as w: intend
//	                                write 1 is over:
//	                                release w
//	                                                        miss, SELECT → old, fill
//	COMMIT of write 2
//	                                                        hit of old
//
// An evicted stamp that is restored (I7): the fill of a reader that slept
// through a write would restore the stamp that the write has killed.
//
// A flight joined by key (I8):
//
//	reader 1                        writer                  reader 2
//	miss, SELECT → old
//	                                intend, COMMIT, release
//	                                                        miss, joins reader 1 → old
//
// A reader that planned with an old catalog (I9): view v read a, and now reads b.
//
//	reader                          DDL                     writer
//	plan: v depends on a
//	                                intend schema, COMMIT,
//	                                release schema
//	lookup: miss, new schema stamp
//	SELECT v → rows of b
//	fill, depends on a and schema
//	                                                        UPDATE b: intends b
//	hit of old
//
// The guard: a catalog remembers the schema stamp from before it was loaded,
// and a reader fills only if its lookup saw that stamp.
//
// A writer that planned with an old catalog (I10): see Generations. Across
// processes that share a store, Generations cannot see the others' writers.
// There a writer runs its statements in a transaction and reads the schema
// stamp after the last of them: another one than its catalog's, or none, and it
// intends the schema tag as well.
//
// # Failures
//
//   - The writer dies before COMMIT is sent: its transaction is aborted. With a
//     store in its own process the cache dies too; with a shared one the
//     intents stay until somebody finds the transaction over.
//   - Intend fails: some tags may be dirty. The write goes on to a Release of all
//     of them, however the caller decides about its commit.
//   - Release fails: it is repeated, with a back-off, until the store took it.
//   - The outcome is unknown: the resolver asks, with a back-off, until there is
//     an answer. An error is no answer. Meanwhile the tags are dirty and
//     PostgreSQL serves them.
//   - A store is opened anew, empty, while a writer of the old one may still
//     commit: the new store knows nothing of its intents, and an entry that it
//     fills before that commit is visible goes stale. Starting cold is no
//     remedy. A store outlives every writer that has intents in it, or its
//     successor fills nothing until the transactions that were open when it
//     began are over.
//   - The reader dies or sleeps anywhere: it has changed nothing but minted stamps.
//   - The store loses entries or stamps: misses.
//   - The store loses acknowledged intents: nothing here can help. A store that
//     can do that must start cold under a new name.
//
// # What was rejected
//
// A model checker explored the protocol and its would-be simplifications, with
// up to three writers, three readers, crashes and evictions (up to 21 million
// states each):
//
//   - Cache-aside, DELETE after COMMIT and SET after a miss: stale for good
//     after 35 steps.
//   - The same with a lease on the miss, so that late fills are refused: new,
//     then old, between the commit and the delete; stale for good if the writer
//     dies there.
//   - Intents with a timeout instead of the question to PostgreSQL: stale.
//   - Intents that can be evicted: stale.
//   - Intents cleared when the answer to COMMIT is lost: stale.
//   - Single flight by key: new, then old.
//   - Nobody clears the intents of the dead: never stale, and never cached again.
package invalidation
