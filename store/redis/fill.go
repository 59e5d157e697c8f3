package redis

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

const (
	maxFills     = 4096     // waiting to be sent, unlocks included
	maxFillBytes = 32 << 20 // in them
	fillWorkers  = 8        // sending at the same time

	// An entry that has no time to live of its own gets this one: those of an epoch
	// that has ended are found by nobody, and Redis may be one that evicts nothing.
	defaultEntryTTL = 24 * time.Hour
	minStampTTL     = 24 * time.Hour

	// rowStampTTL is what a row's stamp lives from the lookup that missed on: longer than
	// the SELECT takes, if its result is to be stored. The fill makes it live as long as
	// its entry.
	rowStampTTL = time.Minute
)

// filler sends entries in the background, as many as fit. More are dropped: a
// Redis that does not keep up is not helped by memory that fills up here.
type filler struct {
	store   *Store
	waiting atomic.Int64 // len(pending), so that most lookups need no lock

	mu      sync.Mutex // guards the fields below
	queue   []*fill
	bytes   int
	workers int
	pending map[store.Key]*fill // the last of each key
	closed  bool
	empty   chan struct{} // closed when closed and no worker is left
}

// fill is an entry to be stored, or without one a lock to be given up.
type fill struct {
	key       store.Key
	abandoned bool // nobody is to take the lock for a while
	tags      []store.Tag
	stamps    []store.Stamp
	entry     *store.Entry
	ttl       time.Duration
	size      int
	done      chan struct{}
}

func (f *filler) init(s *Store) {
	f.store, f.pending, f.empty = s, make(map[store.Key]*fill), make(chan struct{})
}

// Fill implements store.Store. It returns at once; what goes wrong afterwards is counted
// as Dropped.
func (s *Store) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	// A negative ttl is an entry that has expired, and one without a stamp would
	// never be a hit.
	if ttl < 0 || key == (store.Key{}) || len(tags) > math.MaxUint16 || slices.Contains(stamps[:len(tags)], 0) {
		s.GiveUp(key, stamps)
		return nil
	}
	if ttl == 0 {
		ttl = defaultEntryTTL
	}
	f := &fill{key: key, tags: slices.Clone(tags), stamps: slices.Clone(stamps[:len(tags)]), entry: entry, ttl: ttl,
		size: entry.Size() + len(tags)*depBytes, done: make(chan struct{})}
	if !s.fills.add(f) {
		s.dropped.Add(1)
		s.GiveUp(key, stamps)
	}
	return nil
}

// Stored returns when the last entry that this process has given to Fill under key
// is in Redis, or is lost, or has taken longer than a round trip may: mostly other
// processes find it too from then on.
func (s *Store) Stored(ctx context.Context, key store.Key) error { return s.fills.await(ctx, key) }

// GiveUp implements store.Shared.
func (s *Store) GiveUp(key store.Key, stamps []store.Stamp) {
	if key != (store.Key{}) {
		s.fills.add(&fill{key: key, stamps: slices.Clone(stamps)})
	}
}

// Abandon implements store.Shared.
func (s *Store) Abandon(key store.Key, stamps []store.Stamp) {
	if key != (store.Key{}) {
		s.fills.add(&fill{key: key, stamps: slices.Clone(stamps), abandoned: true})
	}
}

// Hold implements store.Shared.
func (s *Store) Hold(ctx context.Context, key store.Key, stamps []store.Stamp) error {
	return s.use(ctx, func(in *incarnation) error {
		p := in.home(stamps)
		if p == nil {
			return nil
		}
		_, err := p.run(ctx, holdScript, []string{p.lockName(p.current(), key)}, lockOf(p.index, stamps), store.FillLock.Milliseconds())
		return err
	})
}

func (f *filler) add(one *fill) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Unlocks are small and worth more than fills: they have room where these have not.
	if f.closed || len(f.queue) >= maxFills || one.entry != nil && (f.bytes+one.size > maxFillBytes || len(f.queue) >= maxFills/2) {
		return false
	}
	f.queue = append(f.queue, one)
	f.bytes += one.size
	if one.entry != nil {
		f.pending[one.key] = one
		f.waiting.Store(int64(len(f.pending)))
	}
	if f.workers < fillWorkers {
		f.workers++
		go f.work()
	}
	return true
}

