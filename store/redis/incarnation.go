package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// incarnation is the servers as they are now, each bound to one life of one
// server, and the names that go with them. When one of them turns out to be
// replaced the whole is thrown away, and the next one has new names: what the
// old one held is out of reach (I12).
type incarnation struct {
	partitions []*partition
	nodes      []*node
	close      func()
}

// partition is a part of the tags that lives on one node, with an epoch, a
// lease and intents of its own. A server by itself is one partition.
type partition struct {
	*node
	index  int
	prefix string
	space  string   // the namespace
	keys   []string // D, L, registries
	lease  string   // L

	registered atomic.Pointer[time.Time] // until when its first commits wait; nil: not yet

	epoch atomic.Pointer[string] // that the lease was last seen for; nil: not yet
	heard atomic.Pointer[string] // the last one heard of, which may be cold

	doors doors
}

// clusterPartitions are as many nodes of a Cluster as are of use, at least. All
// processes must agree on it.
const clusterPartitions = 32

// partitionOf returns where a tag lives. The schema and the catalog have
// partition 0, which every read and every write touches; in a Cluster no
// relation is there, see homeOf.
func (in *incarnation) partitionOf(t store.Tag) int {
	if t.Relation == 0 || len(in.partitions) == 1 {
		return 0
	}
	h := uint64(t.Relation) * 0x9e3779b97f4a7c15
	return 1 + int(h>>33%uint64(len(in.partitions)-1))
}

// home returns the partition of what was looked up with these stamps, or nil
// if they are not of this incarnation.
func (in *incarnation) home(stamps []store.Stamp) *partition {
	if i := homeOf(stamps); i < len(in.partitions) {
		return in.partitions[i]
	}
	return nil
}

// meet makes an incarnation of the servers that answer now.
func (s *Store) meet(ctx context.Context) (*incarnation, error) {
	in := &incarnation{}
	var err error
	switch t := s.target; {
	case t.Options != nil:
		err = in.single(ctx, s.dialNode(t.Options, in), s)
	case t.Failover != nil:
		err = in.single(ctx, s.dialFailover(t.Failover, in), s)
	case t.ClusterOptions != nil:
		err = in.cluster(ctx, s)
	default:
		err = errors.New("cachedpg: cache_store: no server is configured")
	}
	if err != nil {
		if in.close != nil {
			in.close()
		}
		return nil, err
	}
	return in, nil
}

func (in *incarnation) single(ctx context.Context, n *node, s *Store) error {
	in.close = func() { _ = n.client.Close() }
	in.nodes = []*node{n}
	if err := n.greet(ctx); err != nil {
		return err
	}
	in.add(n, s)
	return nil
}

// cluster asks for the owners of the partitions. The nodes are used directly: a
// redirect would run a command under a name that was made for another server,
// so it is an error, and the reason to ask again.
func (in *incarnation) cluster(ctx context.Context, s *Store) error {
	var mu sync.Mutex
	byClient := make(map[*goredis.Client]*node)
	own := *s.target.ClusterOptions
	s.bound(&own.DialTimeout, &own.PoolTimeout, &own.ReadTimeout, &own.WriteTimeout)
	own.NewClient = func(o *goredis.Options) *goredis.Client {
		n := s.dialNode(o, in)
		mu.Lock()
		defer mu.Unlock()
		byClient[n.client] = n
		return n.client
	}
	client := goredis.NewClusterClient(&own)
	in.close = func() { _ = client.Close() }
	greeted := make(map[*node]bool)
	for i := range clusterPartitions {
		c, err := client.MasterForKey(ctx, hashTag(i))
		if err != nil {
			return err
		}
		mu.Lock()
		n := byClient[c]
		mu.Unlock()
		if n == nil {
			return fmt.Errorf("cachedpg: cache_store: go-redis gives a node that it did not make")
		}
		if !greeted[n] {
			if err := n.greet(ctx); err != nil {
				return err
			}
			greeted[n] = true
			in.nodes = append(in.nodes, n)
		}
		in.add(n, s)
	}
	return nil
}

func (in *incarnation) add(n *node, s *Store) {
	n.mu.Lock()
	id := n.id
	n.mu.Unlock()
	p := &partition{node: n, index: len(in.partitions)}
	p.space = namespace(s.identity, id.run, id.replication)
	p.prefix = prefix(p.index, p.space)
	p.lease = p.prefix + "l"
	p.keys = []string{p.prefix + "d", p.lease}
	for _, family := range s.families {
		p.keys = append(p.keys, registry(p.index, family, id.run, id.replication))
	}
	in.partitions = append(in.partitions, p)
}

// current returns the epoch to form names with, or a blank of the same length.
func (p *partition) current() string {
	if e := p.epoch.Load(); e != nil {
		return *e
	}
	return noEpoch
}

const noEpoch = "------------"

func (p *partition) lockName(epoch string, key store.Key) string {
	return p.prefix + "f" + epoch + string(key[:])
}

func (p *partition) entryName(epoch string, key store.Key) string {
	return p.prefix + "e" + epoch + string(key[:])
}

// hear takes notice of the epoch, which an answer has named. One that has ended is
// from a late answer, or has come back, see endedEpochs.
func (p *partition) hear(epoch string) {
	old := p.heard.Load()
	if old != nil && *old == epoch || p.store.ended.has(epoch) || !p.heard.CompareAndSwap(old, &epoch) || old == nil {
		return
	}
	p.store.epochs.Add(1)
	p.store.ended.add(*old)
}

// adopt takes an epoch into use, of which a lease stands.
func (p *partition) adopt(epoch string) {
	p.hear(epoch)
	if p.current() != epoch && !p.store.ended.has(epoch) {
		p.epoch.Store(&epoch)
	}
}

// each runs f for each of the partitions, at the same time if there are several.
func each(partitions []*partition, f func(p *partition) error) error {
	if len(partitions) == 1 {
		return f(partitions[0])
	}
	errs := make([]error, len(partitions))
	var group sync.WaitGroup
	for i, p := range partitions {
		group.Go(func() { errs[i] = f(p) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
