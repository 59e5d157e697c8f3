// Package inside shows tests that see the driver from outside what it tells nobody else.
// The root package and the core register it, so that the harness of the tests need not import them and tests
// in both can use the harness.
package inside

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// Counts are those of the driver's statistics that say how a query was answered.
type Counts struct {
	Hits, Misses, Fills, Others uint64
	Bypasses                    map[string]uint64
}

// What the root package registers.
var (
	// Core returns the *core.DB or *core.Conn under an *sql.DB, a driver.Connector or a driver.Conn of the driver's.
	Core func(of any) any
	// Face returns a connector for sql.OpenDB over a *core.DB.
	Face func(db any) driver.Connector
	// Cached returns how to learn whether db has a cache. That can be asked when db is closed, too.
	Cached func(ctx context.Context, db *sql.DB) (still func() bool, err error)
	// ExplainOn explains a query on a connection of the driver's, in the state that it is in. What it returns is the
	// driver's explanation.
	ExplainOn func(ctx context.Context, conn any, query string) (any, error)
)

// What the core registers. A DB is one of the driver's.
var (
	// Counted returns what has been counted so far.
	Counted func(db *sql.DB) Counts
	// Live reports that a lease stands in the store that db shares with others, or that it shares none.
	Live func(db *sql.DB) bool
	// Pending returns how many releases of commits are under way; shared is false without a shared
	// store and while it is down.
	Pending func(db *sql.DB) (releases int, shared bool)
	// Warm reports that the cache has begun, see keying.Warming.
	Warm func(db *sql.DB) bool
	// Followed returns up to which position of the log what others have committed is handled.
	Followed func(db *sql.DB) (lsn uint64)
	// Process has a connector of the driver's play another process: its cache is of its own.
	Process func(c driver.Connector, name string)
	// Tags returns the tags of what a query of db's own sessions reads, without the schema's; nil while nothing can be planned.
	Tags func(db *sql.DB, query string, args []driver.NamedValue) []store.Tag
	// Catalog stands for the catalog that is known to be current; nil while there is none. It is equal to what it
	// returned before if that is the catalog still.
	Catalog func(db *sql.DB) any
	// Load has the catalog loaded, and returns what is closed when that is over.
	Load func(db *sql.DB) <-chan struct{}
	// Patience is how long a read of db waits for the catalog from now on.
	Patience func(db *sql.DB, d time.Duration)
	// Inner returns the connection to PostgreSQL under one of the driver's; nil if there is none.
	Inner func(conn any) backend.Conn
	// Dial connects to PostgreSQL as a connector of the driver's does.
	Dial func(ctx context.Context, c driver.Connector) (backend.Conn, error)
	// Build has db play another build of the driver, whose format is its own.
	Build func(db *sql.DB, name string)
	// Asks reports that a text is one of the driver's questions.
	Asks func(text string) bool
	// Identity says of which database the cache of db is.
	Identity func(db *sql.DB) backend.Identity
	// Session is that of the connection dialled last.
	Session func(db *sql.DB) *backend.Session
	// Queue is that of strategy write-behind; nil before the database is known.
	Queue func(db *sql.DB) *behind.Queue
	// Writes are those of db's cache, also when db is closed afterwards.
	Writes func(db *sql.DB) *invalidation.Coordinator
	// Dialled has each connection of a connector of the driver's be what wrap makes of it.
	Dialled func(c driver.Connector, wrap func(backend.Conn) backend.Conn)
	// SetWrites has commits of db invalidate by another coordinator. Nobody is using db.
	SetWrites func(db *sql.DB, writes *invalidation.Coordinator)
	// Store is the store in which the entries of db are, shared or not.
	Store func(db *sql.DB) store.Store
	// SetStore has them be in another one. Nobody is using db.
	SetStore func(db *sql.DB, s store.Store)
	// Statements returns the texts that are counted by themselves, as the statistics show them.
	Statements func(db *sql.DB) (texts []string)
	// Expires is when the result ends that a commit of strategy write-through would read again; ok is false if none is
	// known for the query with this value.
	Expires func(db *sql.DB, query, value string) (at store.Moment, ok bool)
	// RefillTime is how long a commit of strategy write-through reads again, and MaxUnread how often it does so for a result that nobody asks for.
	RefillTime time.Duration
	MaxUnread  uint64
	// Enter has a statement be under way in db's cache until leave is called.
	Enter func(db *sql.DB) (leave func())
	// Abandon ends what renews the lease of db in the store that it shares.
	Abandon func(db *sql.DB)
	// Transaction returns what the commit of the open transaction of a connection of the driver's invalidates, which may
	// be changed, the catalog that it was planned with, if any, and whether it asks PostgreSQL what it is. Without a
	// transaction tags is nil.
	Transaction func(conn any) (asks bool, tags *store.TagSet, snapshot *catalog.Snapshot)
	// Peers is the *peers.Peers by which db sees other processes.
	Peers func(db *sql.DB) any
	// Space is the *space.Space that db has joined.
	Space func(db *sql.DB) any
	// Guard is the *guard.Guard over which db asks for itself.
	Guard func(db *sql.DB) any
	// Notice is the *guard.Notice of the store that db shares.
	Notice func(db *sql.DB) any
	// Reconfigured counts how often the configuration of the server was found changed.
	Reconfigured func(db *sql.DB) uint64
	// Reconfigure has it be found changed now.
	Reconfigure func(ctx context.Context, db *sql.DB, was, is backend.Configuration)
)
