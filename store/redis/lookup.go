package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if len(stamps) < len(tags) {
		return nil, store.Miss, fmt.Errorf("cachedpg: Lookup with %d tags has room for %d stamps", len(tags), len(stamps))
	}
	if err := s.fills.await(ctx, key); err != nil {
		return nil, store.Miss, err
	}
	stamps = stamps[:len(tags)]
	var entry *store.Entry
	var outcome store.Outcome
	err := s.use(ctx, func(in *incarnation) (err error) {
		entry, outcome, err = in.lookup(ctx, key, tags, stamps)
		return err
	})
	if err != nil {
		return nil, store.Miss, err
	}
	return entry, outcome, nil
}

// lookup reads what there is. The names hold the epoch that was current last
// time. If another has begun, the lease has its name, and the names are made anew.
func (in *incarnation) lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	q := question{in: in, key: key, tags: tags}
	q.split()
	for range attempts {
		if err := q.read(ctx); err != nil {
			return nil, store.Miss, err
		}
		leased, again := q.leased()
		if again {
			continue
		}
		if !leased {
			return nil, store.Miss, store.ErrCold
		}
		entry, outcome := q.entry()
		if outcome == store.Hit {
			return entry, outcome, nil
		}
		if q.key == (store.Key{}) && q.stampsInto(stamps) {
			return nil, store.Miss, nil // nobody fills that key, so there is nothing to lock
		}
		outcome, filled, err := q.mint(ctx, outcome, stamps)
		if filled {
			continue
		}
		return nil, outcome, err
	}
	return nil, store.Miss, store.ErrCold
}

// attempts bounds a lookup that meets a new epoch, and one that meets the fills of
// others again and again.
const attempts = 4

// question is a Lookup under way.
type question struct {
	in    *incarnation
	key   store.Key
	tags  []store.Tag
	parts []part // the partitions that the tags are in; home is the first
	slots []slot // by tag
	found string // the entry, as it is stored
	seen  string // its beginning, stamps included
}

// part is what is asked of one partition.
type part struct {
	*partition
	epoch string
	tags  []int // indices; nil: all of them
	count int
	entry string // the entry's name, at home
	reply []any
}

// slot is a tag's name and the stamp found there.
type slot struct{ name, stamp string }

// split finds the partitions. The one of the first relation comes first.
func (q *question) split() {
	if len(q.in.partitions) == 1 {
		q.parts = []part{{partition: q.in.partitions[0], count: len(q.tags)}}
		return
	}
	home := 0
	for _, t := range q.tags {
		if home = q.in.partitionOf(t); home != 0 {
			break
		}
	}
	q.parts = append(q.parts, part{partition: q.in.partitions[home], tags: []int{}})
	for i, t := range q.tags {
		p := q.part(q.in.partitionOf(t))
		p.tags = append(p.tags, i)
		p.count++
	}
}

func (q *question) part(index int) *part {
	for i := range q.parts {
		if q.parts[i].index == index {
			return &q.parts[i]
		}
	}
	q.parts = append(q.parts, part{partition: q.in.partitions[index], tags: []int{}})
	return &q.parts[len(q.parts)-1]
}

func (p *part) tag(i int) int {
	if p.tags == nil {
		return i
	}
	return p.tags[i]
}

// forParts runs f for every part, at the same time if there are several.
func (q *question) forParts(f func(p *part) error) error {
	if len(q.parts) == 1 {
		return f(&q.parts[0])
	}
	partitions := make([]*partition, len(q.parts))
	byPartition := make(map[*partition]*part, len(q.parts))
	for i := range q.parts {
		partitions[i] = q.parts[i].partition
		byPartition[partitions[i]] = &q.parts[i]
	}
	return each(partitions, func(p *partition) error { return f(byPartition[p]) })
}

// read asks for lease, entry and stamps, of each partition in one command, which
// Redis answers as of one moment.
func (q *question) read(ctx context.Context) error {
	if q.slots == nil {
		q.slots = make([]slot, len(q.tags))
	}
	q.name()
	return q.forParts(func(p *part) error {
		args := make([]any, 0, 3+p.count)
		args = append(args, "MGET", &p.lease)
		if p.entry != "" {
			args = append(args, &p.entry)
		}
		for i := range p.count {
			args = append(args, &q.slots[p.tag(i)].name)
		}
		cmd := goredis.NewSliceCmd(ctx, args...)
		if err := p.pipe.do(ctx, cmd); err != nil {
			return err
		}
		p.reply = cmd.Val()
		if len(p.reply) != len(args)-1 {
			return fmt.Errorf("cachedpg: Redis answers MGET of %d keys with %d values", len(args)-1, len(p.reply))
		}
		return nil
	})
}

// name forms all names, in one piece of memory. Names of an earlier attempt are
// still with the command that asked for them.
func (q *question) name() {
	size := 0
	for i := range q.parts {
		p := &q.parts[i]
		p.epoch = p.current()
		size += (p.count + 1) * (len(p.prefix) + 1 + epochBytes + max(store.TagBytes, len(q.key)))
	}
	var text strings.Builder
	text.Grow(size)
	var tag [store.TagBytes]byte
	stem := func(p *part, kind byte) {
		text.WriteString(p.prefix)
		text.WriteByte(kind)
		text.WriteString(p.epoch)
	}
	for i := range q.parts {
		p := &q.parts[i]
		if i == 0 && q.key != (store.Key{}) {
			stem(p, 'e')
			text.Write(q.key[:])
		}
		for j := range p.count {
			stem(p, 's')
			text.Write(store.AppendTag(tag[:0], q.tags[p.tag(j)]))
		}
	}
	rest := text.String()
	cut := func(n int) (name string) {
		name, rest = rest[:n], rest[n:]
		return name
	}
	for i := range q.parts {
		p := &q.parts[i]
		stem := len(p.prefix) + 1 + epochBytes
		if i == 0 && q.key != (store.Key{}) {
			p.entry = cut(stem + len(q.key))
		}
		for j := range p.count {
			q.slots[p.tag(j)].name = cut(stem + store.TagBytes)
		}
	}
}

