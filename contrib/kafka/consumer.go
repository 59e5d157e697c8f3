package kafka

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second

	// pollRecords bounds what is applied at once.
	pollRecords = 1000

	// sessionTimeout is how long nobody reads what was a Consumer's that was
	// killed. Brokers allow no less than 6 s, and a pause of the process, or of its
	// network, should not move its partitions.
	sessionTimeout = 10 * time.Second
)

// Consumer applies the events of a topic to the store of a region.
type Consumer struct {
	config Config

	applied, others, unreadable atomic.Int64
	cold, errors                atomic.Int64
	lag, behind                 atomic.Int64
}

// ConsumerStats counts what a Consumer did since it was made.
type ConsumerStats struct {
	Records    int64 // read and dealt with: Applied + Others + Unreadable
	Applied    int64
	Others     int64 // of other databases
	Unreadable int64 // not a record of this package, or of a newer version of it

	// Cold counts how often everything was invalidated: at the first start of a
	// group, after an absence longer than the topic keeps records, for what could
	// not be read, and when PostgreSQL was replaced.
	Cold int64

	Errors int64 // of what is tried again: brokers, PostgreSQL, the store

	// Lag is how old the oldest event of those applied last was by then, by this
	// machine's clock and that of PostgreSQL.
	Lag time.Duration

	// Behind is how many records there were to read, after those applied last.
	Behind int64
}

// NewConsumer makes a Consumer, and does not ask anyone yet.
func NewConsumer(c Config) (*Consumer, error) {
	err := c.validate()
	if c.Group == "" {
		err = errors.Join(err, errors.New("cachedpg: kafka: Group is empty: name the region; no two stores may have one name"))
	}
	if err != nil {
		return nil, err
	}
	return &Consumer{config: c}, nil
}

// Check asks a broker for the topic. An error names the remedy. Run does
// without.
func (c *Consumer) Check(ctx context.Context) error {
	cl, err := c.config.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	return c.config.check(ctx, cl)
}

// Run applies events to the store of db until ctx ends, and returns its error. It
// returns another one if db is not of cachedpg, or PostgreSQL cannot say which
// database it is; that aside, what goes wrong is told to OnError and tried
// again, with a back-off.
//
// With a store that processes share one Run is enough, and more of them share
// the work. With a store in process memory each process needs its own.
func (c *Consumer) Run(ctx context.Context, db *sql.DB) error {
	origin, err := cachedpg.OriginOf(ctx, db)
	if err != nil {
		return err
	}
	a := &applier{consumer: c, db: db, source: origin.Source}
	group := c.config.Group
	if !origin.Shared {
		// Nobody else applies to this store, so nobody shares its group; and the
		// store begins empty, so there is nothing to go on from (K3).
		group += "-" + rand.Text()
	}
	var b backoff
	var doubts atomic.Bool
	for {
		began := time.Now()
		s := &session{consumer: c, applier: a, group: group, commits: origin.Shared, doubts: &doubts}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > maxBackoff {
			b = backoff{}
		}
		c.failed(err)
		if !b.wait(ctx) {
			return ctx.Err()
		}
	}
}

// Stats returns what the Consumer has counted.
func (c *Consumer) Stats() ConsumerStats {
	s := ConsumerStats{Applied: c.applied.Load(), Others: c.others.Load(), Unreadable: c.unreadable.Load(),
		Cold: c.cold.Load(), Errors: c.errors.Load(), Lag: time.Duration(c.lag.Load()), Behind: c.behind.Load()}
	s.Records = s.Applied + s.Others + s.Unreadable
	return s
}

func (c *Consumer) failed(err error) {
	c.errors.Add(1)
	c.tell(err)
}

func (c *Consumer) tell(err error) {
	if c.config.OnError != nil {
		c.config.OnError(err)
	}
}

// invalidateAll makes everything in the store stale that is of the database which
// db reaches now: after a failover that is another one than it reached before.
func (c *Consumer) invalidateAll(ctx context.Context, db *sql.DB) error {
	_, err := cachedpg.OriginOf(ctx, db)
	if err == nil {
		err = cachedpg.Invalidate(ctx, db)
	}
	if err != nil {
		return ours{fmt.Errorf("cachedpg: kafka: everything is to be invalidated, and is not yet: %w", err)}
	}
	c.cold.Add(1)
	return nil
}

// backoff waits longer each time.
type backoff struct{ next time.Duration }

// wait reports whether ctx goes on.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
