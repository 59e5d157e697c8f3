package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestSetupMakesTheTablesAndTheRelayWorksThemOff(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	dsn := with(t, database, "cache_store", pgtest.Redis(t))
	always := with(t, dsn, "cache_outbox", "always")
	code, _, stderr := call(t, "relay", "--dsn", always)
	if code != exitFailed || !strings.Contains(stderr, "cachedpg setup") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("without a table: exit code %d\n%s", code, stderr)
	}
	for range 2 {
		if code, out, stderr := call(t, "setup", "--wal", "--dsn", always); code != exitOK || out+stderr != "" {
			t.Fatalf("exit code %d\n%s%s", code, out, stderr)
		}
	}
	pgtest.Exec(t, database, "INSERT INTO cachedpg.queue (stream, position) VALUES ('x', '0-0')")
	pgtest.Exec(t, database, "INSERT INTO cachedpg.outbox (tags, local) VALUES (decode(repeat('00', 17), 'hex'), true)")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var errs bytes.Buffer
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"relay", "--dsn", dsn, "--interval", "5ms", "--batch", "1"}, &bytes.Buffer{}, &errs)
	}()
	conn := pgtest.Connect(t, database)
	for n := 1; n > 0; {
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM cachedpg.outbox").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	cancel() // as an interrupt does
	if code := <-done; code != exitOK || errs.Len() > 0 {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
}

func TestSetupRemovesWhatItHasMade(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, "CREATE TABLE loose (id int); CREATE TABLE kept (id int PRIMARY KEY); ALTER TABLE kept REPLICA IDENTITY FULL")
	conn := pgtest.Connect(t, database)
	run := func(want int, args ...string) string {
		t.Helper()
		code, out, stderr := call(t, append([]string{"setup", "--dsn", database}, args...)...)
		if code != want {
			t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, out, stderr)
		}
		return stderr
	}
	left := func() (s string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT concat_ws(' ', (SELECT string_agg(relname || '=' || relreplident::text, ',' ORDER BY relname) FROM pg_class
			WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'), (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_event_trigger),
			(SELECT count(*) FROM pg_namespace WHERE nspname = 'cachedpg'), (SELECT count(*) FROM pg_class c WHERE relnamespace = to_regnamespace('cachedpg') AND relkind = 'r'))`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := left()
	run(exitOK, "--wal")
	if got, want := left(), "kept=f,loose=f 1 2 1 3"; got != want {
		t.Errorf("set up: got %s, want %s", got, want)
	}
	run(exitOK, "--remove", "--wal")
	if got, want := left(), "kept=f,loose=d 0 0 1 2"; got != want {
		t.Errorf("without the feed: got %s, want %s", got, want)
	}
	run(exitOK, "--wal")
	pgtest.Exec(t, database, "INSERT INTO cachedpg.outbox (tags, local) VALUES (decode(repeat('00', 17), 'hex'), true)")
	if stderr := run(exitFailed, "--remove"); !strings.Contains(stderr, "cachedpg.outbox holds") {
		t.Errorf("with a row in the outbox: %s", stderr)
	}
	pgtest.Exec(t, database, "DELETE FROM cachedpg.outbox")
	for range 2 {
		run(exitOK, "--remove")
		if got := left(); got != before {
			t.Errorf("removed: got %s, want %s", got, before)
		}
	}
	run(exitOK, "--wal") // as if for the first time
	if code, out, _ := call(t, "setup", "--remove", "--print"); code != exitOK || out != cachedpg.RemoveSetupSQL() {
		t.Errorf("printed: exit code %d\n%s", code, out)
	}
	pgtest.Exec(t, database, cachedpg.RemoveSetupSQL())
	if got := left(); got != before {
		t.Errorf("removed by what is printed: got %s, want %s", got, before)
	}
}

func TestSetupPrintsWhatItWouldRun(t *testing.T) {
	t.Parallel()
	code, out, stderr := call(t, "setup", "--print", "--role", `my"app`)
	if code != exitOK || out != cachedpg.SetupSQL(`my"app`) || !strings.Contains(out, `TO "my""app"`) {
		t.Fatalf("exit code %d\n%s%s", code, out, stderr)
	}
	pgtest.Exec(t, pgtest.Database(t), cachedpg.SetupSQL())
	if code, all, stderr := call(t, "setup", "--print", "--wal"); code != exitOK || all != cachedpg.SetupSQL()+cachedpg.WALSetupSQL {
		t.Errorf("with --wal: exit code %d\n%s%s", code, all, stderr)
	}
}

func TestTheOutboxCommandsAreCalledWrongly(t *testing.T) {
	t.Setenv("CACHEDPG_DSN", "")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"setup"}, exitUsage, "no --dsn"},
		{[]string{"relay"}, exitUsage, "no --dsn"},
		{[]string{"setup", "--dsn", "host=x", "more"}, exitUsage, "too many"},
		{[]string{"relay", "--dsn", "host=x", "more"}, exitUsage, "too many"},
		{[]string{"setup", "--role", ""}, exitUsage, "role"},
		{[]string{"setup", "--remove", "--role", "x"}, exitUsage, "--role"},
		{[]string{"relay", "--dsn", "host=x cache_outbox=never"}, exitUsage, "cache_outbox"},
		{[]string{"relay", "--dsn", "host=x password=hush port=y"}, exitUsage, "invalid port"},
		{[]string{"relay", "--dsn", "host=x"}, exitFailed, "not shared"},
	} {
		code, _, stderr := call(t, tt.args...)
		if code != tt.code || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hush") {
			t.Errorf("%q: exit code %d, want %d\n%s", tt.args, code, tt.code, stderr)
		}
	}
}
