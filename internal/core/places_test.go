package core

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// placed is a fixture with a bounded number of connections to PostgreSQL, which are counted.
type placed struct {
	*harness.Fixture
	most     int
	database string
	mu       sync.Mutex // guards dialled
	dialled  []*pgx.Conn
}

func newPlaced(t *testing.T, most int, keys ...string) *placed {
	t.Helper()
	database := pgtest.Database(t)
	f := harness.New(t, database, "cache_statement", harness.People, keys...)
	p := &placed{Fixture: f, most: most, database: database}
	f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, append(keys, fmt.Sprint("cache_max_conns=", most), "cache_admission=all")))
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	d := dbOf(f.DB)
	connect := d.connect
	d.connect = func(ctx context.Context, b *link) (backend.Conn, error) {
		in, err := connect(ctx, b)
		if err == nil && b.holder != nil { // else it is one of the driver's own
			p.counts(in.(*backend.Pgx).PgxConn())
		}
		return in, err
	}
	if len(keys) > 0 {
		f.Live(f.DB)
	}
	return p
}

// counts fails the test if there are more connections than there may be.
func (p *placed) counts(conn *pgx.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialled = append(p.dialled, conn)
	open := 0
	for _, c := range p.dialled {
		select {
		case <-c.PgConn().CleanupDone():
		default:
			open++
		}
	}
	if open > p.most {
		p.Errorf("%d connections to PostgreSQL, want at most %d", open, p.most)
	}
}

func (p *placed) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dialled)
}

// holdAll takes every place, and returns what gives them back.
func (p *placed) holdAll() (leave func()) {
	p.Helper()
	var held []*sql.Tx
	for range p.most {
		tx, err := p.DB.BeginTx(p.Ctx, nil)
		if err != nil {
			p.Fatal(err)
		}
		held = append(held, tx)
	}
	return func() {
		for _, tx := range held {
			if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
				p.Error(err)
			}
		}
	}
}

// waiting returns when so many wait for a place.
func (p *placed) waiting(n int) {
	p.Helper()
	p.Until(fmt.Sprint(n, " wait"), func() bool { return statsOf(p.DB).Places.Waiting == n })
}

// free returns when nobody holds a place.
func (p *placed) free() {
	p.Helper()
	p.Until("the places back", func() bool { return statsOf(p.DB).Places.InUse == 0 })
}

// aside runs f in a goroutine.
func aside(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func (p *placed) nameOf(x interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, ctx context.Context, id int) (name string, err error) {
	err = x.QueryRowContext(ctx, nameByID, id).Scan(&name)
	return name, err
}

func TestHitsNeedNoPlace(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		p := newPlaced(t, 2, keys...)
		p.Known(nameByID, 1)
		stmt, err := p.DB.PrepareContext(p.Ctx, nameByID)
		if err != nil {
			t.Fatal(err)
		}
		defer stmt.Close()
		leave := p.holdAll()
		defer leave()
		miss := aside(func() error {
			_, err := p.nameOf(p.DB, p.Ctx, 2)
			return err
		})
		p.waiting(1)
		before := statsOf(p.DB).Hits
		var hits sync.WaitGroup
		for range 64 {
			hits.Go(func() {
				for _, ask := range []func() (string, error){
					func() (string, error) { return p.nameOf(p.DB, p.Ctx, 1) },
					func() (name string, err error) {
						err = stmt.QueryRowContext(p.Ctx, 1).Scan(&name)
						return name, err
					},
				} {
					if name, err := ask(); name != "ann" || err != nil {
						t.Errorf("%q, %v", name, err)
					}
				}
			})
		}
		hits.Wait()
		if got := statsOf(p.DB).Hits - before; got != 128 {
			t.Errorf("%d hits, want 128", got)
		}
		if s := statsOf(p.DB).Places; s.Waiting != 1 || s.InUse != 2 || s.Waits != 1 {
			t.Errorf("%+v, want one that waits still", s)
		}
		leave()
		if err := <-miss; err != nil {
			t.Error(err)
		}
		p.free()
	})
}

// After a DDL nobody knows what a new connection would be like. One that there is tells.
func TestHitsNeedNoPlaceAfterADDL(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	p.holdAll()() // no other is dialled after it
	p.Known(nameByID, 1)
	p.Exec("CREATE TABLE another (id int)")
	p.Known(nameByID, 1)
	defer p.holdAll()()
	p.Hit(nameByID, 1)
}

