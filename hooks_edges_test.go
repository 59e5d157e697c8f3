package cachedpg

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// counting returns how to dial connections that count what is sent.
func counting(f *harness.Fixture) pgx.ConnConfig {
	config := harness.ParsedDSN(f, f.DSN)
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &countedConn{Conn: conn}, err
	}
	return config
}

// countedConn counts what is sent to PostgreSQL but for pgx's pings.
type countedConn struct {
	net.Conn
	sent atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("-- ping")) {
		c.sent.Add(1)
	}
	return c.Conn.Write(b)
}

func TestAHookThatSendsNothingCostsNothing(t *testing.T) {
	nothing := func(context.Context, *pgx.Conn) error { return nil }
	never := func(context.Context, stdlib.ShouldPingParams) bool { return false }
	ping := func(ctx context.Context, p stdlib.ShouldPingParams) bool {
		return p.Conn.Ping(ctx) == nil
	}
	for _, tc := range []struct {
		name    string
		options []stdlib.OptionOpenDB
		hooked  bool
	}{
		{"no hook", nil, false},
		{"hooks for dialling", []stdlib.OptionOpenDB{stdlib.OptionAfterConnect(nothing), stdlib.OptionBeforeConnect(stdlib.RandomizeHostOrderFunc)}, false},
		{"ResetSession", []stdlib.OptionOpenDB{stdlib.OptionResetSession(nothing)}, true},
		{"ShouldPing", []stdlib.OptionOpenDB{stdlib.OptionShouldPing(never)}, true},
		{"both", []stdlib.OptionOpenDB{stdlib.OptionShouldPing(ping), stdlib.OptionResetSession(nothing)}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
				connector, err := WrapConnector(stdlib.GetConnector(counting(f), tc.options...), Config{})
				if err != nil {
					f.Fatal(err)
				}
				v := f.Asking(openIdle(f.T, connector, 1))
				v.DB.SetMaxOpenConns(1)
				v.Warm(harness.UserByID, 1)
				conn := f.Conn(v.DB)
				var counted *countedConn // the pool's only one; beside it the driver asks for itself
				if err := conn.Raw(func(c any) error {
					in := c.(*Conn).inner.(*backend.Pgx)
					if got := in.Hooked(); got != tc.hooked {
						f.Errorf("hooked: got %v, want %v", got, tc.hooked)
					}
					counted = in.PgxConn().PgConn().Conn().(*countedConn)
					return nil
				}); err != nil {
					f.Fatal(err)
				}
				conn.Close()
				before := counted.sent.Load()
				for range 20 {
					v.Hit(harness.UserByID, 1)
				}
				if n := counted.sent.Load() - before; n > 0 {
					f.Errorf("20 hits sent %d messages", n)
				}
			})
		})
	}
}

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
				connector, err := WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), hook(0)...), Config{})
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
				connector, err := WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), option), Config{})
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

// A hook that debugs what its connection says keeps doing so.
func TestAHookMayTraceItsConnection(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		var lines lineCounter
		trace := func(_ context.Context, conn *pgx.Conn) error {
			conn.PgConn().Frontend().Trace(&lines, pgproto3.TracerOptions{})
			return nil
		}
		for _, option := range []stdlib.OptionOpenDB{stdlib.OptionAfterConnect(trace), stdlib.OptionResetSession(trace)} {
			again := stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })
			connector, err := WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), again, option), Config{Store: storeOff})
			if err != nil {
				f.Fatal(err)
			}
			db := openIdle(f.T, connector, 1)
			for range 3 {
				if err := db.PingContext(f.Ctx); err != nil {
					f.Fatal(err)
				}
			}
			before := lines.n.Load()
			if _, err := db.ExecContext(f.Ctx, "SELECT 1"); err != nil {
				f.Fatal(err)
			}
			if lines.n.Load() == before {
				f.Error("the trace has ended")
			}
		}
	})
}

type lineCounter struct{ n atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.n.Add(1)
	return len(b), nil
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
