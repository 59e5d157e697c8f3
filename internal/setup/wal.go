package setup

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
)

// patience bounds waiting for transactions that were open during a setup.
const patience = 10 * time.Second

// WAL runs walfeed.SetupSQL in the database of db, whose driver may be this one
// or pgx's. It looks again at what transactions have made that were open meanwhile.
func WAL(ctx context.Context, db *sql.DB) error {
	if err := makeWAL(ctx, db); err != nil {
		return fmt.Errorf("cachedpg: setting up for cache_external=wal: %w", err)
	}
	return nil
}

func makeWAL(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, walfeed.SetupSQL); err != nil {
		return err
	}
	var xid string
	if err := db.QueryRowContext(ctx, "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").Scan(&xid); err != nil {
		return err
	}
	over := "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) OPERATOR(pg_catalog.>=) '" + xid + "'::pg_catalog.xid8"
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		var all bool
		if err := db.QueryRowContext(ctx, over).Scan(&all); err != nil {
			return err
		}
		if all || time.Now().After(deadline) {
			break
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
	_, err := db.ExecContext(ctx, walfeed.LookSQL)
	return err
}

// RemoveWAL takes away what WAL has made, by walfeed.RemoveSQL, and the slots of
// those who follow the log now. It can be run again.
func RemoveWAL(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, walfeed.RemoveSQL); err != nil {
		return fmt.Errorf("cachedpg: removing what cache_external=wal needs: %w", err)
	}
	// Who follows begins anew, and finds nothing: a slot may be made meanwhile.
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		var slots int
		err := db.QueryRowContext(ctx, walfeed.RemoveSlotsSQL).Scan(&slots)
		switch {
		case pgerr.Is(err, pgerr.UndefinedObject, pgerr.ObjectInUse):
			// It ended, or began to be used, between the question and its answer.
		case err != nil:
			return fmt.Errorf("cachedpg: removing the replication slots: %w", err)
		case slots == 0:
			return nil
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
}
