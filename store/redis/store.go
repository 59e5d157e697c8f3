// Package redis is a store.Shared in Redis: one server, a Sentinel group or a
// Cluster. Redis 6.2 or newer and compatible servers will do.
//
// What the protocol needs of it is in scripts.go, the names of things in
// names.go, the life of a connection in server.go; a lookup is in this file from
// top to bottom.
package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// Options configures a Store.
type Options struct {
	// Identity is what the cache is of: stores with the same one on the same
	// server are one. Any bytes.
	Identity string

	// Timeout bounds a round trip; connecting may take four times as long. After
	// a round trip has failed nobody waits until the server answers again. 0 is 250 ms.
	Timeout time.Duration

	// Young makes commits wait while an epoch is young (I16) also on a server
	// that never had a replica: something else may have been replaced.
	Young bool
}

const defaultTimeout = 250 * time.Millisecond

// Store is a store.Shared. It connects when it is used first, and again after
// it has lost its server. All methods are safe for concurrent use.
type Store struct {
	target *Target
	o      Options

	current atomic.Pointer[servers] // nil while not connected
	line    line
	fills   fills
	stats   stats
	closed  atomic.Bool
}

var _ store.Shared = (*Store)(nil)

// Open returns a store at a target. It does no I/O.
func Open(t *Target, o Options) *Store {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	s := &Store{target: t, o: o}
	s.line.init(s)
	s.fills.init(s)
	return s
}

// Close ends what is under way and drops the connections. What is stored stays,
// for other processes.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.fills.close()
	return s.line.close()
}

// Lookup implements store.Store. A hit is one MGET for each partition that it
// touches, usually one.
func (s *Store) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if len(stamps) < len(tags) {
		return nil, store.Miss, fmt.Errorf("cachedpg: Lookup with %d tags has room for %d stamps", len(tags), len(stamps))
	}
	if s.closed.Load() {
		return nil, store.Miss, store.ErrClosed
	}
	if err := s.fills.await(ctx, key); err != nil {
		return nil, store.Miss, err
	}
	sv, err := s.servers(ctx)
	if err != nil {
		return nil, store.Miss, err
	}
	l := lookup{s: s, sv: sv, key: key, tags: tags, stamps: stamps}
	if len(sv.parts) == 1 {
		err = l.one(ctx)
	} else {
		err = l.many(ctx)
	}
	switch {
	case err != nil:
		return nil, store.Miss, s.failed(ctx, sv, err)
	case l.entry != nil:
		return l.entry, store.Hit, nil
	}
	return nil, l.outcome, nil
}

// lookup is one Lookup on its way.
type lookup struct {
	s      *Store
	sv     *servers
	key    store.Key
	tags   []store.Tag
	stamps []store.Stamp

	entry   *store.Entry
	outcome store.Outcome
}

// one is a lookup where all is in one partition.
func (l *lookup) one(ctx context.Context) error {
	p := l.sv.parts[0]
	for range 2 {
		r, err := l.get(ctx, p, l.tags, true)
		if err != nil {
			return err
		}
		if !r.current() { // others have moved to another epoch
			p.epoch.Store(&r.lease)
			continue
		}
		if l.hit(p, r.epoch, r.value, r.stamps) {
			return nil
		}
		return l.prepare(ctx, p, r.epoch, l.tags, l.stamps, l.key != store.Key{})
	}
	return store.ErrCold
}

// got is what an MGET says.
type got struct {
	epoch  string // that the names were made with
	lease  string
	value  string
	stamps func(i int) string
}

func (g *got) current() bool { return g.lease == g.epoch }

// get asks for the lease, the entry and the stamps of tags.
func (l *lookup) get(ctx context.Context, p *partition, tags []store.Tag, entry bool) (g got, err error) {
	if e := p.epoch.Load(); e != nil {
		g.epoch = *e
	}
	// All names in one allocation.
	base := p.keys[2]
	size := len(base) + len(g.epoch)
	names := make([]byte, 0, (size+fieldSize)*len(tags)+size+1+len(l.key))
	args := make([]any, 0, 3+len(tags))
	args = append(args, "mget", p.keys[1])
	var ends [16]int
	cuts := ends[:0]
	if entry {
		names = append(append(names, base...), g.epoch...)
		names = append(append(names, 'e'), l.key[:]...)
		cuts = append(cuts, len(names))
	}
	for _, t := range tags {
		names = append(append(names, base...), g.epoch...)
		names = appendField(names, t)
		cuts = append(cuts, len(names))
	}
	all, from := string(names), 0
	for _, to := range cuts {
		args = append(args, all[from:to])
		from = to
	}
	cmd := goredis.NewSliceCmd(ctx, args...)
	l.s.stats.trips.Add(1)
	if err := p.pipe.do(ctx, cmd); err != nil {
		return g, err
	}
	values := cmd.Val()
	if len(values) != len(args)-1 {
		return g, errReply
	}
	g.lease, _ = values[0].(string)
	if g.lease == "" {
		return g, store.ErrCold
	}
	values = values[1:]
	if entry {
		g.value, _ = values[0].(string)
		values = values[1:]
	}
	g.stamps = func(i int) string {
		stamp, _ := values[i].(string)
		return stamp
	}
	return g, nil
}

var errReply = errors.New("cachedpg: Redis gave a reply of another form")

