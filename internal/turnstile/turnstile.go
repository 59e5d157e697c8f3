// Package turnstile is a mutex for which a context ends the waiting.
package turnstile

import (
	"context"
	"sync"
)

// Mutex is a mutex for which a context ends the waiting. What is asked of PostgreSQL
// while it is locked a pooler may put off; a caller with a transaction open
// must not wait for that, since the pooler may be waiting for the transaction. The zero value is unlocked.
type Mutex struct {
	once  sync.Once
	token chan struct{}
}

// Lock waits for as long as it takes.
func (t *Mutex) Lock() { _ = t.LockContext(context.Background()) }

// LockContext waits until ctx ends. Without an error the caller has to Unlock.
func (t *Mutex) LockContext(ctx context.Context) error {
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

// TryLock reports whether it got the lock at once.
func (t *Mutex) TryLock() bool {
	t.once.Do(func() { t.token = make(chan struct{}, 1) })
	select {
	case t.token <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *Mutex) Unlock() { <-t.token }
