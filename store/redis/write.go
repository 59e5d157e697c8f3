package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

var (
	schemaTag  = store.Tag{Kind: store.TagSchema}
	catalogTag = store.Tag{Kind: store.TagCatalog}
)

// Intend implements store.Store.
func (s *Store) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	_, err := s.mark(ctx, w, tags, "-")
	return err
}

// Mark implements store.Shared.
func (s *Store) Mark(ctx context.Context, w store.WriterID, tags []store.Tag, catalog store.Stamp) (store.Marked, error) {
	return s.mark(ctx, w, tags, string(appendStamp(nil, catalog)))
}

// mark is one round trip to each partition, at the same time.
func (s *Store) mark(ctx context.Context, w store.WriterID, tags []store.Tag, catalog string) (marked store.Marked, err error) {
	fields := func(p *partition, first bool) []any {
		check := "-"
		if first {
			check = catalog
		}
		return []any{newEpoch(), string(w[:]), check, field(catalogTag), field(schemaTag)}
	}
	ages := make(chan int64, clusterPartitions)
	moved := make(chan bool, clusterPartitions)
	err = s.write(ctx, tags, catalog != "-", fields, func(p *partition) script { return p.scripts.mark }, func(p *partition, reply []any) error {
		if len(reply) != 2 {
			return errReply
		}
		m, _ := reply[0].(int64)
		age, _ := reply[1].(int64)
		moved <- m == 1
		if p.young {
			ages <- age
		}
		return nil
	})
	close(ages)
	close(moved)
	for m := range moved {
		marked.Schema = marked.Schema || m
	}
	for age := range ages {
		marked.Wait = max(marked.Wait, time.Duration(leaseMillis-age)*time.Millisecond)
	}
	return marked, err
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	return s.write(ctx, tags, false, func(*partition, bool) []any { return []any{string(w[:])} },
		func(p *partition) script { return p.scripts.release }, nil)
}

// write runs a script with the tags of each partition that has some, and of the
// first one in any case if first is set.
func (s *Store) write(ctx context.Context, tags []store.Tag, first bool, args func(p *partition, first bool) []any,
	which func(*partition) script, reply func(*partition, []any) error) error {
	sv, err := s.servers(ctx)
	if err != nil {
		return err
	}
	fields := make(map[int][]any)
	if first {
		fields[0] = nil
	}
	for _, t := range tags {
		n := sv.of(t)
		fields[n] = append(fields[n], field(t))
	}
	if len(fields) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	err = inParallel(fields, func(n int, fields []any) error {
		p := sv.parts[n]
		cmd := s.script(ctx, p, which(p), append(args(p, n == 0), fields...))
		if reply == nil {
			return cmd.Err()
		}
		values, err := cmd.Slice()
		if err != nil {
			return err
		}
		return reply(p, values)
	})
	if err != nil {
		return s.failed(parent(ctx, err), sv, err)
	}
	return nil
}

// parent hides the end of a context that is our own time-out.
func parent(ctx context.Context, err error) context.Context {
	if errors.Is(err, context.DeadlineExceeded) {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// Writers implements store.Shared.
func (s *Store) Writers(ctx context.Context) ([]store.WriterID, error) {
	sv, err := s.servers(ctx)
	if err != nil {
		return nil, err
	}
	var writers []store.WriterID
	seen := make(map[store.WriterID]bool)
	for _, p := range sv.parts {
		s.stats.trips.Add(1)
		all, err := p.client.HGetAll(ctx, p.keys[0]).Result()
		if err != nil {
			return nil, s.failed(ctx, sv, err)
		}
		for field, ids := range all {
			if len(field) != fieldSize || field[0] != 't' {
				continue
			}
			for ; len(ids) >= len(store.WriterID{}); ids = ids[len(store.WriterID{}):] {
				if w := store.WriterID([]byte(ids[:len(store.WriterID{})])); !seen[w] {
					seen[w] = true
					writers = append(writers, w)
				}
			}
		}
	}
	return writers, nil
}

// Resolve implements store.Shared.
func (s *Store) Resolve(ctx context.Context, over []store.WriterID) error {
	sv, err := s.servers(ctx)
	if err != nil {
		return err
	}
	ids := make([]any, len(over))
	for i, w := range over {
		ids[i] = string(w[:])
	}
	for _, p := range sv.parts {
		if err := s.script(ctx, p, p.scripts.resolve, ids).Err(); err != nil {
			return s.failed(ctx, sv, err)
		}
	}
	return nil
}

// Renew implements store.Shared.
func (s *Store) Renew(ctx context.Context, sure func(ctx context.Context, fresh string) (bool, error)) (bool, error) {
	sv, err := s.servers(ctx)
	if err != nil {
		return false, err
	}
	live, err := s.renew(ctx, sv, sure)
	if err != nil {
		return false, err
	}
	return live, nil
}

// standing is how the lease of a partition stands.
type standing struct {
	epoch string
	cold  bool
	left  int64 // milliseconds
	now   int64 // the server's clock
}

func (s *Store) renew(ctx context.Context, sv *servers, sure func(ctx context.Context, fresh string) (bool, error)) (live bool, err error) {
	stands := make([]standing, len(sv.parts))
	live, due, fresh := true, false, ""
	for i, p := range sv.parts {
		st, err := s.peek(ctx, p)
		if err != nil {
			return false, s.failed(ctx, sv, err)
		}
		if old := p.epoch.Swap(&st.epoch); old != nil && *old != st.epoch {
			s.stats.epochs.Add(1)
		}
		if st.cold {
			fresh += st.epoch
		}
		live = live && !st.cold
		due = due || st.left < leaseMillis*2/3
		stands[i] = st
	}
	if !due {
		return live, nil
	}
	// The server's clock was read first: if it is who it was after that, and
	// nobody commits past it after that, a lease counted from that time is good.
	seen := make(map[*goredis.Client]bool)
	for _, p := range sv.parts {
		if !seen[p.client] {
			seen[p.client] = true
			s.stats.trips.Add(1)
			if err := p.same(ctx); err != nil {
				return false, s.failed(ctx, sv, err)
			}
		}
	}
	if ok, err := sure(ctx, fresh); err != nil || !ok {
		return live, err
	}
	live = true
	for i, p := range sv.parts {
		st := &stands[i]
		first := 0
		if st.cold {
			first = 1
		}
		stood, err := s.script(ctx, p, p.scripts.extend, []any{st.epoch, st.now + leaseMillis, first}).Int()
		if err != nil {
			return false, s.failed(ctx, sv, err)
		}
		live = live && stood == 1
	}
	return live, nil
}

func (s *Store) peek(ctx context.Context, p *partition) (st standing, err error) {
	reply, err := s.script(ctx, p, p.scripts.peek, []any{newEpoch()}).Slice()
	if err != nil {
		return st, err
	}
	if len(reply) != 4 {
		return st, errReply
	}
	st.epoch, _ = reply[0].(string)
	cold, _ := reply[1].(int64)
	st.cold = cold != 0
	st.left, _ = reply[2].(int64)
	st.now, _ = reply[3].(int64)
	return st, nil
}

// Check implements store.Shared. It tries what the store needs: a script, and
// names of our own.
func (s *Store) Check(ctx context.Context) error {
	sv, err := s.servers(ctx)
	if err != nil {
		return err
	}
	for _, p := range sv.parts {
		if _, err := s.peek(ctx, p); err != nil {
			return s.failed(ctx, sv, fmt.Errorf("cache_store: %w", err))
		}
	}
	return nil
}
