// Package core is the driver without the interfaces of database/sql: a DB is what the connections of one sql.DB share,
// a Conn is one of them. A face, such as the root package, turns calls of its own into those of Conn and Stmt.
//
//	read.go, fill.go       the life of a SELECT: Conn.query, Conn.miss, Conn.fill; lookup.go, whether the cache may be asked
//	write.go, begin.go     the life of a write: Conn.exec, Conn.begin; mark.go before COMMIT, finish.go after the answer
//	tx.go                  the transaction that is open
//	state.go, learn.go     what is known of a connection's session
//	ready.go, link.go      connections to PostgreSQL; places.go, how many there may be
//
// Package planning says what a text means, package space has what all connections to one database share, package backend
// is the connection of pgx that a Conn wraps. DESIGN.md has the steps of a read and of a write through all of them.
//
// A DB is safe for concurrent use, a Conn is used by one goroutine at a time. Errors of PostgreSQL and pgx reach the
// caller as they are.
package core
