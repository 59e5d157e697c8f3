package session

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A request sets something, reads, and sets it back. Once everything is known that such
// requests do, the driver sends what the program sends, and of the reads nothing.
var settingRequests = []struct {
	name     string
	requests [][]string // one after another, again and again
}{
	{"of a tenant by search_path", [][]string{
		{"SET search_path = a", "read", "read", "RESET search_path", "read"},
		{"SET search_path TO b, public", "read", "SET search_path TO DEFAULT"},
		{"SET search_path = 'a'", "read", "RESET ALL", "read"},
	}},
	{"within a transaction", [][]string{
		{"BEGIN", "SET LOCAL search_path = a", "read", "COMMIT", "read"},
		{"BEGIN", "SET LOCAL search_path = b", "read", "ROLLBACK", "read"},
		{"BEGIN", "SET LOCAL search_path = b", "read", "SET search_path = a", "read", "COMMIT", "read", "RESET search_path"},
		{"BEGIN", "SET search_path = a", "SET LOCAL search_path = b", "read", "COMMIT", "read", "RESET search_path"},
		{"BEGIN", "SET search_path = a", "read", "ROLLBACK", "read"},
		{"BEGIN", "SAVEPOINT s", "SET LOCAL search_path = a", "RELEASE s", "read", "COMMIT", "read"},
	}},
	{"of a function", [][]string{
		{"BEGIN", "SELECT set_config('search_path', 'a', true)", "read", "COMMIT", "read"},
		{"SELECT set_config('search_path', 'b', false)", "read", "SELECT pg_catalog.set_config('search_path', 'public', false)", "read", "RESET search_path"},
	}},
	{"that are in no key", [][]string{
		{"SET app.tenant = 'x'", "read", "SELECT set_config('app.tenant', 'y', false)", "read", "RESET app.tenant", "read"},
		{"BEGIN", "SET LOCAL app.tenant = 'x'", "SET LOCAL statement_timeout = '5s'", "read", "SELECT set_config('app.tenant', 'z', true)", "read", "COMMIT", "read"},
		{"SET application_name = 'x'", "SET lock_timeout = 1000", "SET work_mem = '8MB'", "read", "RESET work_mem", "DISCARD PLANS", "DISCARD SEQUENCES", "read"},
		{"BEGIN", "SET LOCAL synchronous_commit = off", "read", "COMMIT", "read"},
	}},
	{"that are reported", [][]string{
		{"SET TIME ZONE 'Asia/Tokyo'", "time", "RESET TIME ZONE", "time"},
		{"SET timezone = 'europe/oslo'", "time", "SET TimeZone TO DEFAULT", "time"},
		{"SET datestyle = 'German'", "time", "SET DateStyle = DMY", "time", "SET datestyle TO 'ISO, MDY'", "time"},
		{"BEGIN", "SET LOCAL TIME ZONE '+3'", "time", "COMMIT", "time"},
	}},
	{"that are not", [][]string{
		{"SET extra_float_digits = -10", "time", "RESET extra_float_digits", "time"},
		{"SET bytea_output TO escape", "time", "RESET ALL", "time"},
	}},
	{"of a role", [][]string{
		{"SET ROLE pg_monitor", "SELECT 1", "RESET ROLE", "read"},
		{"BEGIN", "SET LOCAL ROLE pg_monitor", "SELECT 1", "COMMIT", "read"},
		{"SET ROLE pg_read_all_data", "SET search_path = a", "SELECT 1", "RESET ROLE", "read", "RESET search_path", "read"},
	}},
	{"that do nothing", [][]string{
		{"SET LOCAL search_path = a", "read", "SET search_path = nowhere", "SET search_path TO DEFAULT", "read"},
	}},
	{"of the whole session", [][]string{
		{"SET search_path = a", "SET TimeZone = 'Asia/Tokyo'", "read", "DISCARD ALL", "read"},
	}},
}

var settingReads = map[string]string{
	"read": "SELECT name FROM tenant_users WHERE id = $1",
	"time": "SELECT at::text, (f / 3)::text, b::text FROM public.times WHERE id = $1",
}

const settingSchema = `
	CREATE SCHEMA a; CREATE SCHEMA b;
	CREATE TABLE public.tenant_users (id int PRIMARY KEY, name text); CREATE TABLE a.tenant_users (id int PRIMARY KEY, name text);
	CREATE TABLE b.tenant_users (id int PRIMARY KEY, name text);
	INSERT INTO public.tenant_users VALUES (1, 'of public'); INSERT INTO a.tenant_users VALUES (1, 'of a'); INSERT INTO b.tenant_users VALUES (1, 'of b');
	CREATE TABLE public.times (id int PRIMARY KEY, at timestamptz, f float8, b bytea); INSERT INTO public.times VALUES (1, '2024-05-01 12:00Z', 1, '\x00ff')`

func TestASettingCostsWhatItCostsWithPgx(t *testing.T) {
	t.Parallel()
	for _, test := range settingRequests {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database(t)
			pgtest.Exec(t, database, settingSchema)
			wire := pgtest.Listen(t, database)
			ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
			defer cancel()
			f := &harness.Fixture{T: t, Ctx: ctx, DSN: wire.DSN}
			if test.name == "of the whole session" { // pgx keeps the names of what DISCARD ALL has taken from PostgreSQL
				f.DSN, database = harness.WithKey(f.DSN, "default_query_exec_mode", "exec"), harness.WithKey(database, "default_query_exec_mode", "exec")
			}
			f.DB, f.Plain = f.Open("cachedpg", f.DSN), f.Open("pgx", database)
			f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
			f.Known("SELECT name FROM public.tenant_users WHERE id = $1", 1)
			ours, theirs := f.Conn(f.DB), f.Conn(f.Plain)
			for round := range 4 {
				before, want := len(wire.Texts()), []string(nil)
				for _, request := range test.requests {
					for _, text := range request {
						query, reads := settingReads[text]
						if !reads {
							if _, err := theirs.ExecContext(ctx, text); err != nil {
								t.Fatal(err)
							}
							if _, err := ours.ExecContext(ctx, text); err != nil {
								t.Fatalf("round %d: %s: %v", round, text, err)
							}
							want = append(want, text)
							continue
						}
						if got, want := settingRead(t, ctx, ours, query), settingRead(t, ctx, theirs, query); got != want {
							t.Fatalf("round %d: got %q, want %q\nafter %v", round, got, want, request)
						}
					}
				}
				if round < 2 {
					continue
				}
				var got []string
				for _, sent := range wire.Texts()[before:] {
					if !inside.Asks(sent.SQL) && !strings.Contains(sent.SQL, "pg_catalog.") || slices.Contains(want, sent.SQL) {
						got = append(got, sent.SQL)
					} else if strings.Contains(sent.SQL, backend.QuestionOfSession) { // in a transaction other commands come before it
						got = append(got, "a question for the session")
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("round %d: PostgreSQL got\n%s\nwant\n%s", round, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func settingRead(t *testing.T, ctx context.Context, conn *sql.Conn, query string) string {
	t.Helper()
	var args []any
	if strings.Contains(query, "$1") {
		args = append(args, 1)
	}
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		columns, _ := rows.Columns()
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(sql.NullString)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			lines = append(lines, v.(*sql.NullString).String)
		}
	}
	return fmt.Sprint(lines, rows.Err())
}
