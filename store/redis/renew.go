package redis

import (
	"context"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// peek is the state of a partition's epoch.
type peek struct {
	*partition
	epoch string
	cold  bool
	left  time.Duration // of the lease
	now   int64         // milliseconds on the server's clock
	at    time.Time     // on ours, not after that
}

// Renew implements store.Shared. In this order, which I13 and I16 need: the server's
// time, is it still the same server, does PostgreSQL agree, extend to a lease after that time.
func (s *Store) Renew(ctx context.Context, sure func(ctx context.Context, fresh string) (bool, error)) (live bool, err error) {
	err = s.use(ctx, func(in *incarnation) error {
		live, err = in.renew(ctx, sure)
		return err
	})
	return live && err == nil, err
}

func (in *incarnation) renew(ctx context.Context, sure func(ctx context.Context, fresh string) (bool, error)) (live bool, err error) {
	peeks, err := in.peek(ctx)
	if err != nil {
		return false, err
	}
	live = true
	var due, cold []*peek
	var fresh []string
	for _, p := range peeks {
		switch {
		case p.cold:
			cold = append(cold, p)
			fresh = append(fresh, p.epoch)
		case p.left < store.Lease*2/3:
			due = append(due, p)
		}
	}
	// Apart, so that an epoch that has to wait does not end those that stand.
	if len(due) > 0 {
		yes, err := sure(ctx, "")
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
		if yes, err := sure(ctx, strings.Join(fresh, " ")); err != nil || !yes {
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

func (in *incarnation) peek(ctx context.Context) ([]*peek, error) {
	peeks := make([]*peek, len(in.partitions))
	err := each(in.partitions, func(p *partition) error {
		at := time.Now()
		reply, err := p.run(ctx, peekScript, p.keys, newEpoch())
		if err != nil {
			return err
		}
		found, ok := peekReply(reply)
		if !ok {
			return errReply
		}
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

func peekReply(reply []any) (*peek, bool) {
	if len(reply) != 4 {
		return nil, false
	}
	epoch, ok1 := reply[0].(string)
	cold, ok2 := reply[1].(int64)
	left, ok3 := reply[2].(int64)
	now, ok4 := reply[3].(int64)
	return &peek{epoch: epoch, cold: cold != 0, left: time.Duration(left) * time.Millisecond, now: now},
		ok1 && ok2 && ok3 && ok4 && len(epoch) == epochBytes
}

// extend makes the lease last until a lease after the peek.
func (p *peek) extend(ctx context.Context) (stands bool, err error) {
	reply, err := p.run(ctx, extendScript, p.keys, p.epoch, p.now+store.Lease.Milliseconds())
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
