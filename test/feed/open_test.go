package feed

import (
	"context"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// A transaction that was open before the feed began may commit unheard: until it
// is over nothing is cached, nobody waits for it, and the stats say why.
func TestFeedWaitsForTransactionsThatWereOpenBefore(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, cachedpg.WALSetupSQL)
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
	f.Until("the feed to wait", func() bool {
		return cachedpg.StatsOf(f.DB).Feed.Problem == "cachedpg: the feed begins when every transaction is over that was open before"
	})
	f.Bypass(keying.FeedDown, harness.UserByID, 1).Is("1 ann Oslo")
	f.Commit(tx)
	follows(f, f.Via)
	f.Known(harness.UserByID, 1).Is("1 ann Bergen")
}
