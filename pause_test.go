//go:build unix

package cachedpg

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// PAUSE of pgbouncer lets no transaction begin, and ends when none is open. A test
// fails when it does not end.

// crowd are processes behind a pooler, all with a hit.
func (w *travel) crowd(n int) (*pgtest.Bouncer, []*visitor) {
	w.Helper()
	pooler := w.pooled(w.server().DSN())
	all := make([]*visitor, n)
	for i := range all {
		all[i] = w.open(fmt.Sprint("process ", i), through(pooler))
		all[i].hits("first")
	}
	return pooler, all
}

func (v *visitor) guard() *guard { return connectorOf(v.db).space().guard }

// What shows a process is not held for longer because another question of the process
// has to wait for the pooler.
func TestPauseEndsWhileAQuestionWaitsForIt(t *testing.T) {
	travels(t, func(w *travel) {
		pooler, all := w.crowd(5)
		var waiting, done sync.WaitGroup
		resumed := make(chan struct{})
		guards := make(map[*guard]bool) // in memory they are one process
		for _, v := range all {
			guards[v.guard()] = true
		}
		waiting.Add(len(guards))
		for g := range guards {
			done.Go(func() {
				err := g.with(w.ctx, func(in backend.Conn) error {
					waiting.Done()
					<-resumed
					return nil
				})
				if err != nil {
					w.Error(err)
				}
			})
		}
		waiting.Wait()
		pooler.Pause()
		pooler.Resume()
		close(resumed)
		done.Wait()
		for _, v := range all {
			v.hits("first")
		}
		agree(all)
	})
}

// agree has one of them write, and all see it.
func agree(all []*visitor) {
	all[0].w.Helper()
	all[0].moves("second")
	for _, v := range all {
		v.sees("second")
	}
}

// A process that is stopped ends no transaction. PostgreSQL does.
func TestPauseEndsWhileAProcessIsStopped(t *testing.T) {
	travels(t, func(w *travel) {
		pooler, all := w.crowd(1)
		r := all[0].guard().rotation()
		r.mu.Lock()
		pooler.Pause()
		r.mu.Unlock()
		pooler.Resume()
		all[0].hits("first")
	})
}

// Transactions that have yet to show that they write end, although no other connection is to be had.
func TestPauseEndsWhileManyCommit(t *testing.T) {
	travels(t, func(w *travel) {
		pooler, all := w.crowd(2)
		txs := make([]*sql.Tx, 12)
		for i := range txs {
			tx, err := all[0].db.BeginTx(w.ctx, nil)
			if err == nil {
				_, err = tx.ExecContext(w.ctx, "INSERT INTO places VALUES ($1, 'new')", i+2)
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

// A transaction that needs the catalog does not wait for as long as a load that waits for the pooler.
func TestPauseEndsWhileATransactionNeedsTheCatalog(t *testing.T) {
	travels(t, func(w *travel) {
		pooler, all := w.crowd(1)
		sp := connectorOf(all[0].db).space()
		tx, err := all[0].db.BeginTx(w.ctx, nil)
		if err != nil {
			w.Fatal(err)
		}
		inside := *all[0]
		inside.ask = tx
		inside.sees("first")
		var watch *watch
		if w.shared() {
			watch = &sp.keeper.watch
		} else {
			watch = &sp.lease.watch
		}
		watch.asking.Lock()
		sp.dropView()
		ended := pooler.Pausing()
		inside.sees("first")
		inside.moves("second")
		if err := tx.Commit(); err != nil {
			w.Error(err)
		}
		ended()
		watch.asking.Unlock()
		pooler.Resume()
		all[0].hits("second")
	})
}

// A notice that commits go past the store stands for as long as that is away.
func TestPauseEndsWhileCommitsGoPastTheStore(t *testing.T) {
	t.Parallel()
	w := newTravel(t)
	redis := redistest.Start(t)
	proxy := redis.Proxy()
	w.keys = []string{"cache_store=" + redis.URLThrough(proxy)}
	pooler, all := w.crowd(2)
	proxy.Cut()
	all[0].moves("second")
	if StatsOf(all[0].db).Unmarked == 0 {
		t.Fatal("the commit has not gone past the store")
	}
	pooler.Pause()
	pooler.Resume()
	all[0].moves("third")
	all[1].sees("third")
	proxy.Restore()
	for _, v := range all {
		v.hits("third")
	}
}

// What shows that a statement runs alone is there again after it was lost.
func TestWhatIsShownOfAStatementThatRunsAloneComesBackAfterPause(t *testing.T) {
	t.Parallel()
	w := newTravel(t)
	w.keys = []string{"cache_store=" + redistest.Start(t).URL()}
	pooler, all := w.crowd(1)
	g := all[0].guard()
	r := newRotation(g, 0, true)
	defer r.close()
	if _, _, err := r.hold(w.ctx, []post{{lockClass, lockAlone}}, ""); err != nil {
		t.Fatal(err)
	}
	pooler.Pause()
	pooler.Resume()
	for shown := false; !shown; {
		var err error
		if shown, err = g.yes(w.ctx, "SELECT "+held(lockAlone)); err != nil {
			t.Fatal(err)
		}
	}
}

// What is shown through a pooler that leads elsewhere by now is not shown where a transaction
// is that has yet to commit. It shows itself there.
func TestLocksThatAPoolerTakesElsewhereShowNothing(t *testing.T) {
	t.Parallel()
	w := newTravel(t)
	a, b := w.server(), w.server()
	pooler := w.pooled(a.DSN())
	open := func(name, dsn string) *visitor {
		w.Helper()
		c, err := (&Driver{}).OpenConnector(dsn)
		if err != nil {
			w.Fatal(err)
		}
		inside.Process(c, name)
		db := sql.OpenDB(c)
		w.Cleanup(func() { db.Close() })
		return &visitor{w: w, name: name, db: db, ask: db}
	}
	writer, reader := open("writer", harness.WithKey(through(pooler), "cache_store", "off")), open("reader", a.DSN())
	writer.moves("second")
	reader.sees("second")
	tx, err := writer.db.BeginTx(w.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	inside := *writer
	inside.ask = tx
	inside.sees("second")
	pooler.Repoint(b.DSN())
	reader.hits("second")
	inside.moves("third")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	reader.sees("third")
}