// leased takes the answers apart and reports that the lease of every partition
// stands for the epoch that the names were formed with (I13). again: one stands for
// another epoch, which is taken into use.
func (q *question) leased() (leased, again bool) {
	leased = true
	for i := range q.parts {
		p := &q.parts[i]
		lease, _ := p.reply[0].(string)
		switch {
		case len(lease) != epochBytes, p.store.ended.has(lease):
			leased = false
		case lease != p.epoch:
			p.adopt(lease)
			again = true
		}
		values := p.reply[1:]
		if p.entry != "" {
			q.found, _ = values[0].(string)
			values = values[1:]
		}
		for j := range p.count {
			q.slots[p.tag(j)].stamp, _ = values[j].(string)
		}
	}
	return leased && !again, leased && again
}

// entry reports a Hit if each stamp that the entry was filled with stands.
func (q *question) entry() (*store.Entry, store.Outcome) {
	q.seen = q.found[:min(len(q.found), headerBytes)]
	if q.found == "" {
		return nil, store.Miss
	}
	deps, body, ok := parseEntry(q.found)
	if !ok {
		q.garbage()
		return nil, store.Miss
	}
	q.seen = q.found[:headerBytes+len(deps)]
	// An entry depends on some of the tags, in their order.
	next := 0
	for ; deps != ""; deps = deps[depBytes:] {
		tag, stamp := deps[:store.TagBytes], deps[store.TagBytes:depBytes]
		for next < len(q.slots) && q.slots[next].tag() != tag {
			next++
		}
		if next == len(q.slots) {
			return nil, store.Miss // filled by one who planned it otherwise
		}
		if q.slots[next].stamp != stamp {
			return nil, store.Stale
		}
		next++
	}
	entry, err := decodeEntry(q.found, body, q.parts[0].store.target.Sealer, q.parts[0].entry)
	if err != nil {
		q.garbage()
		return nil, store.Miss
	}
	return entry, store.Hit
}

func (s *slot) tag() string { return s.name[len(s.name)-store.TagBytes:] }

func (q *question) garbage() { q.parts[0].store.garbage.Add(1) }

// stampsInto reports that all stamps were there.
func (q *question) stampsInto(stamps []store.Stamp) bool {
	for i := range q.slots {
		if stamps[i] = stampOf(q.slots[i].stamp); stamps[i] == 0 {
			return false
		}
	}
	return true
}

// mint gives every tag a stamp that has none and no intent, and takes the fill
// lock where the entry belongs, unless it has been filled meanwhile.
func (q *question) mint(ctx context.Context, outcome store.Outcome, stamps []store.Stamp) (_ store.Outcome, filled bool, err error) {
	s := q.parts[0].store
	found := make([]string, len(q.parts))
	err = q.forParts(func(p *part) error {
		argv := make([]any, 0, 7+p.count)
		key := ""
		if p.entry != "" {
			key = string(q.key[:])
		}
		argv = append(argv, p.prefix, p.epoch, key, q.seen, s.stampTTL(), store.FillLock.Milliseconds(), s.rowStampTTL(len(q.in.partitions)))
		for i := range p.count {
			tag := store.AppendTag(make([]byte, 0, store.TagBytes+stampBytes), q.tags[p.tag(i)])
			argv = append(argv, appendStamp(tag, newStamp(p.index)))
		}
		reply, err := p.run(ctx, lookupScript, p.keys, argv...)
		if err != nil {
			return err
		}
		what, all, ok := minted(reply, p.count)
		switch {
		case what == "cold":
			return store.ErrCold
		case !ok:
			return errReply
		}
		for i := range q.parts {
			if &q.parts[i] == p {
				found[i] = what
			}
		}
		for i := range p.count {
			stamps[p.tag(i)] = stampOf(all[i*stampBytes:][:stampBytes])
		}
		return nil
	})
	if err != nil {
		return store.Miss, false, err
	}
	for i, what := range found {
		switch {
		case what == "dirty":
			outcome = store.Dirty
		case what == "busy" && outcome != store.Dirty && i == 0:
			outcome = store.Busy
		}
	}
	if outcome == store.Dirty && found[0] == "miss" {
		s.GiveUp(q.key, stamps) // another partition's tag is dirty: nobody fills
	}
	return outcome, found[0] == "again" && outcome != store.Dirty, nil
}

func minted(reply []any, count int) (what, stamps string, ok bool) {
	if len(reply) > 0 {
		what, _ = reply[0].(string)
	}
	if len(reply) > 1 {
		stamps, _ = reply[1].(string)
	}
	return what, stamps, len(stamps) == count*stampBytes && (what == "miss" || what == "busy" || what == "dirty" || what == "again")
}

var errReply = errors.New("cachedpg: an answer of Redis has an unknown form")
