package redis

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// breaker keeps callers from waiting for a Redis that does not answer. The
// first failure opens it; then nobody asks Redis but one prober, until that has
// got an answer.
type breaker struct {
	down     atomic.Bool
	failures atomic.Uint64
	cause    atomic.Pointer[error] // store.ErrDown, with the last failure
	mu       sync.Mutex            // makes tripping and closing exclude each other
}

func (b *breaker) why() error {
	if err := b.cause.Load(); err != nil {
		return *err
	}
	return store.ErrDown
}

const (
	firstProbe = 50 * time.Millisecond
	lastProbe  = 2 * time.Second
)

// trip opens the breaker.
func (s *Store) trip(cause error) {
	err := fmt.Errorf("%w: %s", store.ErrDown, cause)
	s.breaker.cause.Store(&err)
	s.breaker.failures.Add(1)
	s.breaker.mu.Lock()
	defer s.breaker.mu.Unlock()
	if s.closed.Load() || s.breaker.down.Swap(true) {
		return
	}
	s.group.Go(s.probe)
}

// settle returns when nobody trips any more who has not seen that the store is
// closed: no prober begins after it.
func (b *breaker) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
}

// probe asks Redis, less and less often, until it answers.
func (s *Store) probe() {
	for wait := firstProbe; ; wait = min(2*wait, lastProbe) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
		if s.answers() {
			s.breaker.down.Store(false)
			return
		}
	}
}

// answers reports that every node answers a command that needs a working
// master. A lease that is missing is an answer.
func (s *Store) answers() bool {
	in, err := s.connect(s.ctx, false)
	if err != nil {
		return false
	}
	err = each(in.partitions, func(p *partition) error {
		_, err := p.run(s.ctx, peekScript, p.keys, newEpoch())
		if faultOf(err) == refused {
			return nil // not for a prober to judge: see Check
		}
		return err
	})
	if err != nil && s.target.ClusterOptions != nil {
		s.retire(in) // another node may own its slots by now
	}
	return err == nil
}
