package redis

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// The list of doors is one field of D: a version, and for each relation that is not open its OID
// and its store.Door. Each change gives it another version. Whoever marks or mints meets it in
// the same step (I26); D is never lost without it.
//
// A process knows the list by the answers that it got. If it marks with an old list, the answer has
// the new one, and the process marks again.

// allDoors in place of a version says that tags of all relations are marked, whatever the list is.
const allDoors = "*"

const doorBytes = 4 + 1

// doors is the list as it was last heard of.
type doors struct {
	list atomic.Pointer[store.Doors] // nil: all are open
}

// without returns the version of the list, and the tags but for those of relations that are
// closed by it.
func (d *doors) without(tags []store.Tag) (version string, rest []store.Tag) {
	list := d.list.Load()
	if list == nil {
		return "", tags
	}
	rest = make([]store.Tag, 0, len(tags))
	for _, t := range tags {
		if list.Of(t.Relation) != store.Closed {
			rest = append(rest, t)
		}
	}
	return list.Version, rest
}

// learn reads an answer that is the list.
func (d *doors) learn(answer any) error {
	text, _ := answer.(string)
	if text == "" {
		d.list.Store(nil)
		return nil
	}
	list, ok := parseDoors(text)
	if !ok {
		return errReply
	}
	d.list.Store(list)
	return nil
}

func parseDoors(text string) (*store.Doors, bool) {
	if len(text) < epochBytes || (len(text)-epochBytes)%doorBytes != 0 {
		return nil, false
	}
	list := &store.Doors{Version: text[:epochBytes], Relations: make(map[uint32]store.Door)}
	for rest := text[epochBytes:]; rest != ""; rest = rest[doorBytes:] {
		list.Relations[binary.BigEndian.Uint32([]byte(rest))] = store.Door(rest[4])
	}
	return list, true
}

func formatDoors(version string, relations map[uint32]store.Door) string {
	b := []byte(version)
	for oid, door := range relations {
		b = append(binary.BigEndian.AppendUint32(b, oid), byte(door))
	}
	return string(b)
}

// Doors implements store.Closable.
func (s *Store) Doors() *store.Doors {
	if in := s.inUse.Load(); in != nil && len(in.partitions) == 1 {
		return in.partitions[0].doors.list.Load()
	}
	return nil
}

// useOne is use where there is one partition. In a Cluster nothing is counted, and nothing closed.
func (s *Store) useOne(ctx context.Context, f func(*partition) error) error {
	return s.use(ctx, func(in *incarnation) error {
		if len(in.partitions) != 1 {
			return nil
		}
		return f(in.partitions[0])
	})
}

// window is how long traffic is added up.
const window = 10 * time.Second

// Traffic is added up in a hash that Redis may evict: then a window is lost.
//
// KEYS: D, traffic. ARGV: length of a window in milliseconds, then for each relation its OID, commits, lookups.
// Returns the list of doors, and the traffic of the window if that is over and what was counted in
// it is more than nothing.
var countScript = newScript(`
local traffic, length = KEYS[2], tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #ARGV, 3 do
  redis.call('HINCRBY', traffic, 'c' .. ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', traffic, 'l' .. ARGV[i], ARGV[i + 2])
end
local over = {}
local began = tonumber(redis.call('HGET', traffic, 'began'))
if not began or now < began or now >= began + length then
  if began then
    redis.call('HDEL', traffic, 'began')
    over = redis.call('HGETALL', traffic)
    redis.call('DEL', traffic)
  end
  redis.call('HSET', traffic, 'began', now)
  redis.call('PEXPIRE', traffic, 10 * length)
end
return {redis.call('HGET', KEYS[1], 'doors') or '', over}
`, false)

// Count implements store.Closable.
func (s *Store) Count(ctx context.Context, traffic map[uint32]store.Traffic) (total map[uint32]store.Traffic, err error) {
	err = s.useOne(ctx, func(p *partition) error {
		argv := []any{window.Milliseconds()}
		for oid, n := range traffic {
			argv = append(argv, oid, n.Commits, n.Lookups)
		}
		reply, err := p.run(ctx, countScript, []string{p.keys[0], p.prefix + "t"}, argv...)
		if err != nil {
			return err
		}
		if len(reply) != 2 {
			return errReply
		}
		total = trafficOf(reply[1])
		return p.doors.learn(reply[0])
	})
	return total, err
}

