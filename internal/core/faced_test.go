package core

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

// The core under what tests have of the driver, and the other way round.

// opened is the DB that the driver opens for a DSN.
func opened(tb testing.TB, dsn string) *DB {
	tb.Helper()
	rest, cfg, err := config.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	pgConfig, err := pgx.ParseConfig(rest)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := Open(*pgConfig, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// connOf is the connection under that of database/sql.
func connOf(driverConn any) *Conn { return inside.Core(driverConn).(*Conn) }

// statsOf are the counters of db.
func statsOf(db *sql.DB) Stats { return dbOf(db).Stats() }

// on runs f with a connection of db.
func on(ctx context.Context, db *sql.DB, f func(*Conn) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error { return f(connOf(c)) })
}

// invalidate is cachedpg.Invalidate.
func invalidate(ctx context.Context, db *sql.DB, relations ...string) error {
	return on(ctx, db, func(c *Conn) error { return c.Invalidate(ctx, relations) })
}

// explain is what is said of a query on a connection of v.
func explain(v harness.Via, query string, args ...any) (x *Explanation) {
	v.F.Helper()
	err := on(v.AskContext(), v.DB, func(c *Conn) (err error) {
		x, err = c.Explain(v.AskContext(), query, named(args...))
		return err
	})
	if err != nil {
		v.F.Fatalf("explain: %v\nin: %s", err, query)
	}
	return x
}

// handedOut runs f with the pgx connection under conn, as cachedpg.PgxConn does.
func handedOut(ctx context.Context, conn *sql.Conn, f func(*pgx.Conn) error) error {
	return conn.Raw(func(driverConn any) error {
		c := connOf(driverConn)
		pgxConn, err := c.HandOut(ctx)
		if err != nil {
			return err
		}
		defer c.HandBack(ctx)
		return f(pgxConn)
	})
}

// named are arguments as the core takes them.
func named(args ...any) []driver.NamedValue {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return values
}
