package flight

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// Oversize remembers the keys whose result was too large to be kept, for a while: nobody
// waits for who runs such a SELECT, and nobody reads its rows into memory first to find
// out again. It needs to know nothing of writes: what it says is never wrong, only of before.
type Oversize struct {
	some atomic.Bool // there is a key, so that a process that has none needs no lock

	mu    sync.Mutex          // guards the fields below
	young map[store.Key]int64 // the size that the result was over
	old   map[store.Key]int64 // those of the time before
	since time.Time           // when young began
}

const (
	OversizeFor = time.Minute // at least, and twice that at most
	maxOversize = 4096        // keys in each of the two
)

// Add notes that the result of key was larger than size, in bytes.
func (o *Oversize) Add(key store.Key, size int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turnLocked(time.Now())
	if len(o.young) >= maxOversize {
		o.old, o.young = o.young, nil
	}
	if o.young == nil {
		o.young = make(map[store.Key]int64)
	}
	if o.young[key] < size {
		o.young[key] = size
	}
	o.some.Store(true)
}

// Has reports that the result of key was larger than size not long ago.
func (o *Oversize) Has(key store.Key, size int64) bool {
	if !o.some.Load() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turnLocked(time.Now())
	known := max(o.young[key], o.old[key])
	return known > 0 && known >= size
}

// Forget is told that the result of key is not too large any more.
func (o *Oversize) Forget(key store.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.young, key)
	delete(o.old, key)
}

func (o *Oversize) turnLocked(now time.Time) {
	switch age := now.Sub(o.since); {
	case age < OversizeFor:
		return
	case age < 2*OversizeFor:
		o.old, o.young = o.young, nil
	default:
		o.old, o.young = nil, nil
	}
	o.since = now
	o.some.Store(len(o.old) > 0)
}
