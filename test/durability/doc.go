// Package durability tests that nothing is cached that a crash of PostgreSQL may undo: commits that do not wait for the
// disk, however that came about, and crashes of the server.
package durability
