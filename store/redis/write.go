package redis

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// Intend implements store.Store.
func (s *Store) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	_, err := s.mark(ctx, w, tags, "0", 0)
	return err
}

// Mark implements store.Shared.
func (s *Store) Mark(ctx context.Context, w store.WriterID, tags []store.Tag, catalog store.Stamp) (store.Marked, error) {
	return s.mark(ctx, w, tags, "1", catalog)
}

func (s *Store) mark(ctx context.Context, w store.WriterID, tags []store.Tag, compare string, catalog store.Stamp) (store.Marked, error) {
	var marked store.Marked
	err := s.use(ctx, func(in *incarnation) error {
		shares := in.shares(tags, compare == "1")
		found := make([]store.Marked, len(in.partitions))
		err := each(shares.partitions, func(p *partition) error {
			if err := p.register(ctx); err != nil {
				return err
			}
			c := compare
			if p.index != 0 {
				c = "0"
			}
			marks := intents{w: w, tags: shares.tags[p.index], compare: c, catalog: catalog, doors: compare == "1" && mayLeaveOut(w)}
			var err error
			found[p.index], err = p.mark(ctx, marks)
			return err
		})
		marked = found[0]
		for _, m := range found[1:] {
			marked.Schema = marked.Schema || m.Schema
			marked.Wait = max(marked.Wait, m.Wait)
			marked.Tags = append(marked.Tags, m.Tags...)
		}
		return err
	})
	return marked, err
}

// intents are what a writer marks in a partition.
type intents struct {
	w       store.WriterID
	tags    []store.Tag
	compare string // "1": the catalog tag with catalog
	catalog store.Stamp
	doors   bool // tags of relations that are closed may be left out
}

// mayLeaveOut reports that a relation which is closed does not open before the writer is over
// and on disk: it has its id, by which PostgreSQL is asked (I26).
func mayLeaveOut(w store.WriterID) bool {
	_, ok := w.Transaction()
	return ok && !w.Async()
}

// mark marks what need be marked by the list of doors that the partition has now. One that
// changes all the time is let alone.
func (p *partition) mark(ctx context.Context, marks intents) (store.Marked, error) {
	for range attempts {
		version, tags := allDoors, marks.tags
		if marks.doors {
			version, tags = p.doors.without(marks.tags)
		}
		marked, changed, err := p.markAt(ctx, marks, version, tags)
		if err != nil || !changed {
			return marked, err
		}
	}
	marked, _, err := p.markAt(ctx, marks, allDoors, marks.tags)
	return marked, err
}

// markAt marks tags, if the version of the list of doors is still this one.
func (p *partition) markAt(ctx context.Context, marks intents, version string, tags []store.Tag) (marked store.Marked, changed bool, err error) {
	argv := append(make([]any, 0, 10+len(tags)), p.prefix, newEpoch(), marks.w[:], patience.Lease.Milliseconds(), flag(p.succeeds()), marks.compare,
		appendStamp(nil, marks.catalog))
	argv = appendFields(append(append(argv, catalogFields...), version), tags...)
	reply, err := p.run(ctx, markScript, p.keys, argv...)
	if err != nil {
		return marked, false, err
	}
	if len(reply) == 1 {
		return marked, true, p.doors.learn(reply[0])
	}
	schema, wait, epoch, ok := markReply(reply)
	if !ok {
		return marked, false, errReply
	}
	p.hear(epoch)
	return store.Marked{Schema: schema != 0, Wait: max(p.young(), leaseOf(wait)), Tags: tags}, false, nil
}

func markReply(reply []any) (schema, wait int64, epoch string, ok bool) {
	if len(reply) != 3 {
		return 0, 0, "", false
	}
	schema, ok1 := reply[0].(int64)
	wait, ok2 := reply[1].(int64)
	epoch, ok3 := reply[2].(string)
	return schema, wait, epoch, ok1 && ok2 && ok3
}

// leaseOf is a wait in milliseconds, as Redis says it. Nobody has to wait longer than a
// lease, whatever somebody has written there.
func leaseOf(wait int64) time.Duration {
	return time.Duration(min(max(wait, 0), patience.Lease.Milliseconds())) * time.Millisecond
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// shares is what each partition has to do with some tags.
type shares struct {
	partitions []*partition
	tags       [][]store.Tag // by the number of the partition
}

// shares divides tags among their partitions. catalog says that the partition of the catalog
// tag has something to do in any case.
func (in *incarnation) shares(tags []store.Tag, catalog bool) shares {
	s := shares{tags: make([][]store.Tag, len(in.partitions))}
	if len(in.partitions) == 1 {
		s.tags[0] = tags
		s.partitions = in.partitions
		return s
	}
	if catalog {
		s.partitions = append(s.partitions, in.partitions[0])
	}
	for _, t := range tags {
		i := in.partitionOf(t)
		if len(s.tags[i]) == 0 && !(catalog && i == 0) {
			s.partitions = append(s.partitions, in.partitions[i])
		}
		s.tags[i] = append(s.tags[i], t)
	}
	return s
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	return s.use(ctx, func(in *incarnation) error {
		shares := in.shares(tags, false)
		if len(tags) == 0 {
			return nil
		}
		return each(shares.partitions, func(p *partition) error {
			share := shares.tags[p.index]
			argv := appendFields(append(make([]any, 0, 2+len(share)), p.prefix, w[:]), share...)
			// A write that was not marked before, such as one of cache_consistency=eventual, reaches the store first here.
			if err := p.register(ctx); err != nil {
				return err
			}
			_, err := p.run(ctx, releaseScript, p.keys, argv...)
			return err
		})
	})
}

// Writers implements store.Shared.
func (s *Store) Writers(ctx context.Context) (writers []store.WriterID, err error) {
	err = s.use(ctx, func(in *incarnation) error {
		found := make([][]any, len(in.partitions))
		err := each(in.partitions, func(p *partition) (err error) {
			found[p.index], err = p.run(ctx, writersScript, p.keys[:1])
			return err
		})
		writers = nil
		seen := make(map[store.WriterID]bool)
		for _, reply := range found {
			for _, w := range writersReply(reply) {
				if !seen[w] {
					seen[w] = true
					writers = append(writers, w)
				}
			}
		}
		return err
	})
	return writers, err
}

// writersReply reads an answer of writersScript. An id of another length is
// nobody's: it stays, and its tag with PostgreSQL.
func writersReply(reply []any) (writers []store.WriterID) {
	for _, v := range reply {
		if id, _ := v.(string); len(id) == len(store.WriterID{}) {
			writers = append(writers, store.WriterID([]byte(id)))
		}
	}
	return writers
}

// Resolve implements store.Shared.
func (s *Store) Resolve(ctx context.Context, over []store.WriterID) error {
	if len(over) == 0 {
		return nil
	}
	return s.use(ctx, func(in *incarnation) error {
		return each(in.partitions, func(p *partition) error {
			argv := []any{p.prefix}
			for i := range over {
				argv = append(argv, over[i][:])
			}
			_, err := p.run(ctx, resolveScript, p.keys[:1], argv...)
			return err
		})
	})
}
