// Package cachedpg is a database/sql driver for PostgreSQL that answers
// repeated SELECTs from a cache which its own commits keep correct.
//
//	db, err := sql.Open("cachedpg", "postgres://localhost/shop?cache_ttl=10m")
//
// The driver wraps pgx. Importing the package registers it as "cachedpg" and
// does nothing else. Whatever cannot be proved cacheable goes to PostgreSQL
// exactly as with pgx: same rows, same types, same errors.
//
// # What it promises
//
// Reads and committed writes through the driver are linearizable: once a
// commit returned, or once anyone has read its value, nobody reads an older
// one. With the memory store the promise covers every sql.DB of one process
// that is connected to the same database. Writes that go past the driver
// (psql, another program, PgConn's low-level calls) are not seen; Invalidate
// is for them.
//
// # How it works
//
// A SELECT is parsed once per normalised text. Its result is stored under a
// key made of everything that it depends on beside the tables: the text, the
// arguments, the role, the search_path and the settings of the session. What it
// depends on of the tables are tags: a row by primary or unique key, or a
// table. Before a transaction commits, every tag that it wrote is marked, and
// it stays marked until the outcome is known; a marked tag is neither answered
// from the cache nor stored. Package invalidation states the protocol and its
// invariants.
//
// # How to read the code
//
// This package is the face for database/sql: each method passes its call to
// internal/core. One SELECT: conn.go QueryContext, internal/core/read.go, keying
// Plan.Key and Plan.ReadTags, store Memory.Lookup, internal/core/rows.go. One
// UPDATE: conn.go ExecContext, internal/core/write.go, internal/core/begin.go,
// keying Plan.WriteTags, invalidation Write.Intend, internal/core/finish.go.
// DESIGN.md has the layers and all steps, and docs/decisions what is not obvious.
package cachedpg