// trafficOf reads the fields of a window, nil if there are none.
func trafficOf(reply any) map[uint32]store.Traffic {
	fields, _ := reply.([]any)
	if len(fields) == 0 {
		return nil
	}
	total := make(map[uint32]store.Traffic)
	for i := 0; i+1 < len(fields); i += 2 {
		field, _ := fields[i].(string)
		value, _ := fields[i+1].(string)
		if field == "" {
			continue
		}
		relation, err := strconv.ParseUint(field[1:], 10, 32)
		n, err2 := strconv.ParseUint(value, 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		oid := uint32(relation)
		t := total[oid]
		switch field[0] {
		case 'c':
			t.Commits = n
		case 'l':
			t.Lookups = n
		}
		total[oid] = t
	}
	return total
}

// Whether a markScript would leave out all tags and find the catalog as it was. It writes, as that does: a Redis that is
// a replica by now, and may have an old list, refuses.
//
// KEYS: D, L. ARGV: prefix, version of the list of doors, field of D of the catalog tag, its stamp.
// Returns 1 if nothing is to be marked.
var closedScript = newScript(`
local d, stem = KEYS[1], ARGV[1] .. 's'
local known = redis.call('HMGET', d, 'e', 'doors')
local e = known[1]
if not e or string.sub(known[2] or '', 1, 12) ~= ARGV[2] or redis.call('GET', KEYS[2]) ~= e or
  redis.call('GET', stem .. e .. string.sub(ARGV[3], 2)) ~= ARGV[4] then return {0} end
redis.call('PEXPIRE', d, 604800000)
return {1}
`, true)

// AllClosed implements store.Closable.
func (s *Store) AllClosed(ctx context.Context, tags []store.Tag, catalog store.Stamp) (closed bool, err error) {
	err = s.useOne(ctx, func(p *partition) error {
		list := p.doors.list.Load()
		if !list.Closed(tags) {
			return nil
		}
		if err := p.register(ctx); err != nil || p.succeeds() || p.young() > 0 {
			return err
		}
		reply, err := p.run(ctx, closedScript, p.keys[:2], p.prefix, list.Version, catalogFields[0], appendStamp(nil, catalog))
		closed = err == nil && len(reply) == 1 && reply[0] == int64(1)
		return err
	})
	return closed, err
}

// KEYS: D. ARGV: the version that is there, the list that takes its place.
// Returns the list that is there now.
var doorsScript = newScript(`
local d = KEYS[1]
local doors = redis.call('HGET', d, 'doors') or ''
if string.sub(doors, 1, 12) == ARGV[1] and redis.call('HEXISTS', d, 'e') == 1 then
  doors = ARGV[2]
  redis.call('HSET', d, 'doors', doors)
end
return {doors}
`, false)

// SetDoors implements store.Closable.
func (s *Store) SetDoors(ctx context.Context, version string, relations map[uint32]store.Door) (ok bool, err error) {
	err = s.useOne(ctx, func(p *partition) error {
		list := formatDoors(newEpoch(), relations)
		reply, err := p.run(ctx, doorsScript, p.keys[:1], version, list)
		if err != nil {
			return err
		}
		if len(reply) != 1 {
			return errReply
		}
		ok = reply[0] == list
		return p.doors.learn(reply[0])
	})
	return ok, err
}

// sweepStep is of how many keys Redis looks at the names at once, some 0.1 ms.
const sweepStep = 500

// Sweep implements store.Closable. SCAN returns what is there from its beginning to its
// end, and nothing is added: nobody mints.
func (s *Store) Sweep(ctx context.Context, relations []uint32) error {
	closing := make(map[uint32]bool, len(relations))
	for _, oid := range relations {
		closing[oid] = true
	}
	return s.useOne(ctx, func(p *partition) error {
		stem := p.prefix + "s"
		for cursor := uint64(0); ; {
			scan := goredis.NewScanCmd(ctx, nil, "SCAN", cursor, "MATCH", stem+"*", "COUNT", sweepStep)
			if err := p.pipe.do(ctx, scan); err != nil {
				return err
			}
			var keys []string
			keys, cursor = scan.Val()
			drop := []any{"DEL"}
			for _, key := range keys {
				name, ok := strings.CutPrefix(key, stem)
				if ok && len(name) == epochBytes+store.TagBytes && closing[binary.BigEndian.Uint32([]byte(name[epochBytes:]))] {
					drop = append(drop, key)
				}
			}
			if len(drop) > 1 {
				if err := p.pipe.do(ctx, goredis.NewIntCmd(ctx, drop...)); err != nil {
					return err
				}
			}
			if cursor == 0 {
				return nil
			}
			select {
			case <-time.After(time.Millisecond): // others are served meanwhile
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}
