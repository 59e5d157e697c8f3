package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store/redis"
)

// catchUp applies what must come before q.
func (c *Conn) catchUp(ctx context.Context, q *call) error {
	b := c.d.behind.Load()
	if b == nil || c.applies || !q.text.drains {
		return nil
	}
	return b.drain(ctx, c.tx != nil)
}

// writeBehind queues the statement of q, if it may be. Otherwise ok is false, and
// what is in the queue has been applied.
func (c *Conn) writeBehind(ctx context.Context, q *call) (result driver.Result, ok bool, err error) {
	b := c.d.behind.Load()
	if b == nil || c.applies || !q.text.drains {
		return nil, false, nil
	}
	if !q.text.behind || c.tx != nil || c.inner.TxStatus() != 'I' || q.view == noCatalog || q.session == unknownSession || c.misread || c.d.config.Store == storeOff ||
		!q.session.mayQueue() {
		return nil, false, b.drain(ctx, c.tx != nil)
	}
	may, buf := q.text.plan.MayWait(q.keyingValues(), c.keyBuf)
	c.keyBuf = buf[:0]
	var payload string
	if may {
		payload, may = encodeQueued(q)
	}
	// The stamps are those of the call's own space: after a promotion of PostgreSQL
	// that is another one than when the queue was opened.
	queue, shared := q.space.store.(*redis.Store)
	if !may || !shared || len(payload) > maxQueued {
		return nil, false, b.drain(ctx, false)
	}
	w := redis.Write{Tags: q.text.plan.WriteTags(nil, q.keyingValues()), Catalog: q.view.catalog, Payload: payload, Server: q.session.ID.Started, Max: c.d.config.QueueMax}
	switch err := b.enqueue(ctx, queue, q.session.role(), w); {
	case isNotOwner(err): // the queue is not of the server behind this connection
		return nil, false, b.drain(ctx, false)
	case err != nil:
		return nil, true, err
	}
	return queuedResult{}, true, nil
}

// enqueue returns when Redis has the write. If Redis cannot be reached it fails: to
// run the statement on PostgreSQL now could put it before another one of the same row
// that is in the queue. If the queue is another server's it fails with an error that
// isNotOwner knows, and nothing is queued.
func (b *writeQueue) enqueue(ctx context.Context, queue *redis.Store, role string, w redis.Write) error {
	if !b.isReady(role) { // nothing is acknowledged that could not be applied
		if err := b.prepare(ctx, role); err != nil {
			return err
		}
	}
	for asked := false; ; {
		b.mu.Lock()
		w.Applied, w.Given = b.pos, b.given
		b.mu.Unlock()
		number, wait, err := queue.Enqueue(ctx, w)
		switch {
		case err == nil:
			b.queued.Add(1)
			b.gave(number)
			step.At(step.Queued)
			notify(b.soon)
			if err := sleep(ctx, wait); err != nil {
				return fmt.Errorf("cachedpg: write-behind: the write was queued, and others may not see it yet: %w", err)
			}
			return nil
		case errors.Is(err, redis.ErrNotOwner) && !asked: // it may have changed hands, or Redis has forgotten whose it is
			asked = true
			if err := b.once(ctx); err != nil && !isLockTimeout(err) && !isVictim(err) {
				return err
			}
			continue
		case errors.Is(err, redis.ErrNotOwner):
			return &notOwner{standing: foreign, reason: "the queue belongs to another server of PostgreSQL than that of this connection"}
		case errors.Is(err, redis.ErrQueueSealed):
			return errQueueSealed
		case !errors.Is(err, redis.ErrQueueFull):
			if cause := ctx.Err(); cause != nil {
				err = cause
			}
			return fmt.Errorf("cachedpg: write-behind: the write may not have been queued: %w", err)
		}
		if err := b.drain(ctx, false); err != nil {
			return fmt.Errorf("%w (cache_queue_max=%d)", err, b.d.config.QueueMax)
		}
	}
}

// isReady reports that what the role queues can be applied.
func (b *writeQueue) isReady(role string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready.Load() && b.roles[role]
}

// prepare has the role known to PostgreSQL, and makes sure that once a round has succeeded.
func (b *writeQueue) prepare(ctx context.Context, role string) error {
	b.mu.Lock()
	if _, ok := b.roles[role]; !ok && len(b.roles) >= maxRoles {
		b.mu.Unlock()
		return &notOwner{standing: foreign, reason: "more roles write to the queue than it takes"}
	} else if !ok {
		b.roles[role] = false
	}
	b.mu.Unlock()
	for !b.isReady(role) {
		err := b.await(ctx, b.want(), func() bool { return b.isReady(role) })
		if err != nil && !b.isReady(role) && !isLockTimeout(err) && !isVictim(err) {
			return err
		}
	}
	return nil
}

// gave takes notice of a sequence number that was given out.
func (b *writeQueue) gave(number int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given = max(b.given, number)
}
