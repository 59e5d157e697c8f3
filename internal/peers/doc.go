// Package peers is how processes see each other that do not share a cache: by advisory locks in the database that they
// all use. Nobody else could tell a cache in one process of what another commits past it. A Peers is of one process and
// one database. It belongs to a space, or to a process without a cache in internal/space.
//
// What its owner and the core call, and when:
//
//	New, Watch, Close     by its owner; Watch has it ask by itself, which a shared store's keeper does for it otherwise
//	MayHit, Reason        before a hit in memory
//	Alone, HasMet, Keep   by the keeper, when it renews the lease of a shared store
//	Announce              before COMMIT, after everything is written; AnnounceOn if the caller's connection has to ask
//	Trouble, Check        for a Ping and for Explain: why hits are withheld
//	Stats                 for the statistics
//
// What it promises:
//
//   - When Announce returns without an error, no process of another camp answers from what it has cached before (I23). Caches
//     that hear of commits by events are not waited for.
//   - Who could not be seen for longer than a lease has no hit of what it had then (I24): cold is called before MayHit allows one.
//   - MayHit asks nobody while a lease lasts. Otherwise it waits for one answer, no longer than patience allows.
//   - It is safe for concurrent use, and a nil Peers sees and shows nothing. Announce waits for as long as Wait, and its
//     context ends that.
//   - The locks are those of the guard's connections. They go when the process does, and PostgreSQL may end them sooner:
//     then the process begins anew.
//
// See docs/decisions/processes.md (D55, D56).
package peers
