package cachedpg

import (
	"slices"
	"sync"

	"github.com/cachedpg/cachedpg/store"
)

// flights lets concurrent identical misses share one SELECT.
//
// A read may join a flight only if its own lookup saw the same stamps
// (invariant: flights join by key and stamps). By key alone it would not be linearizable:
//
//	reader 1              writer             reader 2
//	lookup: miss
//	SELECT → old
//	                      intend, COMMIT
//	                      Commit returns
//	                                         lookup: miss (new stamps)
//	                                         joins reader 1 → old
type flights struct {
	mu    sync.Mutex // guards byKey
	byKey map[store.Key]*flight
}

// flight is one SELECT under way. Its result fields are written before done is
// closed and only read afterwards.
type flight struct {
	key    store.Key
	stamps []store.Stamp
	done   chan struct{}

	entry *store.Entry // nil when the leader failed; each follower then goes on by itself
	large bool         // the result is not worth sharing
}

// join returns the flight that a read with these stamps may share. When the
// caller leads it must call finish, whatever happens.
func (fs *flights) join(key store.Key, stamps []store.Stamp) (f *flight, leader bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byKey[key]; f != nil && slices.Equal(f.stamps, stamps) {
		return f, false
	}
	// A flight with other stamps goes on for those who joined it; later reads
	// are more likely to have the stamps seen now.
	f = &flight{key: key, stamps: slices.Clone(stamps), done: make(chan struct{})}
	if fs.byKey == nil {
		fs.byKey = make(map[store.Key]*flight)
	}
	fs.byKey[key] = f
	return f, true
}

func (fs *flights) finish(f *flight) {
	fs.mu.Lock()
	if fs.byKey[f.key] == f {
		delete(fs.byKey, f.key)
	}
	fs.mu.Unlock()
	close(f.done)
}
