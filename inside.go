package cachedpg

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

func init() {
	inside.Counted = func(db *sql.DB) inside.Counts {
		s := StatsOf(db)
		return inside.Counts{Hits: s.Hits, Misses: s.Misses, Others: s.Others, Bypasses: s.Bypasses}
	}
	inside.Live = func(db *sql.DB) bool {
		keeper := connectorOf(db).space().keeper
		return keeper == nil || keeper.live.Load()
	}
	inside.Pending = func(db *sql.DB) (releases int, shared bool) {
		sp := connectorOf(db).space()
		if sp == nil || sp.keeper == nil {
			return 0, false
		}
		return sp.writes.Stats().Pending, !StatsOf(db).Shared.Down
	}
	inside.Warm = func(db *sql.DB) bool { return connectorOf(db).space().before.Load().warm.Load() }
	inside.Followed = func(db *sql.DB) (lsn uint64) {
		feed := connectorOf(db).space().feed.Load()
		feed.mu.Lock()
		defer feed.mu.Unlock()
		return feed.handled
	}
	inside.Process = func(c driver.Connector, name string) { c.(*connector).process = name }
	inside.Tags = func(db *sql.DB, query string, args []driver.NamedValue) []store.Tag {
		d := connectorOf(db)
		known := d.known.Load()
		if known == nil || known.view == nil {
			return nil
		}
		text := d.plan(known.view, known.session, query)
		tags, always, _ := text.plan.ReadTags(nil, keying.Values{Literals: text.literals, Args: args})
		return tags[1:always]
	}
	inside.Catalog = func(db *sql.DB) any {
		if v := connectorOf(db).space().view.Load(); v != nil {
			return v
		}
		return nil
	}
	inside.Stamp = func(db *sql.DB) store.Stamp { return connectorOf(db).space().view.Load().catalog }
	inside.Load = func(db *sql.DB) <-chan struct{} { return connectorOf(db).space().loads.begin() }
	inside.Patience = func(db *sql.DB, d time.Duration) { connectorOf(db).readPatience = d }
	inside.Cached = func(ctx context.Context, db *sql.DB) (func() bool, error) {
		d, err := findConnector(ctx, db)
		return func() bool { return d.space() != nil }, err
	}
	inside.Inner = func(conn any) backend.Conn { return conn.(*Conn).inner }
	inside.Dial = func(ctx context.Context, c driver.Connector) (backend.Conn, error) { return c.(*connector).dial(ctx) }
	inside.Build = func(db *sql.DB, name string) { connectorOf(db).build = name }
	inside.ExplainOn = func(ctx context.Context, c any, q string) (any, error) { return c.(*Conn).explain(ctx, q, nil) }
	inside.Enter = func(db *sql.DB) (leave func()) { return connectorOf(db).space().gens.Enter() }
	inside.Abandon = func(db *sql.DB) {
		keeper := connectorOf(db).space().keeper
		keeper.cancel()
		<-keeper.done
	}
	inside.Transaction = func(conn any) (asks bool, tags *store.TagSet, snapshot *catalog.Snapshot) {
		tx := conn.(*Conn).tx
		switch {
		case tx == nil:
			return false, nil, nil
		case tx.view != nil:
			snapshot = tx.view.snapshot
		}
		return tx.asks, &tx.tags, snapshot
	}
	inside.Asks = asks
	inside.Identity = func(db *sql.DB) backend.Identity { return connectorOf(db).space().key.Identity }
	inside.Session = func(db *sql.DB) *backend.Session { return &connectorOf(db).known.Load().session.Session }
	inside.Queue = func(db *sql.DB) *behind.Queue { return connectorOf(db).behind.Load() }
	inside.Writes = func(db *sql.DB) *invalidation.Coordinator { return connectorOf(db).space().writes }
	inside.Dialled = func(c driver.Connector, wrap func(backend.Conn) backend.Conn) {
		d := c.(*connector)
		connect := d.connect
		d.connect = func(ctx context.Context, l *link) (backend.Conn, error) {
			in, err := connect(ctx, l)
			if err != nil {
				return nil, err
			}
			return wrap(in), nil
		}
	}
	inside.SetWrites = func(db *sql.DB, writes *invalidation.Coordinator) { connectorOf(db).space().writes = writes }
	inside.Store = func(db *sql.DB) store.Store { return connectorOf(db).space().store }
	inside.SetStore = func(db *sql.DB, s store.Store) { connectorOf(db).space().store = s }
	inside.Round = func(db *sql.DB) error { return connectorOf(db).space().peers.round(func() bool { return false }) }
	inside.Statements = func(db *sql.DB) (texts []string) {
		connectorOf(db).statements.All(func(_ [sha256.Size]byte, s *statementStats) bool {
			texts = append(texts, s.text)
			return true
		})
		return texts
	}
	inside.Expires = func(db *sql.DB, query, value string) (at store.Moment, ok bool) {
		rs := &connectorOf(db).space().recipes
		rs.mu.Lock()
		defer rs.mu.Unlock()
		for element := rs.order.Front(); element != nil; element = element.Next() {
			if r := element.Value.(*recipe); r.sql == query && fmt.Sprint(r.values[0].Value) == value {
				at, ok = r.expires, true
			}
		}
		return at, ok
	}
	inside.Reconfigured = func(db *sql.DB) uint64 { return connectorOf(db).space().configured.Load() }
	inside.Reconfigure = func(ctx context.Context, db *sql.DB, was, is backend.Configuration) {
		connectorOf(db).space().reconfigured(ctx, was, is)
	}
	inside.RefillTime, inside.MaxUnread = refillTime, maxUnread
}
