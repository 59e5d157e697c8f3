package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/invalidation"
)

// RelayOptions is cachedpg.RelayOptions.
type RelayOptions struct {
	Sink     invalidation.Sink
	Batch    int
	Interval time.Duration
	Problem  func(error)
}

const (
	defaultBatch    = 500
	defaultInterval = 200 * time.Millisecond

	// sinkTimeout bounds one call of Sink.Send. Meanwhile the relay's transaction is
	// open, and a store that has lost its memory waits for open transactions.
	sinkTimeout = 10 * time.Second
)

// Relay carries the outbox of the host's database, see cachedpg.Relay. Its store is shared.
func (o *Outbox) Relay(ctx context.Context, h Host, options RelayOptions) error {
	switch {
	case options.Batch < 0:
		return fmt.Errorf("cachedpg: relay: a batch of %d; must be positive", options.Batch)
	case options.Interval < 0:
		return fmt.Errorf("cachedpg: relay: an interval of %v; must be positive", options.Interval)
	}
	if options.Batch == 0 {
		options.Batch = defaultBatch
	}
	if options.Interval == 0 {
		options.Interval = defaultInterval
	}
	r := &relay{outbox: o, host: h, RelayOptions: options}
	defer r.disconnect()
	for wait := r.Interval; ; wait = min(2*wait, 5*time.Second) {
		err := r.connect(ctx)
		for err == nil {
			if err = r.round(ctx); err == nil {
				wait = r.Interval
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = Explain(err)
		o.note(err.Error())
		if h.lasts(err) {
			return err
		}
		if r.Problem != nil {
			r.Problem(err)
		}
		r.disconnect() // what is open on it is undone
		if pause.For(ctx, wait) != nil {
			return ctx.Err()
		}
	}
}

var (
	errPooled    = errors.New("cachedpg: relay: the connection is one of a pooler that keeps no session; name PostgreSQL itself in the DSN")
	errNoPrimary = errors.New("cachedpg: relay: PostgreSQL is a standby; name the primary in the DSN")
)

// lasts reports that an error does not pass by itself. A relay may be started
// before a standby is promoted, but not before the DSN is right.
func (h *Host) lasts(err error) bool {
	return pgerr.Is(err, pgerr.UndefinedTable, pgerr.UndefinedSchema, pgerr.InsufficientPrivilege) || errors.Is(err, errPooled) ||
		slices.ContainsFunc(h.Lasting, func(lasting error) bool { return errors.Is(err, lasting) })
}

// relay is one call of Relay. It has a connection of its own and goes past the
// driver, which would take what the relay deletes for a change to invalidate for.
type relay struct {
	outbox *Outbox
	host   Host
	RelayOptions

	in        *backend.Pgx
	conn      *pgx.Conn // of in
	place     *Place
	announced bool // it holds lockRelay
	looked    time.Time
}

func (r *relay) connect(ctx context.Context) error {
	in, err := r.host.Dial(ctx)
	if err != nil {
		return err
	}
	ours, ok := in.(*backend.Pgx)
	if !ok {
		_ = in.Close()
		return backend.ErrNotPgx
	}
	r.in, r.conn = ours, ours.Conn.Conn()
	s, pid, err := in.Learn(ctx)
	if err != nil {
		return err
	}
	r.place, err = r.host.Adopt(s, pid == in.PID())
	switch {
	case err != nil:
		return err
	case s.Standby:
		return errNoPrimary
	case pid != in.PID():
		return errPooled
	}
	// The table is asked for before anybody relies on this relay.
	if _, err = r.conn.Exec(ctx, "LISTEN "+channel); err == nil {
		err = r.look(ctx)
	}
	return err
}

func (r *relay) disconnect() {
	if r.in != nil {
		_ = r.in.Close()
		r.in, r.conn, r.announced = nil, nil, false
	}
	if r.place != nil {
		r.place.Leave()
		r.place = nil
	}
}

// round does what there is to do, and waits if that was not much.
func (r *relay) round(ctx context.Context) error {
	if r.place.Superseded() {
		return backend.Elsewhere{ID: r.place.ID}
	}
	down := r.place.Store.SharedStats().Down
	// Writers wait only for a relay that can help them.
	if r.announced == down {
		function := map[bool]string{true: "pg_advisory_unlock_shared", false: "pg_advisory_lock_shared"}[down]
		if _, err := r.in.Ask(ctx, guard.LockSQL(function, guard.LockRelay)); err != nil {
			return err
		}
		r.announced = !down
	}
	if !down {
		if err := r.mark(ctx); err != nil {
			return err
		}
	}
	n, err := r.deliver(ctx, !down)
	if err != nil {
		return err
	}
	if n < r.Batch || time.Since(r.looked) > time.Second {
		if err := r.look(ctx); err != nil {
			return err
		}
	}
	if n == r.Batch {
		return nil
	}
	r.outbox.note("")
	waiting, cancel := context.WithTimeout(ctx, r.Interval)
	defer cancel()
	if _, err := r.conn.WaitForNotification(waiting); err != nil && (ctx.Err() != nil || !errors.Is(waiting.Err(), context.DeadlineExceeded) || r.conn.IsClosed()) {
		return err
	}
	return nil
}

// look measures how far behind the outbox is.
func (r *relay) look(ctx context.Context) error {
	var waiting int
	var lag float64
	err := r.conn.QueryRow(ctx, "SELECT pg_catalog.count(*), coalesce(extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.min(created)), 0)::pg_catalog.float8"+
		" FROM (SELECT created FROM cachedpg.outbox WHERE problem IS NULL ORDER BY id LIMIT 10000) oldest").Scan(&waiting, &lag)
	if err != nil {
		return err
	}
	r.looked = time.Now()
	o := r.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting, o.lag = waiting, max(time.Duration(lag*float64(time.Second)), 0)
	return nil
}
