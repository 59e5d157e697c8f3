// Package bench measures cachedpg beside what a program would use instead: pgx
// alone, a cache written by hand, and other Go caches for database rows.
//
//	make bench                       tables of medians, ratios and round trips
//	go test -bench . ./...           the same operations as Go benchmarks
//
// It is a module of its own, so that its rivals are no dependency of cachedpg.
//
// # What is compared
//
// Every system is the data layer of the same small application (Client), on a
// database of its own in the same PostgreSQL, over TCP on the loopback, with the
// same pool settings. The systems of SQL (stub, pgx, cachedpg) run the same
// database/sql code: only the driver's name and DSN differ. A rival is configured
// as its README shows, with room for every row, so that no miss is measured as a hit.
//
//	stub       database/sql over a driver that returns a canned row: what no driver can go below
//	pgx        no cache
//	cachedpg   the driver of this project, with its cache in the process
//	cachedpg+redis
//	           with cache_store=redis://…: a cache that processes share
//	cachedpg+eventual
//	           with cache_consistency=eventual as well
//	otter, ristretto
//	           cache-aside written by hand: read the cache, else the database;
//	           after an UPDATE delete the key. They hold Go structs, so a hit
//	           scans nothing
//	xorm       an ORM with a cache of its own (LRUCacher)
//	go-redis/cache
//	           TinyLFU in the process, Redis behind it
//	go-redis/cache-far
//	           Redis alone
//	go-zero    sqlc.CachedConn, which keeps rows in Redis
//	MGET       a bare MGET by go-redis, with its default options, of copies of
//	           what cachedpg+redis reads in a hit: as many keys of the same length,
//	           the same values. What no cache with such entries can go below
//	store/redis
//	           Lookup of package store/redis, without SQL and database/sql
//
// Hits that take a round trip to Redis are in tables of their own, with MGET as
// the baseline.
//
// The ratio of a hit by hand to a hit through a driver is the price of
// database/sql (the stub shows it) and of a result that can be scanned into
// anything; what it buys is in the repository's README. None of the rivals
// makes a read wait for, or survive, a write that races with it.
//
// Other caches for database/sql, gorm and ent are not here because their
// modules could not be had when this was written.
//
// # How it is measured
//
// One run holds all systems. Rounds are interleaved: in every round each system
// works for the same short time, in an order that rotates, so that whatever else
// the machine does hits all alike. A table shows the median over the rounds, and
// the median of the ratios to the baseline of the same round. Before anything
// is measured, check proves that a system answers from its cache (it still
// shows a row that was changed behind its back), and that its own update is
// seen at once (with cache_consistency=eventual: soon).
//
// An UPDATE is measured twice: with PostgreSQL as it is configured, and with
// synchronous_commit=off, where no disk hides what the rest takes.
//
// TPC-C is a workload that gains nothing: what it takes beside pgx is what a cache costs
// those who have no use for it.
//
// # What is counted
//
// Round trips are counted on the wire between the program and each server, in
// the order in which they begin: many messages in one direction are one trip
// if nothing was answered in between.
//
// In a stampede many goroutines in several processes miss the same key at once;
// how many SELECTs they run is counted by them and by PostgreSQL.
package bench
