package main

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

func TestTheQueueIsLookedAtAndTakenOver(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	r := redistest.Start(t)
	dsn := with(t, with(t, database, "cache_store", r.URL()), "cache_policy", "hits:write-behind")
	pgtest.Exec(t, database, "CREATE TABLE hits (id int PRIMARY KEY, n int); INSERT INTO hits VALUES (1, 0)")
	if code, _, stderr := call(t, "setup", "--dsn", dsn); code != exitOK {
		t.Fatal(stderr)
	}
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	for exec("UPDATE hits SET n = n + 1 WHERE id = 1"); cachedpg.StatsOf(db).Queue.Queued == 0; { // until the queue has its owner
		exec("UPDATE hits SET n = n + 1 WHERE id = 1")
	}
	exec("INSERT INTO hits (id, n) VALUES (1, 4711)")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := call(t, "queue", "--dsn", dsn); code != exitOK || !strings.Contains(out, "queued       0\n") || !strings.Contains(out, "appendonly") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if code, out, stderr := call(t, "queue", "--dsn", dsn, "dead"); code != exitOK || !strings.Contains(out, "4711") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	// As if another server had owned it, long ago.
	keys, err := r.Client().Keys(ctx, "*:owner").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v, %v", keys, err)
	}
	if err := r.Client().HSet(ctx, keys[0], "server", "1000000000.0", "beat", "1000", "fence", "1000", "acked", "9").Err(); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := call(t, "queue", "--dsn", dsn); code != exitFailed || !strings.Contains(stderr, "take-over") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if code, out, stderr := call(t, "queue", "--dsn", dsn, "take-over"); code != exitOK || !strings.Contains(out, "missing writes: 7") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if code, out, stderr := call(t, "queue", "--dsn", dsn); code != exitOK {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
}

func TestTheQueueCommandIsCalledWrongly(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"queue"}, {"queue", "--dsn", "postgres://x/y", "jump"}, {"queue", "--dsn", "postgres://x/y", "dead", "dead"}} {
		if code, out, stderr := call(t, args...); code != exitUsage || out != "" || !strings.Contains(stderr, "cachedpg queue -h") {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, stderr)
		}
	}
}
