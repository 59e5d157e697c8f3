package main

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A job writes past the driver and then says so.
func TestInvalidateReachesAnotherProcess(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, `CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'ann');
		CREATE SCHEMA "Odd"; CREATE TABLE "Odd".pets (id int PRIMARY KEY, name text); INSERT INTO "Odd".pets VALUES (1, 'rex')`)
	dsn := with(t, database, "cache_store", pgtest.Redis(t))
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const user, pet = "SELECT name FROM users WHERE id = 1", `SELECT name FROM "Odd".pets WHERE id = 1`
	read := func(query string) (name string) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), query).Scan(&name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	hit := func(query string) string {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			before := cachedpg.StatsOf(db).Hits
			if name := read(query); cachedpg.StatsOf(db).Hits > before {
				return name
			}
		}
		t.Fatalf("%s: never a hit", query)
		return ""
	}
	for _, tt := range []struct {
		args []string
		out  string
	}{
		{[]string{"users"}, "invalidated users\n"},
		{[]string{"public.users", `"Odd".pets`}, "invalidated public.users, \"Odd\".pets\n"},
		{nil, "invalidated everything\n"},
	} {
		hit(user)
		hit(pet)
		pgtest.Exec(t, database, `UPDATE users SET name = name || '!'; UPDATE "Odd".pets SET name = name || '!'`)
		petWas := read(pet)
		code, out, stderr := call(t, append([]string{"invalidate", "--dsn", dsn}, tt.args...)...)
		if code != exitOK || out != tt.out || stderr != "" {
			t.Fatalf("%q: exit code %d\n%s%s", tt.args, code, out, stderr)
		}
		if got, want := read(user), value(t, database, user); got != want {
			t.Errorf("%q: got user %q, want %q", tt.args, got, want)
		}
		if got := hitOrRead(len(tt.args) == 1, hit, read)(pet); len(tt.args) == 1 && got != petWas || len(tt.args) != 1 && got != value(t, database, pet) {
			t.Errorf("%q: got pet %q, it was %q", tt.args, got, petWas)
		}
	}
	hit(user)
	pgtest.Exec(t, database, "UPDATE users SET name = 'unseen'")
	code, out, stderr := call(t, "invalidate", "--dsn", dsn, "users", "nowhere")
	if code != exitFailed || out != "" || !strings.Contains(stderr, "nowhere: relation does not exist") {
		t.Errorf("an unknown table: exit code %d\n%s%s", code, out, stderr)
	}
	if got := hit(user); got == "unseen" {
		t.Error("something was invalidated beside an unknown table")
	}
}

func hitOrRead(hits bool, hit, read func(string) string) func(string) string {
	if hits {
		return hit
	}
	return read
}

func value(t *testing.T, database, query string) (v string) {
	t.Helper()
	if err := pgtest.Connect(t, database).QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestInvalidateThatCannotReachACache(t *testing.T) {
	t.Setenv("CACHEDPG_DSN", "")
	database := pgtest.Database(t)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "no --dsn"},
		{[]string{"--dsn", "host=x", "users"}, exitUsage, "cache_store=memory: the memory of a process cannot be reached from outside"},
		{[]string{"--dsn", "host=x cache_store=off"}, exitUsage, "cache_store=off"},
		{[]string{"users", "--dsn", "host=x"}, exitUsage, "flags come before"},
		{[]string{"--dsn", "host=x password=hush port=y cache_store=redis://localhost"}, exitUsage, "invalid port"},
		{[]string{"--dsn", with(t, database, "cache_store", "redis://127.0.0.1:1")}, exitFailed, "127.0.0.1:1"},
		{[]string{"--dsn", with(t, database, "cache_store", pgtest.Redis(t)), "users; DROP TABLE users"}, exitFailed, "is not the name of a relation"},
	} {
		code, out, stderr := call(t, append([]string{"invalidate"}, tt.args...)...)
		if code != tt.code || out != "" || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hush") {
			t.Errorf("%q: exit code %d, want %d with %q\n%s%s", tt.args, code, tt.code, tt.want, out, stderr)
		}
	}
	if code, out, _ := call(t, "invalidate", "-h"); code != exitOK || !strings.Contains(out, "TABLE") {
		t.Errorf("-h: exit code %d\n%s", code, out)
	}
}