func TestWhoComesFirstIsServedFirst(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	p.Past("CREATE TABLE served (at serial, who int)")
	p.Exec("INSERT INTO users VALUES (7, 'gil')") // whatever there is to learn is known
	leave := p.holdAll()
	const n = 8
	var all []<-chan error
	for i := range n {
		all = append(all, aside(func() error {
			_, err := p.DB.ExecContext(p.Ctx, "INSERT INTO served (who) VALUES ($1)", i)
			return err
		}))
		p.waiting(i + 1)
	}
	leave()
	for _, done := range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	p.Fresh("SELECT string_agg(who::text, ' ' ORDER BY at) FROM served").Is("0 1 2 3 4 5 6 7")
	if d := p.dials(); d != 1 {
		t.Errorf("%d connections were dialled, want 1", d)
	}
}

func TestAContextThatEndsInTheQueueTakesNoPlaceAlong(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	leave := p.holdAll()
	ctx, cancel := context.WithCancel(p.Ctx)
	impatient := aside(func() error {
		_, err := p.nameOf(p.DB, ctx, 1)
		return err
	})
	p.waiting(1)
	patient := aside(func() error {
		_, err := p.nameOf(p.DB, p.Ctx, 2)
		return err
	})
	p.waiting(2)
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was called off", err)
	}
	p.waiting(1)
	leave()
	if err := <-patient; err != nil {
		t.Error(err)
	}
	p.free()
}

// idleInner is a connection that nobody asks anything.
type idleInner struct{ backend.Conn }

func (*idleInner) Closed() bool { return false }
func (*idleInner) Close() error { return nil }

// Who is served and called off at once hands on what it has got.
func TestNoPlaceIsLostBetweenServiceAndHaste(t *testing.T) {
	t.Parallel()
	d, err := newDB(config.Config{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := d.places
	type taken struct {
		b   *link
		err error
	}
	late := 0
	for late < 20 { // else it was served before it noticed
		b, _, err := p.take(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			b = &link{inner: &idleInner{}, until: time.Now().Add(time.Hour)}
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan taken, 1)
		go func() {
			b, _, err := p.take(ctx)
			done <- taken{b, err}
		}()
		for p.stats().Waiting == 0 {
			runtime.Gosched()
		}
		p.mu.Lock()
		cancel()
		p.serveLocked(b)
		p.mu.Unlock()
		if got := <-done; got.err == nil {
			p.give(got.b)
		} else {
			late++
		}
		if s := p.stats(); s.InUse != 0 || s.Waiting != 0 || s.Free != 1 {
			t.Fatalf("%+v, want one that is free", s)
		}
	}
	p.closeFree(true)
	if s := p.stats(); s.InUse != 0 || s.Free != 0 {
		t.Errorf("%+v, want nothing", s)
	}
}

// The one who leads waits for a place, and who has it must not wait for that one.
func TestWhoHasAPlaceFollowsNobodyWhoWaitsForIt(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	p.Known(nameByID, 1)
	conn := p.Conn(p.DB)
	if _, err := conn.ExecContext(p.Ctx, "UPDATE users SET city = 'Bergen' WHERE id = 3"); err != nil {
		t.Fatal(err)
	}
	leads := aside(func() error {
		name, err := p.nameOf(p.DB, p.Ctx, 2)
		if err == nil && name != "bob" {
			err = errors.New(name)
		}
		return err
	})
	p.waiting(1)
	before := statsOf(p.DB)
	if name, err := p.nameOf(conn, p.Ctx, 2); name != "bob" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-leads; err != nil {
		t.Error(err)
	}
	if got := statsOf(p.DB).Fills - before.Fills; got != 1 {
		t.Errorf("%d SELECTs, want that who waited looks again", got)
	}
}

func TestClosingTheDBServesWhoWaits(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 1)
	leave := p.holdAll()
	waits := aside(func() error {
		_, err := p.DB.ExecContext(p.Ctx, "UPDATE users SET city = 'Oslo' WHERE id = 1")
		return err
	})
	p.waiting(1)
	if err := p.DB.Close(); err != nil {
		t.Error(err)
	}
	leave()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	p.Until("the end of all connections", func() bool {
		s := statsOf(p.DB).Places
		return s.InUse == 0 && s.Free == 0
	})
}

func TestWhatDatabaseSQLClosesIsNotDialledAgain(t *testing.T) {
	t.Parallel()
	p := newPlaced(t, 2)
	p.DB.SetMaxIdleConns(-1) // which is none
	for range 10 {
		p.Exec("UPDATE users SET city = 'Oslo' WHERE id = 1")
		tx, err := p.DB.BeginTx(p.Ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Commit(tx)
	}
	p.free()
	if d := p.dials(); d != 1 {
		t.Errorf("%d connections were dialled, want 1", d)
	}
}
