package cachedpg

import (
	"context"
	"sync"
)

// turnstile is a mutex for which a context ends the waiting. What is held behind it
// is asked of PostgreSQL, which a pooler may put off; a caller with a transaction open
// must not wait for that, since the pooler may be waiting for the transaction.
type turnstile struct {
	once  sync.Once
	token chan struct{}
}

// Lock waits for as long as it takes.
func (t *turnstile) Lock() { _ = t.lock(context.Background()) }

// lock waits until ctx ends. Without an error the caller has to Unlock.
func (t *turnstile) lock(ctx context.Context) error {
	t.once.Do(func() { t.token = make(chan struct{}, 1) })
	select {
	case t.token <- struct{}{}:
		return nil
	default:
	}
	select {
	case t.token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryLock reports whether it got the lock at once.
func (t *turnstile) tryLock() bool {
	t.once.Do(func() { t.token = make(chan struct{}, 1) })
	select {
	case t.token <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *turnstile) Unlock() { <-t.token }
