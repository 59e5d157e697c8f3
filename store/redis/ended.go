package redis

import (
	"maps"
	"sync"
	"sync/atomic"
)

// endedEpochs remembers epochs that were followed by another. No epoch returns (I12); but a
// Redis may be made to show an old one again under the same name and within its lease:
// by SWAPDB to another database and back, or by keys that are restored. Whoever has seen what
// came between believes it no more, and ends it for all.
//
// Who has seen nothing else may hit in it until then, which is until the next renewal of
// one that has. So this is no reason to swap databases under a running application.
type endedEpochs struct {
	known atomic.Pointer[map[string]struct{}] // never changed; nil is empty

	mu sync.Mutex // of those who replace it
}

// maxEnded bounds what is remembered. A lease is over long before as many have followed.
const maxEnded = 1024

func (e *endedEpochs) has(epoch string) bool {
	known := e.known.Load()
	if known == nil {
		return false
	}
	_, ended := (*known)[epoch]
	return ended
}

func (e *endedEpochs) add(epoch string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := make(map[string]struct{})
	if known := e.known.Load(); known != nil && len(*known) < maxEnded {
		maps.Copy(next, *known)
	}
	next[epoch] = struct{}{}
	e.known.Store(&next)
}

// An epoch that has come back ends, as if D had been lost: what it has of intents may not be all.
//
// KEYS: D, L. ARGV: the epoch that is to end, an epoch's id.
var endScript = newScript(`
if redis.call('HGET', KEYS[1], 'e') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'cold', '1')
  redis.call('DEL', KEYS[2])
end
return {}
`, true)