// await waits until a fill of the key that has begun is over, so that a process
// finds what it has stored; but not for longer than for an answer of Redis.
func (f *filler) await(ctx context.Context, key store.Key) error {
	if f.waiting.Load() == 0 {
		return nil
	}
	f.mu.Lock()
	one := f.pending[key]
	f.mu.Unlock()
	if one == nil {
		return nil
	}
	timer := time.NewTimer(f.store.timeout)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (f *filler) work() {
	for one := f.next(); one != nil; one = f.next() {
		stored := f.store.send(one)
		if one.entry == nil {
			continue
		}
		if !stored {
			f.store.dropped.Add(1)
		}
		f.mu.Lock()
		if f.pending[one.key] == one {
			delete(f.pending, one.key)
			f.waiting.Store(int64(len(f.pending)))
		}
		f.mu.Unlock()
		close(one.done)
	}
}

func (f *filler) next() *fill {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		f.queue = nil
		f.workers--
		if f.closed && f.workers == 0 {
			close(f.empty)
		}
		return nil
	}
	one := f.queue[0]
	f.queue[0] = nil
	f.queue = f.queue[1:]
	f.bytes -= one.size
	return one
}

// close takes no more, and waits for what there is.
func (f *filler) close(timeout time.Duration) {
	f.mu.Lock()
	f.closed = true
	if f.workers == 0 {
		close(f.empty)
	}
	f.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-f.empty:
		return
	case <-timer.C:
	}
	f.mu.Lock()
	rest := f.queue
	f.queue = nil
	for _, one := range rest {
		if one.done != nil {
			close(one.done)
		}
	}
	f.mu.Unlock()
}

// send stores the entry and gives up the lock, in one round trip.
//
// The names are those of the epoch of now. If it is not the one that the stamps
// were minted in, they do not stand in it and nothing is stored.
func (s *Store) send(one *fill) (stored bool) {
	err := s.use(s.ctx, func(in *incarnation) error {
		p := in.home(one.stamps)
		if p == nil {
			return nil
		}
		epoch, lock := p.current(), lockOf(p.index, one.stamps)
		switch {
		case one.abandoned:
			_, err := p.runIn(s.ctx, &p.fills, abandonScript, []string{p.lockName(epoch, one.key)}, lock, store.FillLock.Milliseconds())
			return err
		case one.entry == nil:
			return p.unlock(epoch, one.key, lock)
		}
		s.saw(one.ttl)
		name := p.entryName(epoch, one.key)
		value := encodeEntry(one.entry, one.tags, one.stamps, s.target.Sealer, name)
		argv := []any{p.prefix, epoch, lock, value, milliseconds(one.ttl)}
		for i, t := range one.tags {
			if in.partitionOf(t) == p.index {
				argv = append(argv, appendStamp(store.AppendTag(nil, t), one.stamps[i]))
			}
		}
		_, err := p.runIn(s.ctx, &p.fills, fillScript, []string{name, p.lockName(epoch, one.key)}, argv...)
		if faultOf(err) == refused {
			_ = p.unlock(epoch, one.key, lock) // Redis may be too full for the one and not for the other
		}
		return err
	})
	return err == nil
}

func (p *partition) unlock(epoch string, key store.Key, lock string) error {
	_, err := p.runIn(p.store.ctx, &p.fills, unlockScript, []string{p.lockName(epoch, key)}, lock)
	return err
}

// milliseconds rounds up: an entry of less than one is one that expires.
func milliseconds(d time.Duration) int64 {
	return max(1, int64((d+time.Millisecond-1)/time.Millisecond))
}

// saw remembers the longest life of an entry. A stamp that ends before its
// entries wastes them.
func (s *Store) saw(ttl time.Duration) {
	for ms := milliseconds(ttl); ; {
		old := s.entryTTL.Load()
		if ms <= old || s.entryTTL.CompareAndSwap(old, ms) {
			return
		}
	}
}

// A stamp may end at any time, like one that is evicted: the next is a new one, so what
// was filled with it is never valid again (I6, I7). How long it lives is a matter of
// waste alone: of entries if that is short, and of memory if it is long. There are few of
// the schema and of tables, and every entry depends on them: they live long. Those
// of rows are as many as rows were read.

// stampTTL is the life of a stamp of the schema or a table, in milliseconds.
func (s *Store) stampTTL() int64 {
	return max(minStampTTL.Milliseconds(), 2*s.entryTTL.Load())
}

// rowStampTTL is the life of a row's stamp before an entry is filled with it, in
// milliseconds. A fill reaches the stamps of its own partition only.
func (s *Store) rowStampTTL(partitions int) int64 {
	ttl := rowStampTTL.Milliseconds()
	if partitions > 1 {
		ttl += s.entryTTL.Load()
	}
	return ttl
}
