package pgtest

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestDSNRewriting(t *testing.T) {
	tests := []struct {
		name, dsn  string
		database   string // after withDatabase(dsn, "fresh")
		searchPath string // after withSetting(dsn, "search_path", "s1")
	}{
		{name: "url", dsn: "postgres://u@127.0.0.1:1/base?sslmode=disable"},
		{name: "url without database", dsn: "postgresql://u@127.0.0.1:1"},
		{name: "url with database in query", dsn: "postgres://u@/?host=127.0.0.1&port=1&dbname=base"},
		{name: "url with search_path", dsn: "postgres://u@127.0.0.1:1/base?search_path=old"},
		{name: "keywords", dsn: "host=127.0.0.1 port=1 user=u dbname=base"},
		{name: "keywords with database", dsn: "host=127.0.0.1 port=1 user=u database=base"},
		{name: "keywords with search_path", dsn: "host=127.0.0.1 port=1 user=u search_path='old, older'"},
		{name: "quoted keywords", dsn: `host=127.0.0.1 port=1 user='a b\'c' password='database=x' dbname=base`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, err := pgconn.ParseConfig(tt.dsn)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := pgconn.ParseConfig(withDatabase(tt.dsn, "fresh"))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Database != "fresh" {
				t.Errorf("withDatabase: database %q, want fresh", cfg.Database)
			}
			if cfg.Host != before.Host || cfg.Port != before.Port || cfg.User != before.User || cfg.Password != before.Password {
				t.Errorf("withDatabase changed host, port, user or password: %q", withDatabase(tt.dsn, "fresh"))
			}
			cfg, err = pgconn.ParseConfig(withSetting(tt.dsn, "search_path", "s1"))
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.RuntimeParams["search_path"]; got != "s1" {
				t.Errorf("withSetting: search_path %q, want s1", got)
			}
			if cfg.Database != before.Database || cfg.User != before.User {
				t.Errorf("withSetting changed database or user: %q", withSetting(tt.dsn, "search_path", "s1"))
			}
		})
	}
}

func TestSchemaIsFreshAndDropped(t *testing.T) {
	base := DSN(t)
	var schema string
	t.Run("inside", func(t *testing.T) {
		var dsn string
		schema, dsn = Schema(t)
		Exec(t, dsn, "CREATE TABLE item (id int); INSERT INTO item VALUES (1)")
		if got := queryString(t, dsn, "SELECT current_schema()"); got != schema {
			t.Errorf("current_schema() = %q, want %q", got, schema)
		}
		if got := queryString(t, dsn, "SELECT 'item'::regclass::text"); got != "item" {
			t.Errorf("item resolves to %q", got)
		}
	})
	if got := queryString(t, base, "SELECT count(*)::text FROM pg_namespace WHERE nspname = $1", schema); got != "0" {
		t.Errorf("schema %s is left behind", schema)
	}
}

func TestDatabaseIsDroppedWhileConnected(t *testing.T) {
	base := DSN(t)
	var name string
	t.Run("inside", func(t *testing.T) {
		dsn := Database(t)
		name = queryString(t, dsn, "SELECT current_database()")
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn // stays open: DROP must not wait for it
	})
	if got := queryString(t, base, "SELECT count(*)::text FROM pg_database WHERE datname = $1", name); got != "0" {
		t.Errorf("database %s is left behind", name)
	}
}

func TestMissingServiceSkipsOrFails(t *testing.T) {
	t.Setenv("CACHEDPG_TEST_DATABASE", "")
	t.Setenv("CACHEDPG_TEST_REQUIRE", "")
	if os.Getenv("CACHEDPG_TEST_DATABASE") != "" {
		t.Fatal("the variable is still set")
	}
	tb := &recorder{TB: t}
	tb.run(func() { DSN(tb) })
	if !tb.skipped || tb.failed {
		t.Errorf("without the variable: skipped %v, failed %v, want a skip", tb.skipped, tb.failed)
	}
	t.Setenv("CACHEDPG_TEST_REQUIRE", "1")
	tb = &recorder{TB: t}
	tb.run(func() { DSN(tb) })
	if tb.skipped || !tb.failed {
		t.Errorf("with CACHEDPG_TEST_REQUIRE=1: skipped %v, failed %v, want a failure", tb.skipped, tb.failed)
	}
}

// recorder takes the place of a test that is skipped or fails.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(string, ...any) { r.skipped = true; panic(r) }

func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }

func (r *recorder) run(f func()) {
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
	}()
	f()
}

func queryString(t *testing.T, dsn, sql string, args ...any) string {
	t.Helper()
	var s string
	if err := Connect(t, dsn).QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
