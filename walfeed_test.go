package cachedpg

import (
	"context"
	"fmt"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

const external = "cache_external=wal"

func newFed(t *testing.T, setup string, keys ...string) *harness.Fixture {
	t.Helper()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, WALSetupSQL)
	pgtest.Exec(t, database, "CREATE TABLE marks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);"+setup)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	t.Cleanup(cancel)
	f := &harness.Fixture{T: t, DSN: harness.WithKey(database, "default_query_exec_mode", "cache_statement"), Keys: append(keys, external), Ctx: ctx}
	f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
	f.Plain = f.Open("pgx", f.DSN)
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	follows(f, f.Via)
	heard(f) // of the tables, too
	return f
}

// follows returns when the process hears of what others write, and caches.
func follows(f *harness.Fixture, v harness.Via) {
	f.Helper()
	if err := v.DB.PingContext(f.Ctx); err != nil {
		f.Fatal(err)
	}
	f.Until("the feed", func() bool {
		return StatsOf(v.DB).Feed.Live && inside.Live(v.DB)
	})
}

// heard returns when what has been committed is handled.
func heard(f *harness.Fixture) { heardBy(f, f.Via) }

func heardBy(f *harness.Fixture, v harness.Via) {
	f.Helper()
	var before string
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT (pg_current_wal_lsn() - '0/0')::text").Scan(&before); err != nil {
		f.Fatal(err)
	}
	f.Past("INSERT INTO marks DEFAULT VALUES") // something that comes last
	f.Until("the last commit", func() bool {
		var lsn uint64
		fmt.Sscan(before, &lsn)
		return inside.Followed(v.DB) > lsn
	})
}

const fedPeople = `
	CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE, city text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo'), (2, 'bob', 'Rome'), (3, 'cid', NULL);`

// A transaction that was open before the feed began may commit unheard: until it
// is over nothing is cached, nobody waits for it, and the stats say why.
func TestFeedWaitsForTransactionsThatWereOpenBefore(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, WALSetupSQL)
	pgtest.Exec(t, database, fedPeople)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	f := &harness.Fixture{T: t, DSN: database, Ctx: ctx}
	f.Plain = f.Open("pgx", database)
	writer := f.Conn(f.Plain)
	tx, err := writer.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "UPDATE users SET city = 'Bergen' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	f.DB = f.Open("cachedpg", harness.WithKey(database, "cache_external", "wal"))
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	if err := f.DB.PingContext(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	f.Until("the feed to wait", func() bool { return StatsOf(f.DB).Feed.Problem == errFeedStarts.Error() })
	f.Bypass(keying.FeedDown, harness.UserByID, 1).Is("1 ann Oslo")
	f.Commit(tx)
	follows(f, f.Via)
	f.Known(harness.UserByID, 1).Is("1 ann Bergen")
}
