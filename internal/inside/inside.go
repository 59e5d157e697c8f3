// Package inside shows tests that see the driver from outside what it tells nobody else.
// The root package registers it, so that the harness of the tests need not import it and tests
// in the root package can use the harness.
package inside

import (
	"database/sql"
	"database/sql/driver"
)

// Counts are those of the driver's statistics that say how a query was answered.
type Counts struct {
	Hits, Misses, Others uint64
	Bypasses             map[string]uint64
}

// What the root package registers. A DB is one of the driver's.
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
)
