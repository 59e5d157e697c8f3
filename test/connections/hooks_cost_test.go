package connections

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
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
				connector, err := cachedpg.WrapConnector(stdlib.GetConnector(counting(f), tc.options...), cachedpg.Config{})
				if err != nil {
					f.Fatal(err)
				}
				v := f.Asking(openIdle(f.T, connector, 1))
				v.DB.SetMaxOpenConns(1)
				v.Warm(harness.UserByID, 1)
				conn := f.Conn(v.DB)
				var counted *countedConn // the pool's only one; beside it the driver asks for itself
				if err := conn.Raw(func(c any) error {
					in := inside.Inner(c).(*backend.Pgx)
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
			connector, err := cachedpg.WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), again, option), cachedpg.Config{Store: "off"})
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
