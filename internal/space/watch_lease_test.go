package space

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// Nothing is asked while no query runs, and the first one after that does not hit
// before the answer is there.
func TestAnIdleApplicationAsksNothing(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		const all = "SELECT * FROM users WHERE id = 1"
		exec := f.With("default_query_exec_mode=exec")
		exec.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		exec.Again(all)
		l := spaceOf(exec.DB).Lease
		f.Until("the end of the lease", func() bool { return !l.stands.Load() })
		const asked = "SELECT max(query_start)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%''now''::timestamptz%' AND pid <> pg_backend_pid()"
		before := f.Read(f.Plain, asked, nil).String()
		exec.Stays(patience.Lease, func() {})
		if after := f.Read(f.Plain, asked, nil).String(); after != before || after == "" || l.stands.Load() {
			f.Errorf("asked at %q, before at %q", after, before)
		}
		f.Past("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		exec.Fresh(all).Is("1 ann Oslo 7") // at once: the lease has ended
		exec.Again(all)
		f.Past("ALTER TABLE users DROP COLUMN age")
		noticed(exec, time.Now(), all)
	})
}

// proxied returns the DSN with another address, and the way to it.
func proxied(f *harness.Fixture) (string, *redistest.Proxied) {
	f.Helper()
	u, err := url.Parse(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	p := redistest.Proxy(f.T, net.JoinHostPort(u.Hostname(), port))
	u.Host = p.Addr()
	return u.String(), p
}

// While nobody listens at PostgreSQL's address nobody can change anything there, and
// hits go on; while it is silent others may, and hits end with the lease.
func TestHitsGoOnWhilePostgreSQLIsDownAndNotWhileItIsSilent(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		dsn, p := proxied(f)
		v := f.Asking(f.Open("cachedpg", dsn))
		hits := func() bool {
			before := inside.Counted(v.DB).Hits
			_ = v.Read(v.Ask, harness.UserByID, []any{1}).Err
			return inside.Counted(v.DB).Hits > before
		}
		v.Again(harness.UserByID, 1)
		p.Refuse()
		v.Stays(2*patience.Lease, func() {
			if !hits() {
				f.Fatal("no hit while PostgreSQL is down")
			}
		})
		p.Restore()
		v.Again(harness.UserByID, 1)
		f.Past("ALTER TABLE users RENAME TO folks") // seen by whoever comes back
		f.Until("the answer that the table is gone", func() bool { return v.Read(v.Ask, harness.UserByID, []any{1}).Err != nil })
		f.Past("ALTER TABLE folks RENAME TO users")
		v.Again(harness.UserByID, 1)

		l := spaceOf(v.DB).Lease
		p.Cut()
		f.Until("the end of the lease", func() bool { return !l.stands.Load() })
		if l.Holds(f.Ctx) {
			f.Error("hits are allowed while PostgreSQL is silent")
		}
		p.Restore()
		v.Again(harness.UserByID, 1)
	})
}

func TestWhoCanBeReached(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{refused, true},
		{fmt.Errorf("dialling: %w", refused), true},
		{errors.Join(refused, &pgconn.PgError{Code: "57P03"}), true},
		{errors.Join(refused, errors.New("timeout")), false}, // one of two hosts may be there
		{&pgconn.PgError{Code: "53300"}, false},
		{&pgconn.PgError{Code: "28P01"}, false},
		{&net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}, false},
		{&net.OpError{Op: "dial", Err: syscall.ENOENT}, true}, // no socket
		{net.ErrClosed, false},
	} {
		if got := nobodyThere(tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

// An answer that did not come is none: what others do meanwhile is not seen.
func TestASilentPostgreSQLGivesNoLease(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{errors.New("time-out"), false},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
	} {
		l := &WatchLease{space: &Space{}, tried: make(chan struct{})}
		l.timer = time.AfterFunc(time.Hour, func() {})
		l.conclude(time.Now(), tt.err)
		if got := l.stands.Load(); got != tt.want {
			t.Errorf("%v: a lease %v, want %v", tt.err, got, tt.want)
		}
		l.stands.Store(false)
		if l.conclude(time.Now().Add(-patience.Lease), nil); l.stands.Load() {
			t.Error("a lease from a question that was sent a lease ago")
		}
		l.timer.Stop()
	}
}
