// Package space holds what all connections of a process to one database share: the catalog as far as it is known to be
// current, the store, and what watches over both. A Space is of one database in one process. Every sql.DB on that database
// joins it, so that a write through one is seen by the reads of all. What a single connection knows is in internal/core.
//
// What the core calls, and when:
//
//	Join, Leave               once for an sql.DB and for each connection, when it has learned which database it reaches
//	Enter                     by whoever is in it already, for what may outlast that, such as a commit without an outcome
//	IsWarm, WatchLease.Holds  before a lookup: a new cache has begun, and PostgreSQL was asked lately for changes of the schema
//	View, Loads.Await         before a text is planned: the catalog, or waiting for it
//	Lookup                    for a read
//	Hold, GiveUp, Abandon     for a miss with a fill lock of a shared store
//	DropView, Loads.Follow    after a DDL, before its tags are released
//	Flushed.After             instead of a release, after a commit that may not be on disk
//	InvalidateAll             when nobody knows what has changed
//	Supersede                 when the database was found to be another one
//
// What it promises:
//
//   - A Space is safe for concurrent use. Its fields do not change after Join, but for those that are atomic or guard
//     themselves.
//   - What it asks PostgreSQL for itself goes over a Guard, never over a connection that a caller has, unless that is
//     handed to it.
//   - The last Leave ends its goroutines and connections, and a store in memory with all entries. Entries and marks in a
//     shared store stay; another process's Keeper resolves the marks.
//   - A superseded Space answers no read any more. It lives on until the last of its users has left.
//
// keeper*.go and doors.go are for a shared store alone, warm.go and watch_lease.go for one in memory, feed.go, which leads to
// internal/feed, for both. The core marks the tags of a write before PostgreSQL commits it, and releases them by
// Writes; see package invalidation.
//
// See docs/decisions: schema (D39-D41, D43, D44), shared-store (D45, D46, D48, D50, D51), processes (D52-D54),
// server-identity (D74-D76, D79, D80).
package space
