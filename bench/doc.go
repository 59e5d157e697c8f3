// Package bench measures cachedpg beside what a program would use instead: pgx
// alone, a cache written by hand, and other Go caches for database rows.
//
//	make bench                       a table of medians and ratios
//	go test -bench . ./...           the same operations as Go benchmarks
//
// It is a module of its own, so that its rivals are no dependency of cachedpg.
//
// # What is compared
//
// Every system is the data layer of the same small application (Client), on a
// schema of its own in the same PostgreSQL, over TCP on the loopback, with the
// same pool settings. The systems of SQL (stub, pgx, cachedpg) run the same
// database/sql code: only the driver's name differs. A rival is configured as
// its README shows, with room for every row, so that no miss is measured as a hit.
//
//	stub       database/sql over a driver that returns a canned row: what no driver can go below
//	pgx        no cache
//	cachedpg   the driver of this project
//	otter, ristretto
//	           cache-aside written by hand: read the cache, else the database;
//	           after an UPDATE delete the key. They hold Go structs, so a hit
//	           scans nothing
//	xorm       an ORM with a cache of its own (LRUCacher)
//	go-redis/cache
//	           TinyLFU in the process, Redis behind it
//	go-zero    sqlc.CachedConn, which keeps rows in Redis
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
// seen at once.
package bench
