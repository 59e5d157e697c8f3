package redis

import (
	"context"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// peek is the state of a partition's epoch.
type peek struct {
	*partition
	epoch string
	cold  bool          // no lease yet
	kept  bool          // cold, and D is that of the epoch before
	left  time.Duration // of the lease
	now   int64         // milliseconds on the server's clock
	wait  int64         // milliseconds that commits have to wait
	at    time.Time     // on ours, not after that
}

// Renew implements store.Shared. In this order, which I13 and I16 need: the server's
// time, is it still the same server, does PostgreSQL agree, extend to a lease after that time.
func (s *Store) Renew(ctx context.Context, sure func(ctx context.Context, fresh store.Fresh) (bool, error)) (live bool, err error) {
	err = s.use(ctx, func(in *incarnation) error {
		live, err = in.renew(ctx, sure)
		return err
	})
	return live && err == nil, err
}

func (in *incarnation) renew(ctx context.Context, sure func(ctx context.Context, fresh store.Fresh) (bool, error)) (live bool, err error) {
	peeks, err := in.peek(ctx)
	if err != nil {
		return false, err
	}
	live = true
	var due, cold []*peek
	for _, p := range peeks {
		switch {
		case p.cold:
			cold = append(cold, p)
		case p.left < patience.Lease*2/3:
			due = append(due, p)
		}
	}
	// Apart, so that an epoch that has to wait does not end those that stand.
	if len(due) > 0 {
		left := patience.Lease
		for _, p := range due {
			left = min(left, p.left-time.Since(p.at))
		}
		yes, err := sure(ctx, store.Fresh{Left: left})
		if err != nil {
			return false, err
		}
		for _, p := range due {
			if !yes {
				live = live && time.Since(p.at) < p.left
				continue
			}
			stands, err := p.extend(ctx)
			if err != nil {
				return false, err
			}
			live = live && stands
		}
	}
	if len(cold) > 0 {
		fresh, err := freshOf(ctx, cold)
		if err != nil {
			return false, err
		}
		if yes, err := sure(ctx, fresh); err != nil || !yes {
			return false, err
		}
		for _, p := range cold {
			stands, err := p.extend(ctx)
			if err != nil {
				return false, err
			}
			live = live && stands
		}
	}
	return live, nil
}

// freshOf describes the epochs that have no lease yet as one. Writers that marked
// in some of them may have lost marks in another. If D is lost after it was read
// here, and the marks with it, the epoch is another one, which extend finds.
func freshOf(ctx context.Context, cold []*peek) (fresh store.Fresh, err error) {
	fresh.Kept = true
	var names []string
	marked := make(map[store.WriterID]int)
	lost := 0
	for _, p := range cold {
		names = append(names, p.epoch)
		if p.kept {
			continue
		}
		fresh.Kept = false
		lost++
		reply, err := p.run(ctx, writersScript, p.keys[:1])
		if err != nil {
			return fresh, err
		}
		for _, w := range writersReply(reply) {
			marked[w]++
		}
	}
	for w, n := range marked {
		if n == lost {
			fresh.Marked = append(fresh.Marked, w)
		}
	}
	fresh.Epoch = strings.Join(names, " ")
	return fresh, nil
}

func (in *incarnation) peek(ctx context.Context) ([]*peek, error) {
	peeks := make([]*peek, len(in.partitions))
	err := each(in.partitions, func(p *partition) error {
		at := time.Now()
		found, err := p.peek(ctx)
		if err == nil && p.store.ended.has(found.epoch) {
			if _, err = p.run(ctx, endScript, p.keys[:2], found.epoch, newEpoch()); err == nil {
				found, err = p.peek(ctx)
			}
		}
		if err != nil {
			return err
		}
		p.enroll(found.wait)
		found.partition, found.at = p, at
		p.hear(found.epoch)
		if !found.cold {
			p.adopt(found.epoch)
		}
		peeks[p.index] = found
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, n := range in.nodes {
		if err := n.same(ctx); err != nil {
			return nil, err
		}
	}
	return peeks, nil
}

func (p *partition) peek(ctx context.Context) (*peek, error) {
	reply, err := p.run(ctx, peekScript, p.keys, newEpoch(), p.space, hashTag(p.index)+":", newEpoch(), patience.Lease.Milliseconds(), p.store.server)
	if err != nil {
		return nil, err
	}
	found, ok := peekReply(reply)
	if !ok {
		return nil, errReply
	}
	return found, nil
}

func peekReply(reply []any) (*peek, bool) {
	if len(reply) != 5 {
		return nil, false
	}
	epoch, ok1 := reply[0].(string)
	cold, ok2 := reply[1].(int64)
	left, ok3 := reply[2].(int64)
	now, ok4 := reply[3].(int64)
	wait, ok5 := reply[4].(int64)
	return &peek{epoch: epoch, cold: cold != 0, kept: cold == 2, left: time.Duration(left) * time.Millisecond, now: now, wait: wait},
		ok1 && ok2 && ok3 && ok4 && ok5 && len(epoch) == epochBytes
}

// extend makes the lease last until a lease after the peek.
func (p *peek) extend(ctx context.Context) (stands bool, err error) {
	reply, err := p.run(ctx, extendScript, p.keys, p.epoch, p.now+patience.Lease.Milliseconds(), p.prefix, newEpoch())
	if err != nil {
		return false, err
	}
	if len(reply) != 1 {
		return false, errReply
	}
	if stands = reply[0] == int64(1); stands {
		p.adopt(p.epoch)
	}
	return stands, nil
}
