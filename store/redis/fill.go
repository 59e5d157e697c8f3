package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// fills sends results to Redis behind the callers' backs.
type fills struct {
	s       *Store
	waiting atomic.Int64 // len(pending), for those who need not look

	mu      sync.Mutex // guards the fields below
	pending map[store.Key]*fill
	queue   []*fill
	bytes   int64
	workers int
	closed  bool
	done    sync.WaitGroup

	longest atomic.Int64 // TTL seen, in milliseconds
}

// fill is a result, or the end of a lock without one, on its way.
type fill struct {
	key    store.Key
	tags   []store.Tag
	stamps []store.Stamp
	entry  *store.Entry // nil: give the lock up
	ttl    time.Duration
	size   int64
	over   chan struct{}
}

const (
	maxFillers   = 2
	maxFillQueue = 1024
	maxFillBytes = 64 << 20

	// An entry without a TTL still ends: what nobody wants any more shall not
	// stay for ever in a Redis that evicts nothing.
	longestTTL = 30 * 24 * time.Hour

	// A stamp lives at least a day, and twice as long as any entry: entries end
	// before the stamps that they were filled with.
	stampLife = 24 * time.Hour
)

func (f *fills) init(s *Store) {
	f.s, f.pending = s, make(map[store.Key]*fill)
}

func (f *fills) stampMillis() int64 {
	return max(int64(stampLife/time.Millisecond), 2*f.longest.Load())
}

// Fill implements store.Store. It does not wait for Redis.
func (s *Store) Fill(_ context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	if ttl <= 0 || ttl > longestTTL {
		ttl = longestTTL
	}
	for millis := ttl.Milliseconds(); ; {
		longest := s.fills.longest.Load()
		if millis <= longest || s.fills.longest.CompareAndSwap(longest, millis) {
			break
		}
	}
	s.fills.add(&fill{key: key, tags: append([]store.Tag(nil), tags...), stamps: append([]store.Stamp(nil), stamps...), entry: entry, ttl: ttl, size: int64(entry.Size())})
	return nil
}

// GiveUp implements store.Shared.
func (s *Store) GiveUp(key store.Key, stamps []store.Stamp) {
	s.fills.add(&fill{key: key, stamps: append([]store.Stamp(nil), stamps...)})
}

// Hold implements store.Shared.
func (s *Store) Hold(ctx context.Context, key store.Key, stamps []store.Stamp) error {
	sv, err := s.servers(ctx)
	if err != nil {
		return err
	}
	if err := s.lock(ctx, sv, key, joinStamps(stamps), "hold"); err != nil {
		return s.failed(ctx, sv, err)
	}
	return nil
}

func (s *Store) lock(ctx context.Context, sv *servers, key store.Key, holds, what string) error {
	p := sv.parts[sv.home(&key)]
	e := p.epoch.Load()
	if e == nil {
		return store.ErrCold
	}
	return s.script(ctx, p, p.scripts.lock, []any{*e, string(key[:]), holds, lockMillis, what}).Err()
}

func (f *fills) add(one *fill) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if len(f.queue) >= maxFillQueue || f.bytes+one.size > maxFillBytes {
		f.s.stats.dropped.Add(1)
		return // the lock ends by itself
	}
	one.over = make(chan struct{})
	f.bytes += one.size
	f.queue = append(f.queue, one)
	if one.entry != nil {
		f.pending[one.key] = one
		f.waiting.Store(int64(len(f.pending)))
	}
	if f.workers < maxFillers {
		f.workers++
		f.done.Add(1)
		go f.work()
	}
}

func (f *fills) work() {
	defer f.done.Done()
	for {
		f.mu.Lock()
		if len(f.queue) == 0 {
			f.workers--
			f.queue = nil
			f.mu.Unlock()
			return
		}
		one := f.queue[0]
		f.queue = f.queue[1:]
		f.mu.Unlock()

		if err := f.send(one); err != nil && one.entry != nil {
			f.s.stats.dropped.Add(1)
		}

		f.mu.Lock()
		f.bytes -= one.size
		if f.pending[one.key] == one {
			delete(f.pending, one.key)
			f.waiting.Store(int64(len(f.pending)))
		}
		f.mu.Unlock()
		close(one.over)
	}
}

func (f *fills) send(one *fill) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*f.s.o.Timeout) // a large entry takes longer than a lookup
	defer cancel()
	sv := f.s.current.Load()
	if sv == nil {
		return store.ErrDown
	}
	if one.entry == nil {
		return f.s.failedFill(ctx, sv, f.s.lock(ctx, sv, one.key, joinStamps(one.stamps), "give up"))
	}
	p := sv.parts[sv.home(&one.key)]
	e := p.epoch.Load()
	if e == nil {
		return store.ErrCold
	}
	name := p.keys[2] + *e + "e" + string(one.key[:])
	value := appendValue(f.s.target.Sealer, name, one.tags, one.stamps, one.entry)
	args := []any{*e, string(one.key[:]), joinStamps(one.stamps), value, one.ttl.Milliseconds()}
	if len(sv.parts) == 1 {
		for _, t := range one.tags {
			args = append(args, field(t))
		}
	}
	return f.s.failedFill(ctx, sv, f.s.script(ctx, p, p.scripts.fill, args).Err())
}

func (s *Store) failedFill(ctx context.Context, sv *servers, err error) error {
	if err == nil {
		return nil
	}
	return s.failed(parent(ctx, err), sv, err)
}

// await returns when no fill of key by this process is under way.
func (f *fills) await(ctx context.Context, key store.Key) error {
	if f.waiting.Load() == 0 {
		return nil
	}
	f.mu.Lock()
	one := f.pending[key]
	f.mu.Unlock()
	if one == nil {
		return nil
	}
	select {
	case <-one.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close waits for what is under way, which is bounded by its time-outs.
func (f *fills) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.done.Wait()
}
