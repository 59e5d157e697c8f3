package connections

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// What a hook is told and says is as with pgx.
func TestAHookRefusesAsWithPgx(t *testing.T) {
	for _, refusal := range []error{driver.ErrBadConn, fmt.Errorf("not this one: %w", driver.ErrBadConn), errors.New("not now"), context.Canceled} {
		t.Run(refusal.Error(), func(t *testing.T) {
			harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
				type seen struct{ dialled, reset, refused int }
				var counts [2]seen
				hook := func(i int) []stdlib.OptionOpenDB {
					return []stdlib.OptionOpenDB{
						stdlib.OptionAfterConnect(func(context.Context, *pgx.Conn) error {
							counts[i].dialled++
							return nil
						}),
						stdlib.OptionResetSession(func(ctx context.Context, conn *pgx.Conn) error {
							counts[i].reset++
							if tenantOf(ctx) == "nobody" {
								counts[i].refused++
								if _, err := conn.Exec(ctx, "SET search_path TO nowhere"); err != nil {
									f.Error(err)
								}
								return refusal
							}
							return nil
						}),
					}
				}
				connector, err := cachedpg.WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), hook(0)...), cachedpg.Config{})
				if err != nil {
					f.Fatal(err)
				}
				ours := openIdle(f.T, connector, 1)
				plain := openIdle(f.T, stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), hook(1)...), 1)
				for i := range 6 {
					ctx := f.Ctx
					if i%2 == 1 {
						ctx = asTenant(ctx, "nobody")
					}
					got, want := harness.OwnerOf(ctx, ours, "SELECT name FROM users WHERE id = $1", 1), harness.OwnerOf(ctx, plain, "SELECT name FROM users WHERE id = $1", 1)
					if got != want {
						f.Errorf("read %d: got %s, pgx %s", i, got, want)
					}
				}
				if counts[0] != counts[1] {
					f.Errorf("the hooks: got %+v, pgx %+v", counts[0], counts[1])
				}
			})
		})
	}
}

func TestAHookLeavesATransactionOpen(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		begin := func(ctx context.Context, conn *pgx.Conn) error {
			if tenantOf(ctx) == "" {
				return nil
			}
			_, err := conn.Exec(ctx, "BEGIN; UPDATE users SET name = name || '!' WHERE id = 1; SET LOCAL search_path TO nowhere, cache_statement")
			return err
		}
		for name, option := range map[string]stdlib.OptionOpenDB{"dialled": stdlib.OptionAfterConnect(begin), "taken again": stdlib.OptionResetSession(begin)} {
			f.Step(name, func(f *harness.Fixture) {
				connector, err := cachedpg.WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), option), cachedpg.Config{})
				if err != nil {
					f.Fatal(err)
				}
				db := openIdle(f.T, connector, 1)
				if name == "taken again" {
					if err := db.PingContext(f.Ctx); err != nil {
						f.Fatal(err)
					}
				}
				f.Known(harness.UserByID, 1)
				for _, end := range []string{"COMMIT", "by BeginTx"} {
					before := f.Hit(harness.UserByID, 1).String()
					conn, err := db.Conn(asTenant(f.Ctx, "a"))
					if err != nil {
						f.Fatal(err)
					}
					own := harness.OwnerOf(f.Ctx, conn, "SELECT name FROM users WHERE id = $1", 1)
					if end == "COMMIT" {
						_, err = conn.ExecContext(f.Ctx, "COMMIT")
					} else if tx, begun := conn.BeginTx(f.Ctx, nil); begun != nil {
						err = begun
					} else {
						err = tx.Commit()
					}
					if err != nil {
						f.Fatal(err)
					}
					after := f.Fresh(harness.UserByID, 1).String()
					if after == before {
						f.Errorf("%s: others read %s before and after the commit", end, after)
					}
					if own == before {
						f.Errorf("%s: the transaction reads %s, as it was before its own change", end, own)
					}
					f.Known(harness.UserByID, 1)
					if err := conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) {
						f.Fatal(err)
					}
					conn.Close()
					if name == "taken again" {
						if err := db.PingContext(f.Ctx); err != nil {
							f.Fatal(err)
						}
					}
				}
			})
		}
	})
}

// BeginTx in a transaction that a text has begun is a warning to PostgreSQL, and
// its commit is that of all of it.
func TestBeginTxKeepsTheTransactionOfABegin(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		conn := f.Conn(f.DB)
		for _, text := range []string{"BEGIN", "UPDATE users SET name = 'anna' WHERE id = 1"} {
			if _, err := conn.ExecContext(f.Ctx, text); err != nil {
				f.Fatal(err)
			}
		}
		tx, err := conn.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Commit(tx)
		f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
	})
}

// Many at once take connections from each other, each with a tenant of its own.
func TestHooksKeepConcurrentTenantsApart(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		for _, h := range everyHook {
			if h.name == "OptionResetSession" || store == "redis" && h.idle == 0 {
				continue // it does not set the tenant of a connection that was just dialled; no store sees how it was dialled
			}
			t.Run(store+"/"+h.name, func(t *testing.T) {
				t.Parallel()
				p := newTenantProgram(t, store, h, tenancies[0])
				p.dbs[0].SetMaxOpenConns(4)
				rounds := 25
				if h.idle == 0 {
					rounds = 10 // each statement dials
				}
				var commits [2]struct {
					sync.Mutex
					last int
				}
				var wg sync.WaitGroup
				for worker := range 4 {
					wg.Go(func() {
						tenant := worker % 2
						ctx := asTenant(t.Context(), string("ab"[tenant]))
						for range rounds {
							c := &commits[tenant]
							c.Lock()
							next := c.last + 1
							if _, err := p.dbs[0].ExecContext(ctx, "UPDATE items SET owner = $1 WHERE id = 1", fmt.Sprintf("%c %d", "ab"[tenant], next)); err != nil {
								t.Error(err)
							}
							c.last = next
							c.Unlock()
							for range 3 {
								c.Lock()
								least := c.last
								c.Unlock()
								var owner string
								var got int
								if err := p.dbs[0].QueryRowContext(ctx, "SELECT owner FROM items WHERE id = $1", 1).Scan(&owner); err != nil {
									t.Error(err)
								} else if _, err := fmt.Sscanf(owner, string("ab"[tenant])+" %d", &got); err != nil {
									t.Errorf("tenant %c reads %q", "ab"[tenant], owner)
								} else if got < least {
									t.Errorf("tenant %c reads version %d after %d was committed", "ab"[tenant], got, least)
								}
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
