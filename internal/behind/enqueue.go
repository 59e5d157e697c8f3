package behind

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Write is a write on its way into the queue, outside of any transaction.
type Write struct {
	SQL      string
	Mode     pgx.QueryExecMode
	Plan     *keying.Plan
	Values   keying.Values // Args are those that PostgreSQL is to get
	Session  *backend.Session
	Settings *Settings   // of Session, if somebody keeps them
	Catalog  store.Stamp // of the catalog tag when Plan was made
	Store    store.Store // whose stamps the readers look at
}

// Enqueue queues the write. It is false if the write may not be queued, or not here: then it has to run on
// PostgreSQL, after a Drain. After an error it may have been queued, and must not run.
func (b *Queue) Enqueue(ctx context.Context, w Write) (queued bool, err error) {
	of := w.Settings.of(w.Session)
	if !of.readable {
		return false, nil
	}
	may, _ := w.Plan.MayWait(w.Values, nil)
	var payload string
	if may {
		payload, may = w.encode(of.text)
	}
	// The stamps are those of the write's own space: after a promotion of PostgreSQL
	// that is another one than when the queue was opened.
	queue, shared := w.Store.(*redis.Store)
	if !may || !shared || len(payload) > MaxEntry {
		return false, nil
	}
	err = b.enqueue(ctx, queue, of.role, redis.Write{Tags: w.Plan.WriteTags(nil, w.Values), Catalog: w.Catalog, Payload: payload,
		Server: w.Session.ID.Started, Max: b.host.Max})
	if IsNotOwner(err) { // the queue is not of the server behind this connection
		return false, nil
	}
	return err == nil, err
}

// encode gives the entry of the write.
func (w *Write) encode(settings string) (payload string, ok bool) {
	e := Entry{SQL: w.SQL, Mode: int32(w.Mode), Settings: settings}
	for _, v := range w.Values.Args {
		if v.Name != "" {
			return "", false
		}
		e.Args = append(e.Args, v.Value)
	}
	return e.Encode()
}

// enqueue returns when Redis has the write. If Redis cannot be reached it fails: to
// run the statement on PostgreSQL now could put it before another one of the same row
// that is in the queue. If the queue is another server's it fails with an error that
// IsNotOwner knows, and nothing is queued.
func (b *Queue) enqueue(ctx context.Context, queue *redis.Store, role string, w redis.Write) error {
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
			pause.End(b.soon)
			if err := pause.For(ctx, wait); err != nil {
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
			return &notOwner{standing: Foreign, reason: "the queue belongs to another server of PostgreSQL than that of this connection"}
		case errors.Is(err, redis.ErrQueueSealed):
			return errSealed
		case !errors.Is(err, redis.ErrQueueFull):
			if cause := ctx.Err(); cause != nil {
				err = cause
			}
			return fmt.Errorf("cachedpg: write-behind: the write may not have been queued: %w", err)
		}
		if err := b.Drain(ctx, false); err != nil {
			return fmt.Errorf("%w (cache_queue_max=%d)", err, b.host.Max)
		}
	}
}

// isReady reports that what the role queues can be applied.
func (b *Queue) isReady(role string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready.Load() && b.roles[role]
}

// prepare has the role known to PostgreSQL, and makes sure that once a round has succeeded.
func (b *Queue) prepare(ctx context.Context, role string) error {
	b.mu.Lock()
	if _, ok := b.roles[role]; !ok && len(b.roles) >= maxRoles {
		b.mu.Unlock()
		return &notOwner{standing: Foreign, reason: "more roles write to the queue than it takes"}
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
