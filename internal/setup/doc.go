// Package setup makes in a database what the driver's strategies and sources of events need there, and takes it
// away again: the tables of internal/outbox and internal/behind, and what package walfeed reads the log with.
//
// It knows no connector and no cache. It is for the command, for programs and for tests, which have an sql.DB of any
// driver for PostgreSQL. Nothing of the driver calls it: what is missing is told by whoever needs it.
//
//	Tables, TablesSQL   the schema and the tables, and who may use them
//	WAL                 publication and event triggers
//	Remove, RemoveSQL   all that
//	RemoveWAL           what WAL has made alone
//
// What it promises:
//
//   - Everything may be run again, and by several at once: guard.LockSetup lets one make tables at a time. Who may use what
//     is there need not be allowed to make it.
//   - Of Tables all happens or nothing. Who dies in between has made nothing. Who dies in WAL or in Remove runs it again.
//   - WAL returns when it has seen what transactions have made that were open when it began, or after ten seconds.
//   - RemoveWAL returns when no slot of a feed is left. Remove takes nothing away while the outbox holds what was not delivered.
//
// A table is a line of pieces, which has its SQL from the package that uses it.
//
// See docs/decisions/feed-and-outbox.md (D70).
package setup
