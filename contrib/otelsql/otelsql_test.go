package otelsql_test

import (
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

const query = "SELECT name FROM people WHERE id = $1"

func database(t *testing.T) string {
	t.Helper()
	dsn := pgtest.Database(t)
	pgtest.Exec(t, dsn, "CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people VALUES (1, 'ann')")
	return dsn
}

// outside are the ways to put otelsql around the driver.
var outside = map[string]func(t *testing.T, dsn string) *sql.DB{
	"Open": func(t *testing.T, dsn string) *sql.DB {
		db, err := otelsql.Open("cachedpg", dsn)
		if err != nil {
			t.Fatal(err)
		}
		return db
	},
	"Register": func(t *testing.T, dsn string) *sql.DB {
		name, err := otelsql.Register("cachedpg")
		if err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open(name, dsn)
		if err != nil {
			t.Fatal(err)
		}
		return db
	},
	"OpenDB": func(t *testing.T, dsn string) *sql.DB {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		c, err := cachedpg.NewConnector(*config, cachedpg.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return otelsql.OpenDB(c)
	},
	"WrapDriver": func(t *testing.T, dsn string) *sql.DB {
		d := otelsql.WrapDriver(&cachedpg.Driver{})
		c, err := d.(driver.DriverContext).OpenConnector(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return sql.OpenDB(c)
	},
}

func TestOtelsqlOutside(t *testing.T) {
	for way, open := range outside {
		t.Run(way, func(t *testing.T) {
			dsn := database(t)
			db, ctx := open(t, dsn), t.Context()
			for began := time.Now(); ; time.Sleep(time.Millisecond) { // the schema is loaded meanwhile
				var name string
				if err := db.QueryRowContext(ctx, query, 1).Scan(&name); err != nil || name != "ann" {
					t.Fatalf("%q, %v", name, err)
				}
				if cachedpg.StatsOf(db).Hits > 0 {
					break
				} else if time.Since(began) > time.Minute {
					t.Fatalf("no hit: %+v", cachedpg.StatsOf(db))
				}
			}
			if x, err := cachedpg.Explain(ctx, db, query, 1); err != nil || !x.Cacheable {
				t.Errorf("Explain: %+v, %v", x, err)
			}
			pgtest.Exec(t, dsn, "UPDATE people SET name = 'ida'")
			if err := cachedpg.Invalidate(ctx, db, "people"); err != nil {
				t.Errorf("Invalidate: %v", err)
			}
			var name string
			if err := db.QueryRowContext(ctx, query, 1).Scan(&name); err != nil || name != "ida" {
				t.Errorf("after Invalidate: %q, %v", name, err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			left(t, dsn)
		})
	}
}

// left fails the test if there is a session of the database that does not end.
func left(t *testing.T, dsn string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	admin := pgtest.Connect(t, pgtest.DSN(t))
	for sessions := 1; sessions > 0; { // PostgreSQL looks at a socket that was closed when it gets to
		err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type <> 'autovacuum worker'", config.Database).Scan(&sessions)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Inside there is no connection of pgx any more, which the driver is told.
func TestOtelsqlInsideIsRefusedInWords(t *testing.T) {
	traced, err := otelsql.WrapDriver(stdlib.GetDefaultDriver()).(driver.DriverContext).OpenConnector(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := cachedpg.WrapConnector(traced, cachedpg.Config{})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "pgx's stdlib") || !strings.Contains(err.Error(), "ConnConfig.Tracer") {
		t.Errorf("got %v", err)
	}
}
