package behind

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

const counters3 = `
	CREATE SCHEMA IF NOT EXISTS cachedpg;` + behind.TableSQL + `;
	CREATE TABLE hits (id int PRIMARY KEY, n int NOT NULL CHECK (n < 1000000), seen timestamptz DEFAULT now());
	INSERT INTO hits VALUES (1, 0), (2, 0), (3, 0);
	CREATE TABLE others (id int PRIMARY KEY, n int);
	INSERT INTO others VALUES (1, 0);`

const (
	countHit = "UPDATE hits SET n = n + 1 WHERE id = $1"
	readHit  = "SELECT n FROM hits WHERE id = $1"
)

// queueing is a story of a database with a queue in a Redis of its own.
func queueing(t *testing.T, story func(f *harness.Fixture, r *redistest.Server)) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(harness.New(t, pgtest.Database(t), "cache_statement", counters3,
		"cache_store="+r.URL(), "cache_policy=hits:write-behind"), r)
}

// held keeps PostgreSQL from recording a position until release is called.
func heldQueue(f *harness.Fixture) (release func()) {
	f.Helper()
	f.Drained()
	tx, err := f.Plain.BeginTx(f.Ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	if _, err := tx.ExecContext(f.Ctx, "SELECT FROM cachedpg.queue FOR UPDATE"); err != nil {
		f.Fatal(err)
	}
	return func() { f.Rollback(tx) }
}

func inPostgres(f *harness.Fixture, query string, args ...any) string {
	f.Helper()
	return f.Read(f.Plain, query, args).String()
}

// told is the only process, with a hook.
func told(f *harness.Fixture, hook func(cachedpg.DeadLetter)) harness.Via {
	f.Helper()
	f.DB.Close()
	pg, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	_, config, err := cachedpg.ParseConfig(harness.WithKeys(f.DSN, f.Keys))
	if err != nil {
		f.Fatal(err)
	}
	config.OnDeadLetter = hook
	c, err := cachedpg.NewConnector(*pg, config)
	if err != nil {
		f.Fatal(err)
	}
	db := harness.OpenDB(f, c)
	f.Live(db)
	return f.Asking(db)
}

func roleOf(f *harness.Fixture) string { return "behind_" + inside.Identity(f.DB).Database }

// queued reports whether a write of f's was queued rather than run.
func queues(v harness.Via, query string, args ...any) bool {
	v.F.Helper()
	before := cachedpg.StatsOf(v.DB).Queue.Queued
	v.Exec(query, args...)
	return cachedpg.StatsOf(v.DB).Queue.Queued > before
}

// makeRole makes a role that may do with hits what it likes, and with the queue nothing.
func makeRole(f *harness.Fixture, role string) {
	f.Helper()
	f.Past("CREATE ROLE " + role + "; GRANT ALL ON hits TO " + role +
		"; DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), '" + role + "'); END $$")
}

// newKey is a key for cache_encryption.
func newKey(id int) string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	return fmt.Sprintf("%d:%s", id, base64.StdEncoding.EncodeToString(secret))
}

// sealedQueue is queueing with encryption.
func sealedQueue(t *testing.T, key string, story func(f *harness.Fixture, r *redistest.Server)) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(harness.New(t, pgtest.Database(t), "cache_statement", counters3,
		"cache_store="+r.URL(), "cache_policy=hits:write-behind", "cache_encryption="+key), r)
}

// inBothQueues is a story of a queue without encryption, and of one with it.
func inBothQueues(t *testing.T, story func(f *harness.Fixture, r *redistest.Server)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) { queueing(t, story) })
	t.Run("sealed", func(t *testing.T) { sealedQueue(t, newKey(1), story) })
}

// bounded ends what waits for ever.
func bounded(f *harness.Fixture) (restore func()) {
	whole := f.Ctx
	ctx, cancel := context.WithTimeout(whole, harness.Timeout/3)
	f.Ctx = ctx
	return func() {
		cancel()
		f.Ctx = whole
	}
}
