package cachedpg

import (
	"context"
	"database/sql"

	"github.com/cachedpg/cachedpg/internal/setup"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
)

// SetupSQL is what Setup executes, as a text for an administrator to read and to
// run instead. Running it twice changes nothing. roles are those that the
// application and its relays connect as, unless they own the tables.
func SetupSQL(roles ...string) string { return setup.TablesSQL(roles...) }

// Setup makes the tables that the outbox and strategy "write-behind" need, where they are not there yet, and
// lets roles use them. db may be opened with any driver for PostgreSQL. All of it
// happens or nothing; several may do it at once, and again.
func Setup(ctx context.Context, db *sql.DB, roles ...string) error {
	return setup.Tables(ctx, db, roles...)
}

// RemoveSetupSQL is what RemoveSetup executes, but for ending the feeds that follow
// the log now.
func RemoveSetupSQL() string { return setup.RemoveSQL() }

// RemoveSetup takes away what Setup and SetupWAL have made, the schema included if
// nothing else is in it. Applications must not need it any more. It is an error if
// the outbox holds what was not delivered. It can be run again.
func RemoveSetup(ctx context.Context, db *sql.DB) error { return setup.Remove(ctx, db) }

// WALSetupSQL makes in a database what Config.External = "wal" needs, and mends
// it: the publication cachedpg, and event triggers that tell of changes of the
// schema. It can be run again. It needs a superuser and PostgreSQL 14 or newer. A
// table without a replica identity gets one, or PostgreSQL would refuse to update
// it; docs/wal-feed.md says which.
const WALSetupSQL = walfeed.SetupSQL

// WALRemoveSQL takes away what WALSetupSQL has made, and gives tables the replica
// identity back that they had. It can be run again.
const WALRemoveSQL = walfeed.RemoveSQL

// SetupWAL runs WALSetupSQL in the database of db, whose driver may be this one
// or pgx's. It looks again at what transactions have made that were open meanwhile.
func SetupWAL(ctx context.Context, db *sql.DB) error { return setup.WAL(ctx, db) }

// RemoveWAL takes away what SetupWAL has made, by WALRemoveSQL, and the slots of
// those who follow the log now. It can be run again.
func RemoveWAL(ctx context.Context, db *sql.DB) error { return setup.RemoveWAL(ctx, db) }
