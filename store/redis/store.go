// Package redis is the store in which processes meet: store.Shared in a Redis, a
// Redis with Sentinels or a Redis Cluster.
//
// Package invalidation explains the protocol. Here is how it is laid out in
// Redis. One hash, D, holds the epoch and all intents, so that nothing loses an
// intent and not the epoch. A lease L says until when the epoch's entries may be
// hit. Stamps and entries are plain strings with the epoch in their names:
// Redis may evict them as it likes, and when the epoch ends nobody finds them.
// All names carry the identity of the server, see node and incarnation.
//
// A hit is one MGET of lease, entry and stamps. Everything that changes more than
// one key is a script, see scripts.go.
//
// See docs/decisions/shared-store.md (D45, D48, D50, D51), docs/decisions/reads.md (D1, D2)
// and docs/decisions/write-behind.md (D57, D62, D65).
package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// Options configures a Store.
type Options struct {
	// Identity is what the cache is of: one life of a database of a PostgreSQL, in any
	// form. Stores with another one never meet.
	Identity string

	// Families name what the database has in common with what it was before
	// it moved to another server, under another Identity. Once there is a commit under
	// this one, nobody hits what was stored under the others, unless their Renew
	// says since that they are alive. At most two.
	Families []string

	// Server names the one life of the server that the database is on. Of databases
	// of one family and server only one is alive at a time. "" is unknown.
	Server string

	// Database is what the queue of writes is of: system identifier and database. Unlike
	// Identity it stays the same when the server is restarted or another is promoted.
	Database string

	// Timeout bounds one round trip. 0 is the read_timeout of the URL, or else 250ms.
	Timeout time.Duration
}

const defaultTimeout = 250 * time.Millisecond

// Store is a store.Shared in Redis. All methods are safe for concurrent use.
// None waits longer than a round trip's Timeout for a Redis that does not
// answer, or two where it takes two, and while it is known not to answer nobody waits.
type Store struct {
	target   *Target
	identity string
	families []string
	server   string
	database string
	name     string // of this Store among those that queue
	timeout  time.Duration

	sealing chan struct{} // holds one token: one at a time seals a write for the queue
	sealed  int64         // the sequence number that was given out last, guarded by sealing

	inUse   atomic.Pointer[incarnation]
	meeting chan struct{} // holds one token: one at a time connects
	breaker breaker
	ended   endedEpochs
	fills   filler
	closing atomic.Bool
	closed  atomic.Bool
	stop    context.CancelFunc
	ctx     context.Context // of what runs in the background
	group   sync.WaitGroup

	entryTTL atomic.Int64 // the longest seen, in milliseconds; stamps live longer

	trips, errors, timeouts, garbage, dropped, epochs atomic.Uint64
}

var _ store.Shared = (*Store)(nil)

// Open returns a store. It does no I/O: connections are made at first use. The
// caller no longer changes t.
func Open(t *Target, o Options) *Store {
	s := &Store{target: t, identity: o.Identity, families: o.Families, server: o.Server, database: o.Database, name: rand.Text(), timeout: o.Timeout,
		meeting: make(chan struct{}, 1), sealing: make(chan struct{}, 1)}
	if s.timeout <= 0 {
		s.timeout = cmp.Or(t.readTimeout(), defaultTimeout)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.fills.init(s)
	return s
}

// Close ends all that goes on in the background. It waits for fills that are
// under way, at most for the time-out of a round trip.
func (s *Store) Close() error {
	if s.closing.Swap(true) {
		return nil
	}
	s.fills.close(s.timeout) // these still need the rest
	s.closed.Store(true)
	s.stop()
	s.breaker.settle()
	s.retire(s.inUse.Load())
	s.group.Wait()
	s.retire(s.inUse.Load())
	return nil
}

// SharedStats implements store.Shared.
func (s *Store) SharedStats() store.SharedStats {
	stats := store.SharedStats{
		Trips: s.trips.Load(), Errors: s.errors.Load(), Timeouts: s.timeouts.Load(), Garbage: s.garbage.Load(),
		Dropped: s.dropped.Load(), Epochs: s.epochs.Load(), Down: s.breaker.down.Load(),
	}
	if list := s.Doors(); list != nil {
		stats.Closed = len(list.Relations)
	}
	return stats
}

// use runs f with the servers as they are now, a second time if they turn out
// to have been replaced: what f does can be done twice.
func (s *Store) use(ctx context.Context, f func(*incarnation) error) error {
	err := errReplaced
	for range 2 {
		var in *incarnation
		if in, err = s.connected(ctx); err == nil {
			err = f(in)
		}
		if faultOf(err) != replaced {
			break
		}
	}
	return s.outcome(err)
}

// outcome is the error that a caller sees.
func (s *Store) outcome(err error) error {
	if err != nil && s.closed.Load() {
		return store.ErrClosed
	}
	return err
}

func (s *Store) connected(ctx context.Context) (*incarnation, error) {
	switch {
	case s.closed.Load():
		return nil, store.ErrClosed
	case s.breaker.down.Load():
		return nil, s.breaker.why()
	}
	if in := s.inUse.Load(); in != nil {
		return in, nil
	}
	return s.connect(ctx, false)
}

// connect returns the incarnation in use, or makes one. Who comes while another
// is at it waits for its result and, unless he insists, does not wait again.
func (s *Store) connect(ctx context.Context, insist bool) (*incarnation, error) {
	failures := s.breaker.failures.Load()
	select {
	case s.meeting <- struct{}{}:
		defer func() { <-s.meeting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if in := s.inUse.Load(); in != nil {
		return in, nil
	}
	if !insist && s.breaker.failures.Load() != failures {
		return nil, s.breaker.why()
	}
	// Not the caller's context: its end says nothing of Redis, and others wait too.
	dial, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	in, err := s.meet(dial)
	s.count(err)
	if err != nil {
		s.trip(err)
		if faultOf(err) == replaced { // in the middle of a change: do not turn in circles
			err = s.breaker.why()
		}
		return nil, err
	}
	s.inUse.Store(in)
	if s.closed.Load() {
		s.retire(in)
		return nil, store.ErrClosed
	}
	return in, nil
}

// met counts a round trip. After an error that says so it has the server looked up anew, or left alone for a while.
func (s *Store) met(in *incarnation, err error) {
	s.count(err)
	switch faultOf(err) {
	case replaced:
		s.retire(in)
	case unreachable:
		s.trip(err)
	}
}

func (s *Store) count(err error) {
	s.trips.Add(1)
	if err == nil || goredis.HasErrorPrefix(err, noScript) { // every server's first answer
		return
	}
	s.errors.Add(1)
	if isTimeout(err) {
		s.timeouts.Add(1)
	}
}

// retire throws an incarnation away. Commands under way on it fail.
func (s *Store) retire(in *incarnation) {
	if in != nil && s.inUse.CompareAndSwap(in, nil) {
		if in.partitions[0].heard.Load() != nil && !s.closed.Load() {
			s.epochs.Add(1) // its epochs cannot be reached any more
		}
		in.close()
	}
}