// hit decodes the value if it is that of a valid entry.
func (l *lookup) hit(p *partition, epoch, value string, stampAt func(i int) string) bool {
	if value == "" {
		return false
	}
	l.outcome = store.Stale
	_, tags, _, err := split(value)
	if err != nil {
		l.garbage()
		return false
	}
	var want [fieldSize]byte
	for i := 0; i*tagSize < len(tags); i++ {
		t := tags[i*tagSize : (i+1)*tagSize]
		// Its tags are the first of those looked up, in their order; one that
		// was stored otherwise is missed.
		if i >= len(l.tags) || string(appendField(want[:0], l.tags[i])) != t[:fieldSize] || stampAt(i) != t[fieldSize:] {
			return false
		}
	}
	e, err := openValue(l.s.target.Sealer, p.keys[2]+epoch+"e"+string(l.key[:]), value)
	if err != nil {
		l.garbage()
		return false
	}
	l.entry = e
	return true
}

// garbage counts bytes that are no entry of ours: a miss.
func (l *lookup) garbage() {
	l.s.stats.garbage.Add(1)
	l.outcome = store.Miss
}

// prepare mints stamps where they are missing, and takes the lock of the fill.
func (l *lookup) prepare(ctx context.Context, p *partition, epoch string, tags []store.Tag, stamps []store.Stamp, lock bool) error {
	args := make([]any, 0, 4+2*len(tags))
	args = append(args, epoch, "", lockMillis, l.s.fills.stampMillis())
	if lock {
		args[1] = string(l.key[:])
	}
	for _, t := range tags {
		args = append(args, field(t), string(binary.BigEndian.AppendUint64(nil, newStamp())))
	}
	reply, err := l.s.script(ctx, p, p.scripts.prepare, args).Slice()
	if errors.Is(err, goredis.Nil) {
		return store.ErrCold
	}
	if err != nil {
		return err
	}
	if len(reply) != len(tags)+1 {
		return errReply
	}
	dirty := false
	for i := range tags {
		stamp, _ := reply[i].(string)
		stamps[i] = stampOf(stamp)
		dirty = dirty || stamps[i] == 0
	}
	switch busy, _ := reply[len(tags)].(int64); {
	case dirty:
		l.outcome = store.Dirty
	case busy != 0:
		l.outcome = store.Busy
	}
	return nil
}

// newStamp is random: no two processes give out the same.
func newStamp() uint64 {
	for {
		if s := rand.Uint64(); s != 0 {
			return s
		}
	}
}

const lockMillis = int64(store.FillLock / time.Millisecond)

// many is a lookup in a Cluster: the partitions are asked at the same time.
func (l *lookup) many(ctx context.Context) error {
	home := l.sv.home(&l.key)
	asks := map[int]*ask{home: {}}
	for i, t := range l.tags {
		n := l.sv.of(t)
		a := asks[n]
		if a == nil {
			a = &ask{}
			asks[n] = a
		}
		a.tags, a.at = append(a.tags, t), append(a.at, i)
	}
	where := make([]func() string, len(l.tags))
	err := inParallel(asks, func(n int, a *ask) (err error) {
		p := l.sv.parts[n]
		for range 2 {
			if a.got, err = l.get(ctx, p, a.tags, n == home); err != nil || a.got.current() {
				return err
			}
			p.epoch.Store(&a.got.lease)
		}
		return store.ErrCold
	})
	if err != nil {
		return err
	}
	for _, a := range asks {
		for j, i := range a.at {
			where[i] = func() string { return a.got.stamps(j) }
		}
	}
	p, g := l.sv.parts[home], &asks[home].got
	if l.hit(p, g.epoch, g.value, func(i int) string { return where[i]() }) {
		return nil
	}
	var mu sync.Mutex
	outcome := l.outcome
	err = inParallel(asks, func(n int, a *ask) error {
		part := lookup{s: l.s, sv: l.sv, key: l.key}
		stamps := make([]store.Stamp, len(a.tags))
		err := part.prepare(ctx, l.sv.parts[n], a.got.epoch, a.tags, stamps, false)
		mu.Lock()
		defer mu.Unlock()
		for j, i := range a.at {
			l.stamps[i] = stamps[j]
		}
		if part.outcome == store.Dirty {
			outcome = store.Dirty
		}
		return err
	})
	l.outcome = outcome
	if err != nil || outcome == store.Dirty || l.key == (store.Key{}) {
		return err
	}
	busy, err := l.s.script(ctx, p, p.scripts.lock, []any{g.epoch, string(l.key[:]), joinStamps(l.stamps[:len(l.tags)]), lockMillis, "take"}).Int()
	if busy != 0 {
		l.outcome = store.Busy
	}
	return err
}

// ask is what a lookup wants of one partition.
type ask struct {
	tags []store.Tag
	at   []int // where they are among all tags
	got  got
}

// inParallel calls f for each item and returns one of the errors.
func inParallel[T any](items map[int]T, f func(n int, item T) error) error {
	if len(items) == 1 {
		for n, item := range items {
			return f(n, item)
		}
	}
	errs := make(chan error, len(items))
	for n, item := range items {
		go func() { errs <- f(n, item) }()
	}
	var first error
	for range items {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// script runs a script on a partition. Redis forgets scripts at a restart; then
// it is told the text again.
func (s *Store) script(ctx context.Context, p *partition, script script, args []any) *goredis.Cmd {
	run := func(name, source string) *goredis.Cmd {
		all := make([]any, 0, 3+len(p.keys)+len(args))
		all = append(all, name, source, len(p.keys))
		for _, k := range p.keys {
			all = append(all, k)
		}
		cmd := goredis.NewCmd(ctx, append(all, args...)...)
		s.stats.trips.Add(1)
		if err := p.pipe.do(ctx, cmd); err != nil {
			cmd = goredis.NewCmd(ctx) // the other one may still be under way
			cmd.SetErr(err)
		}
		return cmd
	}
	cmd := run("evalsha", script.sha)
	if goredis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = run("eval", script.source)
	}
	return cmd
}
