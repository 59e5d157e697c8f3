package core

import (
	"context"
	"errors"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Where strategy "write-behind", which is package internal/behind, meets the driver.

// errNoQueue is the answer where no relation has the strategy.
var errNoQueue = errors.New("cachedpg: no relation has strategy \"write-behind\" in cache_policy, or PostgreSQL is a standby")

// TakeOverQueue makes the server the owner of the queue, see cachedpg.TakeOverQueue.
func (d *DB) TakeOverQueue(ctx context.Context) (missing int64, err error) {
	b := d.behind.Load()
	if b == nil {
		return 0, errNoQueue
	}
	return b.TakeOver(ctx)
}

// DeadLetters calls f with the writes that PostgreSQL has refused for good, in order, until it returns false.
func (d *DB) DeadLetters(ctx context.Context, f func(behind.Letter) bool) error {
	b := d.behind.Load()
	if b == nil {
		return errNoQueue
	}
	return b.Dead(ctx, f)
}

// HasQueue reports that the queue is known, as it is once a connection has been made.
func (d *DB) HasQueue() bool { return d.behind.Load() != nil }

// OnDeadLetter has f called for each queued write that PostgreSQL has refused when this process applied it. It is called
// before the first Connect.
func (d *DB) OnDeadLetter(f func(behind.Letter)) { d.deadLetter = f }

// openQueueLocked opens the queue with the first space that has a Redis.
func (d *DB) openQueueLocked(sp *space.Space) {
	shared, ok := sp.Store.(*redis.Store)
	if !ok || !d.Config.WritesBehind() || d.behind.Load() != nil {
		return
	}
	host := behind.Host{Store: shared, NewConn: d.queueConn, Relations: d.Config.Queued(), Names: config.IsNamed, Max: d.Config.QueueMax, Closed: errClosed, DeadLetter: d.deadLetter}
	d.behind.Store(behind.New(host))
}

// closeQueue is an error if something may be left in it.
func (d *DB) closeQueue() error {
	if b := d.behind.Load(); b != nil {
		return b.Close()
	}
	return nil
}

// queuesIn reports that the queue is in the store of the space.
func (d *DB) queuesIn(sp *space.Space) bool {
	b := d.behind.Load()
	return b != nil && b.Store() == sp.Store
}

// checkQueue is what a Ping says of the queue.
func (d *DB) checkQueue(ctx context.Context) error {
	if b := d.behind.Load(); b != nil {
		return b.Check(ctx)
	}
	return nil
}

func (d *DB) queueStats() (s behind.Stats) {
	if b := d.behind.Load(); b != nil {
		s = b.Stats()
	}
	return s
}

// drain applies what is queued. Whoever applies it waits for nothing.
func (c *Conn) drain(ctx context.Context, inTx bool) error {
	if b := c.d.behind.Load(); b != nil && c.whose != usedByApplier {
		return b.Drain(ctx, inTx)
	}
	return nil
}

// catchUp applies what must come before q.
func (c *Conn) catchUp(ctx context.Context, q *call) error {
	if !q.text.Queue.Drains {
		return nil
	}
	return c.drain(ctx, c.tx != nil)
}

// writeBehind queues the statement of q, if it may be. Otherwise ok is false, and
// what is in the queue has been applied.
func (c *Conn) writeBehind(ctx context.Context, q *call) (result backend.Result, ok bool, err error) {
	b := c.d.behind.Load()
	if b == nil || c.whose == usedByApplier || !q.text.Queue.Drains {
		return nil, false, nil
	}
	if q.text.Queue.Queues && c.tx == nil && c.inner.TxStatus() == 'I' && q.view != space.NoCatalog && q.session != unknownSession && !q.session.Unchecked && !c.misread && c.d.Config.Store != config.StoreOff {
		queued, err := b.Enqueue(ctx, behind.Write{SQL: q.sql, Mode: q.mode, Plan: q.text.Plan, Values: q.keyingValues(),
			Session: &q.session.Session, Settings: &q.session.Queued, Catalog: q.view.Catalog, Store: q.space.Store})
		if queued || err != nil {
			return behind.Result{}, true, err
		}
	}
	return nil, false, b.Drain(ctx, c.tx != nil)
}
