// Package invalidation keeps cached results equal to the database while others
// write to it. It is the writers' half of a protocol whose other half is
// store.Store; this comment explains all of it.
//
// # Authority
//
// PostgreSQL alone decides what is committed. The store is a cache of what it
// said, and nothing in it is true because of its age: no timeout and no clock
// says that a result is still good, or that a writer is over. Of a writer that
// cannot be asked itself, because it has died or lost its connection, PostgreSQL
// says whether its transaction is over. It says "in progress" until the effect is
// visible to every new snapshot, also while a commit waits for a synchronous
// replica and for a prepared transaction, so after "over" every new read sees the effect.
//
// # What a tag names
//
// A relation has tracked keys: its unique indexes, and a few single columns by which rows are
// looked for. They follow from the catalog alone. A tag names rows by the value of such a
// key, whether or not there are any:
//
//	TagTable      any row of the relation
//	TagRow(k, v)  the rows in which k has the value v
//	TagRows(k)    rows of which the value of k is not known
//	TagNew(k)     rows that appeared, with values of the unique key k that are not known
//	TagChanged    rows that were there before they were changed or deleted
//
// A write names of each row that it changes, for each tracked key, the value before and the
// value after, or all values. A result about the rows in which k is v depends on TagRow(k, v) and TagRows(k), and
// on TagNew(k) if k is unique and it found none; any other depends on TagTable. That suffices: no row
// enters such a result, leaves it or changes in it, but v is its value of k before the write
// or after. Which rows the read has met does not matter. NULL needs no tag, as no equality meets it.
//
// Each of them is about some columns of the relation (Tag.Part). A write marks the parts that have a
// column which it sets, and all parts when a row comes or goes; a read depends on one that has all columns
// which it uses. TagChanged is for relations whose rows are found by a foreign key that holds: what it refers to was there
// before. Package keying says which parts there are, and why either suffices.
//
//   - A row moves from v to w between the lookup and the SELECT of a reader. The write names both,
//     so the results of either are stale, with the row or without it.
//   - An UPDATE waits for another of the same row and goes on with the newest version (READ
//     COMMITTED). WHERE is checked again on that version, so the value that it fixes is that of
//     the row which is changed, and RETURNING shows the version that was written.
//   - A trigger changes a tracked column. RETURNING shows the row as it is stored, after BEFORE
//     triggers. AFTER triggers write by statements of their own, which name what they change.
//   - The value that an UPDATE replaces is that of the statement's snapshot only if no other
//     transaction has written the row since; xmin and xmax tell. Else it is not known.
//   - ON CONFLICT meets a row that another transaction has inserted meanwhile. It is one with the
//     value that the new row has, and RETURNING shows what has become of it.
//   - A process writes by a catalog in which a key is not tracked that another's results depend
//     on. The tracked keys are part of the catalog's digest, so these are two catalogs (I9, I10, I22).
//
// # The states of a tag
//
// A result depends on tags, of rows, of tables, and of the schema. A tag is clean with a
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
// that the entry was filled with. Because stamps are never reused, an entry whose
// tag was released or evicted is never valid again.
//
// An intent may also be spared, if the store is store.Sparing: its writer has not changed what
// the tag names. If all do so that had an intent on the tag since it was clean, it has its stamp again (I27):
//
//	clean(stamp) ── intend(w), … ──▶ dirty{w, …} ── spare(w), …, none is left ──▶ clean(stamp)
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
//  2. COMMIT (or, without a transaction, the statement itself). A statement that is marked
//     before it has run is marked with coarse tags. Its answer says what it has changed. Then Intend
//     makes the precise tags dirty, and Spare takes the coarse ones back that are not among them.
//  3. Outcome known, whichever it is: Release. Not known: Abandon, with a
//     question that is asked until the answer is that the transaction is over.
//
// # Why no read is stale
//
// Let a commit change what an entry was read from; they share a tag T. The
// entry's stamp of T was read before its SELECT. If that was before the intent
// on T, the stamp died at the intent, before the commit could be visible to
// anyone. If it was between intent and release, there was no stamp and no fill.
// If it was after the release, the commit was visible or will never be, and the
// SELECT came later still. If the writer has spared T, T was dirty until the
// writer had an intent on another tag that the entry depends on. The entry's stamp of that one was
// read before its SELECT, so before the commit, and died at that intent. So at the moment when a lookup finds all stamps
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
//	I7   Dirty tags are exempt from eviction and expiry. A stamp may be evicted, or
//	     expire before its entries do; it is minted anew, never restored.
//	I8   A read joins another's SELECT only if it saw the same stamps itself. A bypass
//	     joins none that has been sent.
//	I9   The tags of an entry were planned with the catalog that the schema
//	     tag's stamp in it stands for: the stamp was read before that catalog was, or
//	     before an equal one was by who has put it there (I22).
//	I10  The tags of a write were planned with the catalog that its statements
//	     ran under, or the schema tag is dirty until the write is over.
//	I11  Whatever was intended, or may have been, is released in the end, unless
//	     the store ends first.
//
// A store that processes share can lose its memory, and a process the store. For it:
//
//	I12  Whatever loses an intent ends its epoch. Nothing that was stored in an
//	     epoch is found after its end, and no epoch returns.
//	I13  A hit needs a lease: it ends, on the store's clock, at most store.Lease
//	     after PostgreSQL was asked and knew of nobody who commits past the store.
//	     A lease that ran out ends the epoch.
//	I14  An epoch gets its first lease when every write is over that was under
//	     way after the epoch began, and has no intent in it; after an epoch whose
//	     lease ran out, and none of whose intents were lost, when nobody commits
//	     past the store.
//	I15  A write that cannot be marked is committed when its process has had a
//	     notice in PostgreSQL for longer than a lease, and under a notice of its own.
//	I16  While a lease of a server that was replaced may stand, commits wait.
//
// A database can move from one server of PostgreSQL to another. For that:
//
//	I17  The marks of a write are in the namespace of the server on which it
//	     commits: where the connection may lead elsewhere, the transaction itself was asked.
//	I18  Before the first commit that is marked in a namespace, the epochs of all
//	     earlier namespaces of its database are ended. They get another lease only
//	     when their own server has been asked. In one process there are no hits any more
//	     in a namespace that was superseded. Of namespaces on one server, where a name can
//	     come back, each first mark and each first lease ends the epochs of the others.
//	I19  What PostgreSQL is asked about a transaction or a lease is answered by the
//	     server of the namespace, in one statement with the proof that it is that one.
//
// PostgreSQL shows a commit with synchronous_commit=off before it is on disk, and a crash
// undoes it. So:
//
//	I20  The intents of a write stay until what it committed is on this server's disk,
//	     or the server has crashed since. Whether a write is over, and how far the log
//	     is, is asked of the very server that the write was sent to: not of a standby.
//	I21  What counts as over for a cache that begins, or an epoch that does, is on
//	     disk as well.
//
// Others change the catalog without a mark. For them:
//
//	I22  Everything that is valid under a stamp of the schema tag was planned with
//	     the catalog of the one digest that is kept beside it. Another digest gives the
//	     tag another stamp, and only a process that read the stamp before it loaded the
//	     catalog puts a digest there. A hit needs an answer of PostgreSQL, to a question
//	     sent at most a lease before, that the catalog is the one of the digest; or that it
//	     is unchanged since a question after which all stamps of the tag were replaced.
//
// Processes on one database that do not share a store. For them:
//
//	I23  A commit that is not marked in some process's cache becomes visible only after
//	     its own process has shown in PostgreSQL that it writes, and after every hit is
//	     over that an earlier question allowed. Hits need such a question, whose answer
//	     was that no process with another store writes, for each store.Lease. A process
//	     shows its cache before it asks, so that a writer that sees no cache need not wait.
//	I24  If for some time no such question was answered, nothing that was cached before
//	     is a hit after it. The cache begins anew when what was under way then is over, and
//	     no sooner than a lease after it has seen the last writer.
//
// Writes may be queued in the store before PostgreSQL has them (strategy write-behind). For that:
//
//	I25  One server of PostgreSQL owns the queue: writes are queued for it alone, and it
//	     alone applies them and takes them out. Another server becomes the owner when the
//	     owner is gone and it has all that the owner has recorded, or when a person says so.
//
// A relation may be closed in a store that processes share, because caching its results
// does not pay. For that:
//
//	I26  A commit leaves out intents only on tags of a relation that is closed in the very
//	     step in which it marks the others, when its transaction has its id and waits for the disk.
//	     A relation is closed when no stamp of it is minted any more and, after that, all
//	     existing ones were dropped. It is open when every write is over, and on disk, that was
//	     under way at a moment after the store had stopped letting commits leave out intents.
//
// A statement outside of a transaction is marked before PostgreSQL tells what it has changed,
// with tags that name more than that. For a store in one process:
//
//	I27  An intent is spared only when the outcome of its write is known, and every result that
//	     the write has made stale depends on a tag on which it has another intent. The tag has its
//	     stamp again only if every writer that had an intent on it since has spared it. Who
//	     finds it with that stamp has looked at the others after those intents were acknowledged.
//
// The store and this package keep I1 to I7 and I27, the reader keeps I8 and I9, Generations
// keeps I10. The shared store and the driver's keeper (internal/space) keep I12 to I16
// and I26, its peers (internal/peers) I23 and I24, its queue (internal/behind) I25.
// I11 is not needed for correct results, only for cache hits: without it a tag
// could stay dirty, and PostgreSQL would serve it for ever.
//
// # Races
//
// The invariant named prevents each of them. TestRaces plays them with it and
// without; package storetest plays those that depend on the store alone.
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
// A coarse intent is spared before the precise one is there (I27):
//
//	reader                          writer
//	miss, SELECT → old, fill
//	                                intend all rows
//	                                UPDATE of row 7, visible
//	                                (spare all rows …)
//	(… and a hit of old)
//	                                intend row 7, spare all rows
//	stale, not a hit
//
// One writer spares what another has changed (I27, with I5):
//
//	writer 1                        writer 2                reader
//	intend all rows: stamp 1
//	                                intend all rows
//	UPDATE, release all rows
//	                                no row; spare all rows
//	                                (with stamp 1 again …)  (… a hit of old)
//
// A reader looks at the tags of an entry one after the other, or reads the stamps by which it joins a
// SELECT under way (I27, I8):
//
//	reader                          writer
//	                                intend all rows
//	                                UPDATE of row 7, visible
//	row 7: as it was
//	                                intend row 7, spare all rows
//	all rows: as they were
//	(a hit of old …)
//
// The guard: a spare is counted before it changes a tag, and who finds another count at the end than at the
// beginning looks again.
//
// Somebody changes the catalog past the driver, and a process that has loaded it
// before compares after another that has loaded it since (I22):
//
//	reader 1                        psql                    reader 2
//	stamps; loads: digest 1
//	                                ALTER TABLE, COMMIT
//	                                                        stamps; loads: digest 2
//	                                                        keeps 2, new stamps
//	(keeps 1 again …)                                       (… and what is filled under
//	                                                        digest 2 is hit by digest 1)
//
// The guard: the stamps that reader 1 has read are not those of now, so it loads again.
//
// The process that renews a lease does not wait until a changed catalog is loaded. It replaces
// the stamps before it extends, so what is valid after that was planned with a catalog that was
// loaded after the question (I22):
//
//	reader                          psql                    renewing process
//	stamps; loads: digest 1
//	                                ALTER TABLE, COMMIT
//	                                                        asks: changed, to what is not known
//	                                                        (extends …)
//	fills                                                   (… and it is hit by digest 1)
//
// # A store that processes share
//
// The store goes on when this process has died, and this process goes on when the
// store has died or has lost its memory. Five things follow.
//
// Intents outlive their writer, so they say what to ask PostgreSQL: the id of
// the transaction, known before COMMIT because autocommit statements run in a
// transaction too. Whoever meets an intent for longer than a commit takes asks
// whether that transaction is over, and if so releases exactly that intent (I4).
//
// The store may lose intents: it is flushed, it evicts, it restarts from an old
// snapshot, a replica is promoted that had not received them. They are kept in
// one place together with the name of the epoch, so that none is lost without
// the epoch (I12); names of entries and stamps begin with it, and with the
// identity of the server.
//
//	reader                          writer                  store
//	                                intend, acknowledged
//	                                                        loses everything
//	miss: mints a stamp
//	SELECT → old, fill
//	                                COMMIT
//	hit of old
//
// Therefore a new epoch is cold: nobody mints in it before all those writers are
// over (I14). The bound is a transaction id that PostgreSQL gives out after the epoch
// began; when no transaction below it is in progress, every write that may have
// lost its intents is over, and later ones have theirs in the new epoch. What
// cannot run in a transaction has no id, so its backend holds a lock in
// PostgreSQL from before it is marked; a new epoch waits for that too.
//
// A writer may lose the store while others have it, and shall commit all the
// same. It cannot stop them from hitting, so hits stop by themselves: they need
// a lease, which is extended only after asking PostgreSQL whether somebody has posted
// a notice there (I13, I15). The extension is to a fixed time on the store's clock, counted
// from before the question, so that one that arrives late extends nothing:
//
//	reader                          writer                  store
//	store's clock: t
//	PostgreSQL: no notice
//	                                posts a notice
//	extend to t + lease
//	                                waits one lease
//	                                                        the lease ends, the epoch with it
//	                                COMMIT
//	PostgreSQL: a notice; no lease
//
// The committing transaction holds the notice as well: it goes on when the
// process and its notice are killed, and a new epoch may have asked for its bound
// already.
//
// A lease that ran out ends its epoch, because such a commit may have happened
// since. This is the only use of time: it can make the cache cold too early,
// and as long as a second is about a second everywhere, never stale.
//
// A replaced server may still have readers with a lease while writers mark on
// its successor. A renewal makes sure that the server is the same as when its
// name was made, so such a lease ends soon; writers who find an epoch
// younger than a lease, on a server that has replicated, wait for the rest of it (I16).
// A process that has known the server as a master for a lease does not wait: the server was
// emptied, not replaced.
//
// A copy of the database server has the names, the tables and the position in the queue of its
// original, and both go on (I25). They differ in that the owner is alive, and
// that its record has moved on since the copy was made:
//
//	owner                           its copy                store
//	position 7, fence 3             position 7, fence 3     owner, fence 3; entry 8
//	                                reads entry 8
//	applies 8, fence 4; COMMIT
//	                                                        fence 4; 8 is taken out
//	                                (applies 8, takes it out: the owner would never have had it)
//	                                not the owner: applies nothing
//	dies
//	                                fence 3 is below 4: not its successor
//
// # A relation that is closed
//
// No entry of it is a hit, so its commits need not mark it, and nobody waits for them (I26).
// Before it is closed all its stamps are dropped, and nobody mints; else there may be one that no
// commit kills:
//
//	reader                          store                   writer
//	                                closing, sweep
//	(mints …)
//	SELECT → old
//	                                closed
//	                                                        marks nothing; COMMIT
//	fill                                                    (… and a hit of old)
//
// Before it opens the commits are over that have left out their intents. They have an id when
// they do, so PostgreSQL knows of them:
//
//	writer                          store                   keeper
//	UPDATE: its id is 7
//	marks nothing: it is closed
//	                                opening
//	                                                        its own id is 8: waits for all below
//	                                (open …)
//	(a reader mints, SELECT → old, fill)
//	COMMIT                                                  (… and a hit of old)
//
// The list that a writer has read earlier does not count: the list is compared in the step that
// marks, or in one that finds that there is nothing to mark. If the store loses the list it loses
// the epoch as well, and the next epoch waits for all that is under way (I14). The catalog that the
// tags were planned with is compared as ever (I10), also where no intent is left to be set.
//
// # A database that moves
//
// PostgreSQL alone decides, but which one? A standby is promoted, a pooler is
// led to another server and keeps its clients, a volume is cloned, a name is given
// to another database. So entries, stamps and intents are in a namespace that
// is named by the server's system identifier, timeline and start, and by the
// database's name and OID. A write that is marked in one namespace and commits in
// another is not seen by those who read there (I17):
//
//	writer, knows A                 pooler                  reader, knows B
//	BEGIN; UPDATE, on B             leads to B
//	marks in A's namespace
//	                                                        miss, SELECT → old, fill
//	COMMIT, on B
//	                                                        hit of old
//
// And readers that do not know of B go on in A's namespace (I18):
//
//	writer                          store                   reader, knows A
//	finds B, marks there, COMMIT
//	                                A's lease stands        hit of old
//
// A renewal of A's lease that was under way when its epoch was ended names that epoch,
// and a new one needs A's own server (I19): over a pooler that leads to B by then
// nobody commits past the store, on B.
//
// # Failures
//
//   - The writer dies before COMMIT is sent: its transaction is aborted. With a
//     store in its own process the cache dies too; with a shared one the
//     intents stay until somebody finds the transaction over.
//   - The process dies between the coarse intent and the spare: the cache was its own, nothing is left.
//     If only the answer is lost nothing is spared, and the write is abandoned as any other.
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
//   - The store loses acknowledged intents: its epoch is over (I12, I14).
//   - The store cannot be reached: reads ask PostgreSQL. Writes wait for one lease,
//     once, and go on past it (I15); or fail, with cache_on_store_down=fail.
//   - PostgreSQL cannot be asked: no lease is extended, hits end.
//   - What the store cannot survive: a server that goes on with its clients,
//     cut off from those who promoted another in its place, where a process that is cut
//     off together with it can still ask PostgreSQL. Redis ends that by itself if
//     min-replicas-to-write is set, and a Cluster always.
//
// # What was rejected
//
// The folder model holds the protocol in a form that a model checker tries in
// every order of its steps, with the rules that it found (RULES.md) and what
// happens without each. Among the would-be simplifications:
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
//   - Nobody clears the intents of dead writers: never stale, and never cached again.
//
// See also docs/decisions/shared-store.md (D45, D46, D47, D48, D49), docs/decisions/processes.md (D52, D55)
// and docs/decisions/server-identity.md (D74, D78, D79).
package invalidation
