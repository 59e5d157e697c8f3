// Command chaos runs cachedpg where things break, and checks that nobody ever
// read what was not true.
//
// Several processes read and write one small table through the driver, on a
// PostgreSQL and a pair of Redis servers of their own, while a nemesis kills and
// stops processes between the steps of a read and a commit, cuts them off, and
// restarts, empties, hangs, copies and replaces the servers. Half of the processes
// reach PostgreSQL through a pgbouncer. Each process writes down
// when it asked for what and what it got; some read past the cache, as referees.
//
// Afterwards every row's history is checked for linearizability: there must be one
// order of all reads and writes, in keeping with the clock, in which each read
// sees the last write. When all faults are healed, every process asks
// every query until it is answered from the cache, and compares with PostgreSQL:
// nothing may be stale for good, nor uncacheable for good.
//
//	go run . -duration 60s -seed 42
//
// With -variant write-through, writers refill what they invalidate, and are killed
// while they do. The exit status is 0 if nothing was violated. Two variants are broken on
// purpose, and succeed only if a violation is found:
//
//	-variant post-commit   commit, then invalidate: cache_consistency=eventual
//	-variant private       each process caches in its own memory
//
// With -only, a regular expression, the nemesis does nothing but the faults that
// match; they are listed at the end of a run. -keep keeps the logs, as a
// violation does. Build with -race to have races of the driver found as well.
//
// A seed decides what each process does and which faults come in which order;
// what they meet is up to the machine. Linux only: processes share
// CLOCK_MONOTONIC.
package main
