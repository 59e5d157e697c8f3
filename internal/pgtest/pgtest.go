// Package pgtest gives tests the services they need: a PostgreSQL schema or
// database of their own, and the address of a Redis server.
//
// The services are found by environment variables, which `make test` sets:
//
//	CACHEDPG_TEST_DATABASE  DSN of a database in which tests may create schemas and,
//	                        for Database, from which they may create databases
//	CACHEDPG_TEST_REDIS     URL of a Redis server
//	CACHEDPG_TEST_REQUIRE   1 turns the skip of a test without its service into a failure
//
// Everything that a function creates is dropped when the test that called it ends.
// All functions are safe for concurrent use.
package pgtest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// timeout bounds one command of this package. It is generous because the
// machine may be busy with other tests; it only keeps a lost server from
// hanging the run.
const timeout = 30 * time.Second

// DSN returns the DSN of the test database. Without one the test is skipped,
// or fails when CACHEDPG_TEST_REQUIRE is 1.
func DSN(tb testing.TB) string {
	tb.Helper()
	return lookup(tb, "CACHEDPG_TEST_DATABASE", "PostgreSQL")
}

// Redis returns the URL of the test Redis server. Without one the test is
// skipped, or fails when CACHEDPG_TEST_REQUIRE is 1. The server is shared:
// a test must use keys with a prefix of its own and must not flush. However busy
// the machine is, the server is not taken for one that is down.
func Redis(tb testing.TB) string {
	tb.Helper()
	u, err := url.Parse(lookup(tb, "CACHEDPG_TEST_REDIS", "Redis"))
	if err != nil {
		tb.Fatal("CACHEDPG_TEST_REDIS is no URL")
	}
	return withParameter(u, "read_timeout", timeout.String())
}

func lookup(tb testing.TB, variable, service string) string {
	tb.Helper()
	if value := os.Getenv(variable); value != "" {
		return value
	}
	const hint = "%s is not set: this test needs %s; run `make test`, or `eval \"$(scripts/services start)\"` once and then go test"
	if os.Getenv("CACHEDPG_TEST_REQUIRE") == "1" {
		tb.Fatalf(hint, variable, service)
	}
	tb.Skipf(hint, variable, service)
	return ""
}

// Schema creates an empty schema and returns its name and a DSN whose
// search_path is that schema alone. The schema is dropped, with everything in
// it, when the test ends.
func Schema(tb testing.TB) (schema, dsn string) {
	tb.Helper()
	base := DSN(tb)
	schema = randomName("t_")
	Exec(tb, base, "CREATE SCHEMA "+schema)
	tb.Cleanup(func() { cleanup(tb, base, "DROP SCHEMA IF EXISTS "+schema+" CASCADE") })
	return schema, withSetting(base, "search_path", schema)
}

// Database creates an empty database and returns its DSN. It is for tests that
// must not see the events of others: DDL, WAL, locks, statistics. It is dropped
// when the test ends, whoever is still connected to it.
func Database(tb testing.TB) string {
	tb.Helper()
	base := DSN(tb)
	name := randomName("d_")
	copied, err := strategy()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	// template0 has no connections, so concurrent creations do not disturb each other.
	Exec(tb, base, "CREATE DATABASE "+name+" TEMPLATE template0"+copied)
	tb.Cleanup(func() { cleanup(tb, base, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return withDatabase(base, name)
}

// strategy is how CREATE DATABASE copies a template in half of the time: by its files, where the
// two checkpoints that this takes do not wait for a disk. Before version 15 there is no other way.
var strategy = sync.OnceValues(func() (string, error) {
	results, err := query(os.Getenv("CACHEDPG_TEST_DATABASE"), `SELECT CASE WHEN current_setting('fsync') = 'off'
		AND current_setting('server_version_num')::int >= 150000 THEN ' STRATEGY file_copy' ELSE '' END`)
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
})

// Exec runs sql, which may hold several commands, on a connection of its own
// and fails the test when it fails.
func Exec(tb testing.TB, dsn, sql string) {
	tb.Helper()
	if err := runSQL(dsn, sql); err != nil {
		tb.Fatalf("pgtest: %v\nin: %s", err, sql)
	}
}

func runSQL(dsn, sql string) error {
	_, err := query(dsn, sql)
	return err
}

func query(dsn, sql string) ([]*pgconn.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background()) // the command's own result counts
	return conn.Exec(ctx, sql).ReadAll()
}

func cleanup(tb testing.TB, dsn, sql string) {
	if err := runSQL(dsn, sql); err != nil {
		tb.Errorf("pgtest: %v\nin: %s", err, sql)
	}
}

func randomName(prefix string) string {
	return prefix + strings.ToLower(rand.Text()[:16])
}

// Connect opens a plain pgx connection, which is closed when the test ends.
// It is the writer outside the driver, and the oracle, of many tests.
func Connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		conn.Close(ctx) // a test may have broken it on purpose
	})
	return conn
}
