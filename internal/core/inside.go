package core

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/through"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

func init() {
	inside.Counted = func(db *sql.DB) inside.Counts {
		s := dbOf(db).Stats()
		return inside.Counts{Hits: s.Hits, Misses: s.Misses, Fills: s.Fills, Others: s.Others, Bypasses: s.Bypasses}
	}
	inside.Live = func(db *sql.DB) bool {
		keeper := dbOf(db).space().Keeper
		return keeper == nil || keeper.Live.Load()
	}
	inside.Pending = func(db *sql.DB) (releases int, shared bool) {
		sp := dbOf(db).space()
		if sp == nil || sp.Keeper == nil {
			return 0, false
		}
		return sp.Writes.Stats().Pending, !dbOf(db).Stats().Shared.Down
	}
	inside.Warm = func(db *sql.DB) bool { return dbOf(db).space().Before.Load().Warm.Load() }
	inside.Followed = func(db *sql.DB) (lsn uint64) {
		return dbOf(db).space().Feed.Load().Handled()
	}
	inside.Process = func(c backend.Connector, name string) { dbOf(c).Process = name }
	inside.Tags = func(db *sql.DB, query string, args []backend.Arg) []store.Tag {
		d := dbOf(db)
		known := d.known.Load()
		if known == nil || known.view == nil {
			return nil
		}
		text := d.Plan(known.view, known.session, query)
		tags, always, _ := text.Plan.ReadTags(nil, keying.Values{Literals: text.Literals, Args: args})
		return tags[1:always]
	}
	inside.Catalog = func(db *sql.DB) any {
		if v := dbOf(db).space().View.Load(); v != nil {
			return v
		}
		return nil
	}
	inside.Load = func(db *sql.DB) <-chan struct{} { return dbOf(db).space().Loads.Begin() }
	inside.Patience = func(db *sql.DB, d time.Duration) { dbOf(db).readPatience = d }
	inside.Inner = func(conn any) backend.Conn { return inside.Core(conn).(*Conn).inner }
	inside.Dial = func(ctx context.Context, c backend.Connector) (backend.Conn, error) { return dbOf(c).dial(ctx) }
	inside.Build = func(db *sql.DB, name string) { dbOf(db).Build = name }
	inside.Enter = func(db *sql.DB) (leave func()) { return dbOf(db).space().Gens.Enter() }
	inside.Abandon = func(db *sql.DB) {
		keeper := dbOf(db).space().Keeper
		keeper.Abandon()
	}
	inside.Transaction = func(conn any) (asks bool, tags *store.TagSet, snapshot *catalog.Snapshot) {
		tx := inside.Core(conn).(*Conn).tx
		switch {
		case tx == nil:
			return false, nil, nil
		case tx.view != nil:
			snapshot = tx.view.Snapshot
		}
		return tx.asks, &tx.tags, snapshot
	}
	inside.Asks = space.Asks
	inside.Identity = func(db *sql.DB) backend.Identity { return dbOf(db).space().Key.Identity }
	inside.Session = func(db *sql.DB) *backend.Session { return &dbOf(db).known.Load().session.Session }
	inside.Queue = func(db *sql.DB) *behind.Queue { return dbOf(db).behind.Load() }
	inside.Writes = func(db *sql.DB) *invalidation.Coordinator { return dbOf(db).space().Writes }
	inside.Dialled = func(c backend.Connector, wrap func(backend.Conn) backend.Conn) {
		d := dbOf(c)
		connect := d.connect
		d.connect = func(ctx context.Context, l *link) (backend.Conn, error) {
			in, err := connect(ctx, l)
			if err != nil {
				return nil, err
			}
			return wrap(in), nil
		}
	}
	inside.SetWrites = func(db *sql.DB, writes *invalidation.Coordinator) { dbOf(db).space().Writes = writes }
	inside.Store = func(db *sql.DB) store.Store { return dbOf(db).space().Store }
	inside.SetStore = func(db *sql.DB, s store.Store) { dbOf(db).space().Store = s }
	inside.Statements = func(db *sql.DB) (texts []string) {
		dbOf(db).Statements.All(func(_ [sha256.Size]byte, s *planning.Statement) bool {
			texts = append(texts, s.Text)
			return true
		})
		return texts
	}
	inside.Expires = func(db *sql.DB, query, value string) (at store.Moment, ok bool) {
		return dbOf(db).space().Recipes.Expires(query, value)
	}
	inside.Peers = func(db *sql.DB) any { return dbOf(db).space().Peers }
	inside.Space = func(db *sql.DB) any { return dbOf(db).space() }
	inside.Guard = func(db *sql.DB) any { return dbOf(db).space().Guard }
	inside.Notice = func(db *sql.DB) any { return &dbOf(db).space().Keeper.Notice }
	inside.Reconfigured = func(db *sql.DB) uint64 { return dbOf(db).space().Configured.Load() }
	inside.Reconfigure = func(ctx context.Context, db *sql.DB, was, is backend.Configuration) {
		dbOf(db).space().Reconfigured(ctx, was, is)
	}
	inside.RefillTime, inside.MaxUnread = refillTime, through.MaxUnread
}

// dbOf is the DB under what database/sql or a face of the driver has.
func dbOf(db any) *DB { return inside.Core(db).(*DB) }
