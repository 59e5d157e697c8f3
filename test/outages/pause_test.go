//go:build unix

package outages

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// agree has one of them write, and all see it.
func agree(all []*harness.Visitor) {
	all[0].W.Helper()
	all[0].Moves("second")
	for _, v := range all {
		v.Sees("second")
	}
}

// Transactions that have yet to show that they write end, although no other connection is to be had.
func TestPauseEndsWhileManyCommit(t *testing.T) {
	harness.Travels(t, func(w *harness.Travel) {
		pooler, all := w.Crowd(2)
		txs := make([]*sql.Tx, 12)
		for i := range txs {
			tx, err := all[0].DB.BeginTx(w.Ctx, nil)
			if err == nil {
				_, err = tx.ExecContext(w.Ctx, "INSERT INTO places VALUES ($1, 'new')", i+2)
			}
			if err != nil {
				w.Fatal(err)
			}
			txs[i] = tx
		}
		ended := pooler.Pausing()
		var commits sync.WaitGroup
		for _, tx := range txs {
			commits.Go(func() {
				if err := tx.Commit(); err != nil {
					w.Error(err)
				}
			})
		}
		ended()
		commits.Wait()
		pooler.Resume()
		agree(all)
	})
}

// A notice that commits go past the store stands for as long as that is away.
func TestPauseEndsWhileCommitsGoPastTheStore(t *testing.T) {
	t.Parallel()
	w := harness.NewTravel(t)
	redis := redistest.Start(t)
	proxy := redis.Proxy()
	w.Keys = []string{"cache_store=" + redis.URLThrough(proxy)}
	pooler, all := w.Crowd(2)
	proxy.Cut()
	all[0].Moves("second")
	if cachedpg.StatsOf(all[0].DB).Unmarked == 0 {
		t.Fatal("the commit has not gone past the store")
	}
	pooler.Pause()
	pooler.Resume()
	all[0].Moves("third")
	all[1].Sees("third")
	proxy.Restore()
	for _, v := range all {
		v.Hits("third")
	}
}

// What is shown through a pooler that leads elsewhere by now is not shown where a transaction
// is that has yet to commit. It shows itself there.
func TestLocksThatAPoolerTakesElsewhereShowNothing(t *testing.T) {
	t.Parallel()
	w := harness.NewTravel(t)
	a, b := w.Server(), w.Server()
	pooler := w.Pooled(a.DSN())
	open := func(name, dsn string) *harness.Visitor {
		w.Helper()
		c, err := (&cachedpg.Driver{}).OpenConnector(dsn)
		if err != nil {
			w.Fatal(err)
		}
		inside.Process(c, name)
		db := sql.OpenDB(c)
		w.Cleanup(func() { db.Close() })
		return &harness.Visitor{W: w, Name: name, DB: db, Ask: db}
	}
	writer, reader := open("writer", harness.WithKey(harness.ThroughPooler(pooler), "cache_store", "off")), open("reader", a.DSN())
	writer.Moves("second")
	reader.Sees("second")
	tx, err := writer.DB.BeginTx(w.Ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	inside := *writer
	inside.Ask = tx
	inside.Sees("second")
	pooler.Repoint(b.DSN())
	reader.Hits("second")
	inside.Moves("third")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	reader.Sees("third")
}
