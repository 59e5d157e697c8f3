package setup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
)

// piece is a table that Tables makes.
type piece struct {
	table  string
	sql    string // what makes the table, then what an older one lacks
	last   string // a column of the newest version
	grants string // what the application's roles and those of relays need
}

var pieces = []piece{
	{outbox.Table, outbox.TableSQL, "", outbox.Privileges},
	{"cachedpg.queue", behind.TableSQL, "known", "SELECT, INSERT, UPDATE"},
}

const createSchema = "CREATE SCHEMA IF NOT EXISTS " + config.OwnSchema

// TablesSQL is what Tables executes, as a text for an administrator to read and to
// run instead. Running it twice changes nothing. roles are those that the
// application and its relays connect as, unless they own the tables.
func TablesSQL(roles ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s;\n", createSchema)
	for _, p := range pieces {
		fmt.Fprintf(&text, "\n%s;\n", p.sql)
	}
	if grants := grantsTo(roles); len(grants) > 0 {
		fmt.Fprintf(&text, "\n%s;\n", strings.Join(grants, ";\n"))
	}
	return text.String()
}

func grantsTo(roles []string) (grants []string) {
	for _, role := range roles {
		role = pgx.Identifier{role}.Sanitize()
		grants = append(grants, "GRANT USAGE ON SCHEMA "+config.OwnSchema+" TO "+role)
		for _, p := range pieces {
			grants = append(grants, "GRANT "+p.grants+" ON "+p.table+" TO "+role)
		}
	}
	return grants
}

// Tables makes the tables that the outbox and strategy "write-behind" need, where they are not there yet, and
// lets roles use them. db may be opened with any driver for PostgreSQL. All of it
// happens or nothing; several may do it at once, and again.
func Tables(ctx context.Context, db *sql.DB, roles ...string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("cachedpg: setup: %w", err)
	}
	defer tx.Rollback()
	err = makeTables(ctx, tx, roles)
	if err == nil {
		err = tx.Commit()
	}
	switch {
	case err == nil:
		return nil
	case pgerr.Is(err, pgerr.InsufficientPrivilege):
		return fmt.Errorf("cachedpg: setup: %w; run it as a role that may do so, such as the owner of the database,"+
			" with --role for the role of the application, or run as such a role what cachedpg setup --print prints", err)
	case pgerr.Is(err, pgerr.UndefinedObject):
		return fmt.Errorf("cachedpg: setup: %w; create the role first", err)
	}
	return fmt.Errorf("cachedpg: setup: %w", err)
}

func makeTables(ctx context.Context, tx *sql.Tx, roles []string) error {
	// IF NOT EXISTS is no help against another who does the same right now.
	if _, err := tx.ExecContext(ctx, guard.LockSQL("pg_advisory_xact_lock", guard.LockSetup)); err != nil {
		return err
	}
	var commands []string
	for _, p := range pieces {
		// Who may use what is there need not be allowed to make it.
		var there bool
		question := "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" +
			" WHERE nspname OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) relname OPERATOR(pg_catalog.=) '" + p.table + "'" +
			" AND ('" + p.last + "' OPERATOR(pg_catalog.=) '' OR EXISTS (SELECT FROM pg_catalog.pg_attribute" +
			" WHERE attrelid OPERATOR(pg_catalog.=) c.oid AND attname OPERATOR(pg_catalog.=) '" + p.last + "')))"
		if err := tx.QueryRowContext(ctx, question).Scan(&there); err != nil {
			return err
		}
		if there {
			continue
		}
		if len(commands) == 0 {
			commands = append(commands, createSchema)
		}
		commands = append(commands, strings.Split(p.sql, ";\n")...)
	}
	for _, command := range append(commands, grantsTo(roles)...) {
		if _, err := tx.ExecContext(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

// RemoveSQL is what Remove executes, but for ending the feeds that follow
// the log now.
func RemoveSQL() string {
	var text strings.Builder
	for _, p := range pieces {
		fmt.Fprintf(&text, "DROP TABLE IF EXISTS %s;\n", p.table)
	}
	return text.String() + walfeed.RemoveSQL
}

// Remove takes away what Tables and WAL have made, the schema included if
// nothing else is in it. Applications must not need it any more. It is an error if
// the outbox holds what was not delivered. It can be run again.
func Remove(ctx context.Context, db *sql.DB) error {
	if err := removeTables(ctx, db); err != nil {
		return fmt.Errorf("cachedpg: setup: %w", err)
	}
	return RemoveWAL(ctx, db)
}

func removeTables(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var there, holds bool
	question := "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" +
		" WHERE nspname OPERATOR(pg_catalog.=) '" + config.OwnSchema + "' AND relname OPERATOR(pg_catalog.=) 'outbox')"
	if err := tx.QueryRowContext(ctx, question).Scan(&there); err != nil {
		return err
	}
	if there {
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM cachedpg.outbox)").Scan(&holds); err != nil {
			return err
		}
	}
	if holds {
		return errors.New("cachedpg.outbox holds what was not delivered; let cachedpg relay work it off, or delete it")
	}
	for _, p := range pieces {
		if _, err := tx.ExecContext(ctx, "DROP TABLE IF EXISTS "+p.table); err != nil {
			return err
		}
	}
	return tx.Commit()
}
