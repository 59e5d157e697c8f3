package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/config"
)

// Everything at once, with fewer places than goroutines: all come to an end, nobody sees what is another's, and never
// are there more connections than places.
func TestManyGoroutinesGetOnWithFewPlaces(t *testing.T) {
	for _, most := range []int{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			p := newPlaced(t, most)
			stmt, err := p.DB.PrepareContext(p.Ctx, nameByID)
			if err != nil {
				t.Fatal(err)
			}
			defer stmt.Close()
			does := []func(i int) error{
				func(i int) error { // hits and misses
					_, err := p.nameOf(p.DB, p.Ctx, i%3+1)
					return err
				},
				func(i int) error {
					var name string
					return stmt.QueryRowContext(p.Ctx, i%3+1).Scan(&name)
				},
				func(i int) error {
					_, err := p.DB.ExecContext(p.Ctx, "UPDATE users SET city = $2 WHERE id = $1", i%3+1, fmt.Sprint(i))
					return err
				},
				func(i int) error {
					tx, err := p.DB.BeginTx(p.Ctx, nil)
					if err != nil {
						return err
					}
					_, err = p.nameOf(tx, p.Ctx, i%3+1)
					if err == nil {
						_, err = tx.ExecContext(p.Ctx, "UPDATE users SET city = $2 WHERE id = $1", i%3+1, fmt.Sprint(i))
					}
					if err != nil || i%2 == 0 {
						return errors.Join(err, tx.Rollback())
					}
					return tx.Commit()
				},
				func(i int) error {
					conn, err := p.DB.Conn(p.Ctx)
					if err != nil {
						return err
					}
					defer conn.Close()
					_, before := p.nameOf(conn, p.Ctx, i%3+1)
					return errors.Join(before, handedOut(p.Ctx, conn, func(c *pgx.Conn) error {
						var one int
						return c.QueryRow(p.Ctx, "SELECT 1").Scan(&one)
					}))
				},
				func(i int) error {
					conn, err := p.DB.Conn(p.Ctx)
					if err != nil {
						return err
					}
					defer conn.Close()
					mine := fmt.Sprint(i)
					if _, err := conn.ExecContext(p.Ctx, "SET app.tenant = '"+mine+"'"); err != nil {
						return err
					}
					var got string
					err = conn.QueryRowContext(p.Ctx, "SELECT current_setting('app.tenant')").Scan(&got)
					if err == nil && got != mine {
						err = fmt.Errorf("another's setting: %s, want %s", got, mine)
					}
					return err
				},
				func(i int) error { // called off
					ctx, cancel := context.WithCancel(p.Ctx)
					go cancel()
					if _, err := p.nameOf(p.DB, ctx, i%3+1); err != nil && ctx.Err() == nil {
						return err
					}
					return nil
				},
				func(i int) error {
					rows, err := p.DB.QueryContext(p.Ctx, "SELECT id FROM users FOR SHARE")
					if err != nil {
						return err
					}
					rows.Next()
					return rows.Close()
				},
			}
			var all sync.WaitGroup
			for g := range 64 {
				all.Go(func() {
					for i := range 3 * len(does) {
						if err := does[(g+i)%len(does)](g + i); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			p.Until("nothing in use but what is kept", func() bool {
				s := statsOf(p.DB).Places
				d := dbOf(p.DB).places
				d.mu.Lock()
				defer d.mu.Unlock()
				return s.InUse == len(d.parked) && s.Waiting == 0
			})
			if s := statsOf(p.DB).Places; s.Waits == 0 || s.Waited == 0 {
				t.Errorf("%+v, want that somebody had to wait", s)
			}
		})
	}
}

func TestFreeBackendsAreClosedInTheEnd(t *testing.T) {
	t.Parallel()
	d, err := newDB(config.Config{MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	p, now := d.places, time.Now()
	old := &link{inner: &idleInner{}, until: now.Add(-1)}
	if _, _, err := p.take(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p.give(old); !old.gone.Load() {
		t.Error("what has lasted long enough is kept")
	}
	first, second := &link{inner: &idleInner{}, until: now.Add(time.Hour)}, &link{inner: &idleInner{}, until: now.Add(time.Hour)}
	for _, b := range []*link{first, second} {
		p.mu.Lock()
		p.taken++
		p.mu.Unlock()
		p.give(b)
	}
	p.mu.Lock()
	first.freed = now.Add(-backendIdle)
	p.mu.Unlock()
	p.closeIdle()
	if got := []bool{first.gone.Load(), second.gone.Load()}; !slices.Equal(got, []bool{true, false}) {
		t.Errorf("closed: %v, want the first alone", got)
	}
	p.closeFree(true)
	if !second.gone.Load() {
		t.Error("the end leaves one open")
	}
}
