// Package patience says how long the driver waits for what takes as long as PostgreSQL or the network
// likes. They are variables for tests alone, which change them before they open anything: a test that counts
// questions has to get the same number on a slow machine.
package patience

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

var (
	// Load is how long a caller waits for the catalog at most: a write, a Ping.
	Load = time.Second
	// Read is how long a read does. Reads of tests that count misses wait until it is there.
	Read = time.Duration(0)
	// Flight is how long a SELECT may take of which nothing is known before another
	// reader runs it as well.
	Flight = store.FillLock
	// Lease is store.Lease. Tests that count hits must not lose one because the machine was busy
	// for two seconds.
	Lease = store.Lease
	// Setting is how long what a session was found to be is built upon: a server that has loaded its
	// configuration again tells of few settings by itself.
	Setting = time.Minute
)

// For returns how long a caller waits, at most limit: a quarter of the time that it
// has, so that the query itself, which is sent after that, has the rest.
func For(ctx context.Context, limit time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/4)
	}
	return max(limit, 0)
}
