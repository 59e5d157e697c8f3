// Package walfeed follows PostgreSQL's write-ahead log, so that what anybody
// changes, past the driver too, is heard of: psql, other applications, triggers,
// the actions of foreign keys.
//
// It speaks the streaming replication protocol over pgconn and decodes what the
// output plugin pgoutput sends. Package internal/feed makes tags of it and decides when
// they are invalidated.
//
// # Starting
//
// The slot is temporary: it ends with its connection, so that no write-ahead
// log is kept for a process that died. What happened between two slots was not
// heard, and nobody can tell what it was. Therefore every start is this:
//
//  1. Create the slot. From its consistent point on every commit is decoded.
//  2. Wait until every transaction is over that had an id by then. One of them
//     may have written its commit before the consistent point, and not be
//     visible yet: it waits for a synchronous replica.
//  3. Give the schema tag a new stamp: everything that was cached is cold.
//  4. Begin to stream; from now on the cache may be used.
//
// Without the second step:
//
//	writer                     feed                       reader
//	commit record written
//	                           slot: consistent after it
//	                           schema tag: a new stamp
//	                                                      miss, SELECT → old, fill
//	commit visible
//	                           (never decodes it)
//	                                                      hit of old, for ever
//
// # A transaction
//
// A commit may be decoded before it is visible. To invalidate at once, and only
// then, would be wrong:
//
//	writer                     feed                       reader
//	commit record written
//	                           decodes it: new stamps
//	                                                      miss, SELECT → old, fill
//	commit visible
//	                                                      hit of old, for ever
//
// So PostgreSQL is asked whether the transaction is over. If it is, its tags get
// new stamps: who reads from then on sees the commit. If not, they are marked
// (intend) until it is (release), as a writer through the driver does it.
//
// # What it does not promise
//
// Writers past the driver wait for nobody, so a result may be older than their
// last commit by the time that decoding takes: milliseconds, or as long as a
// connection can be dead unnoticed (Silence). Reads are linearizable with
// writes through the driver only.
//
// See docs/decisions/feed-and-outbox.md (D69, D70, D71).
package walfeed
