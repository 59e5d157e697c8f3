package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// A queue is a stream of writes that PostgreSQL has yet to be told. Unlike
// everything else here it is no cache: its names hold neither the life of the
// server nor an epoch, so that a server which restarts with its append-only file, or
// a replica that is promoted, goes on with it:
//
//	cachedpg:{p0}:queue:database       the stream
//	cachedpg:{p0}:queue:database:dead  those that PostgreSQL has refused
//	cachedpg:{p0}:queue:database:n…    that a write was queued, for a minute
//	cachedpg:{p0}:queue:database:look  that somebody has looked, see lastScript
//
// A Cluster has tags on other nodes than the stream, and no step of Redis'
// reaches both, so it has no queue.

// ErrQueueFull is what Enqueue answers when the queue has as many entries as it may.
var ErrQueueFull = errors.New("cachedpg: the queue of writes is full")

// ErrNoQueue is what a Redis Cluster answers.
var ErrNoQueue = errors.New("cachedpg: strategy \"write-behind\" needs one Redis, or one with Sentinels: a Cluster cannot queue a write and invalidate its tags in one step")

// Queued is an entry of the queue.
type Queued struct {
	ID      string // of the stream: "milliseconds-number", in order
	Payload string
}

// Refused is an entry that PostgreSQL has refused for good.
type Refused struct {
	ID       string `json:"id"`
	SQLState string `json:"sqlstate"`
	Message  string `json:"message"`
}

// In one step nobody hits an entry that depends on one of the tags any more,
// and the write is in the queue. A reader whose lookup came before has a stamp that
// is dead; one whose lookup comes after finds the write in the queue. If D is lost
// there is no entry to be hit, see releaseScript.
//
// A call that is repeated because its answer did not arrive finds its nonce.
//
// An id that is not behind what PostgreSQL has applied would be taken for applied: a
// server that was promoted may lack the last ids, and be late by the clock.
//
// While readers may have a lease of a server that was replaced, the caller waits
// before he tells of the write (I16).
//
// KEYS: D, L, stream, nonce. ARGV: prefix, most entries, payload, catalog tag, its
// stamp, schema tag, milliseconds and number of the last id known to be applied,
// lease in milliseconds, 1 if the server may just have taken another's place, then the tags.
// Returns 'ok' and how long to wait, or 'full'.
var enqueueScript = newScript(`
local d, stream, nonce, prefix = KEYS[1], KEYS[3], KEYS[4], ARGV[1]
local wait, e = 0, redis.call('HGET', d, 'e')
if ARGV[10] == '1' then
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local age = now - (tonumber(e and redis.call('HGET', d, 'born')) or now)
  wait = math.max(0, math.min(ARGV[9], ARGV[9] - age))
end
if redis.call('EXISTS', nonce) == 1 then return {'ok', wait} end
if redis.call('XLEN', stream) >= tonumber(ARGV[2]) then return {'full'} end
local id = redis.call('XADD', stream, '*', 'w', ARGV[3])
local ms, n = string.match(id, '(%d+)-(%d+)')
ms, n = tonumber(ms), tonumber(n)
local toMs, toN = tonumber(ARGV[7]), tonumber(ARGV[8])
if ms < toMs or ms == toMs and n <= toN then
  redis.call('XDEL', stream, id)
  redis.call('XADD', stream, string.format('%.0f-%.0f', toMs, toN + 1), 'w', ARGV[3])
end
redis.call('SET', nonce, '', 'PX', 60000)
if not e then
  redis.call('DEL', KEYS[2])
  return {'ok', wait}
end
for i = 11, #ARGV do redis.call('DEL', prefix .. 's' .. e .. ARGV[i]) end
if redis.call('HEXISTS', d, 't' .. ARGV[4]) == 1 or redis.call('GET', prefix .. 's' .. e .. ARGV[4]) ~= ARGV[5] then
  redis.call('DEL', prefix .. 's' .. e .. ARGV[6])
end
return {'ok', wait}
`, false)

// The last of the queue. What a server has to say that was replaced by another is
// worth nothing, and it knows nothing of that. While a lease stands it is good, because
// who writes to the successor waits for that long; after that the server has to take
// a write first, which one that is a replica now, or has lost its own, refuses.
//
// KEYS: L, stream, a name for the write.
// Returns the id, or nothing when the queue is empty.
var lastScript = newScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[3], '', 'PX', 1000) end
local found = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if #found == 0 then return {} end
return {found[1][1]}
`, true)

// What PostgreSQL has applied leaves the queue, and what it has refused goes to the
// dead. That an entry is still there is what makes it happen once.
//
// KEYS: stream, dead. ARGV: the last id applied, the one after, then id, code and
// message of each that was refused.
var appliedScript = newScript(`
for i = 3, #ARGV, 3 do
  local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
  if #found == 1 then
    redis.call('XADD', KEYS[2], '*', 'id', ARGV[i], 'sqlstate', ARGV[i + 1], 'error', ARGV[i + 2], 'w', found[1][2][2])
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
return {}
`, true)

// PostgreSQL has applied up to an id that the stream has never given out: it has
// lost its end. New ids must come after, or they would be taken for applied.
//
// KEYS: stream. ARGV: the last id applied, as milliseconds and number.
// Returns 1 if it was so.
var reviveScript = newScript(`
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local ms, n = string.match(last, '(%d+)-(%d+)')
ms, n = tonumber(ms), tonumber(n)
local toMs, toN = tonumber(ARGV[1]), tonumber(ARGV[2])
if ms > toMs or ms == toMs and n >= toN then return {0} end
local id = redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. ARGV[2], 'w', '')
redis.call('XDEL', KEYS[1], id)
return {1}
`, true)

// QueueName is the name of the stream, by which PostgreSQL too knows it.
func (s *Store) QueueName() string {
	parts := strings.Split(s.identity, "/") // a promotion changes the timeline, and keeps the queue
	sum := sha256.Sum256([]byte(parts[0] + "/" + parts[len(parts)-1]))
	return hashTag(0) + ":queue:" + base64.RawURLEncoding.EncodeToString(sum[:12])
}

// DeadLetters is the name of the stream of writes that PostgreSQL has refused.
func (s *Store) DeadLetters() string { return s.QueueName() + ":dead" }

// Enqueue adds a write to the queue and gives its tags new stamps, in one step.
// The tags were planned with a catalog loaded when the catalog tag had that stamp;
// if it has another, the schema tag gets a new stamp too. The write comes behind
// applied, an id or "". max is the length at which the answer is ErrQueueFull. After
// any other error the write may be in the queue or not. What is queued must be told
// to nobody for the time of wait.
func (s *Store) Enqueue(ctx context.Context, tags []store.Tag, catalog store.Stamp, payload, applied string, max int64) (wait time.Duration, err error) {
	nonce := s.QueueName() + ":n" + rand.Text()
	ms, n, _ := ParseQueueID(applied)
	err = s.queue(ctx, func(p *partition) error {
		if err := p.register(ctx); err != nil {
			return err
		}
		argv := []any{p.prefix, max, payload, catalogTag, appendStamp(nil, catalog), schemaTag,
			ms, n, store.Lease.Milliseconds(), flag(p.succeeds())}
		for _, t := range tags {
			argv = append(argv, encodeTag(t))
		}
		reply, err := p.run(ctx, enqueueScript, []string{p.keys[0], p.keys[1], s.QueueName(), nonce}, argv...)
		if err != nil {
			return err
		}
		if len(reply) == 1 && reply[0] == "full" {
			return ErrQueueFull
		}
		if len(reply) != 2 {
			return errReply
		}
		left, ok := reply[1].(int64)
		if !ok {
			return errReply
		}
		if wait = time.Duration(left) * time.Millisecond; wait < p.young() {
			wait = p.young()
		}
		return nil
	})
	return wait, err
}

// queue runs f on the partition that has the queue.
func (s *Store) queue(ctx context.Context, f func(*partition) error) error {
	return s.use(ctx, func(in *incarnation) error {
		if len(in.partitions) != 1 {
			return ErrNoQueue
		}
		return f(in.partitions[0])
	})
}

// Last returns the id of the last entry of the queue, "" when it is empty.
func (s *Store) Last(ctx context.Context) (id string, err error) {
	err = s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, lastScript, []string{p.lease, s.QueueName(), s.QueueName() + ":look"})
		if err == nil && len(reply) > 0 {
			id, _ = reply[0].(string)
		}
		return err
	})
	return id, err
}

// After returns at most count entries behind the one with that id, in order.
func (s *Store) After(ctx context.Context, id string, count int) (found []Queued, err error) {
	err = s.queue(ctx, func(p *partition) (err error) {
		found, err = s.entries(ctx, p, "XRANGE", "("+id, "+", count)
		return err
	})
	return found, err
}

func (s *Store) entries(ctx context.Context, p *partition, command, from, to string, count int) ([]Queued, error) {
	cmd := goredis.NewXMessageSliceCmd(ctx, command, s.QueueName(), from, to, "COUNT", count)
	if err := p.pipe.do(ctx, cmd); err != nil {
		return nil, err
	}
	found := make([]Queued, len(cmd.Val()))
	for i, m := range cmd.Val() {
		payload, _ := m.Values["w"].(string)
		found[i] = Queued{m.ID, payload}
	}
	return found, nil
}

// QueueLength returns the number of entries.
func (s *Store) QueueLength(ctx context.Context) (n int64, err error) {
	err = s.queue(ctx, func(p *partition) error {
		cmd := goredis.NewIntCmd(ctx, "XLEN", s.QueueName())
		if err := p.pipe.do(ctx, cmd); err != nil {
			return err
		}
		n = cmd.Val()
		return nil
	})
	return n, err
}

// Applied takes entries out of the queue that PostgreSQL has applied, up to and
// with id, and puts those that it has refused among the dead. It may be repeated.
func (s *Store) Applied(ctx context.Context, id string, refused []Refused) error {
	ms, n, ok := ParseQueueID(id)
	if !ok {
		return fmt.Errorf("cachedpg: %q is no id of a queued write", id)
	}
	argv := []any{id, fmt.Sprintf("%d-%d", ms, n+1)}
	for _, r := range refused {
		argv = append(argv, r.ID, r.SQLState, r.Message)
	}
	return s.queue(ctx, func(p *partition) error {
		_, err := p.run(ctx, appliedScript, []string{s.QueueName(), s.DeadLetters()}, argv...)
		return err
	})
}

// Revive makes sure that the ids of new entries come after id. lost says that
// the stream had never given that id out: the server has lost the end of the queue,
// and perhaps writes that were acknowledged.
func (s *Store) Revive(ctx context.Context, id string) (lost bool, err error) {
	ms, n, ok := ParseQueueID(id)
	if !ok || ms == 0 {
		return false, nil // nothing was ever applied
	}
	err = s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, reviveScript, []string{s.QueueName()}, ms, n)
		if err == nil {
			lost = len(reply) == 1 && reply[0] == int64(1)
		}
		return err
	})
	return lost, err
}

// ParseQueueID takes an id apart; ids are in the order of their two numbers.
func ParseQueueID(id string) (ms, n uint64, ok bool) {
	count, err := fmt.Sscanf(id, "%d-%d", &ms, &n)
	return ms, n, err == nil && count == 2 && fmt.Sprintf("%d-%d", ms, n) == id
}

// QueueRisk says in words how the server may lose what the queue has
// acknowledged; "" when it writes all of it to disk first.
func (s *Store) QueueRisk(ctx context.Context) (risk string, err error) {
	err = s.queue(ctx, func(p *partition) error {
		cmd := goredis.NewMapStringStringCmd(ctx, "CONFIG", "GET", "*")
		if err := p.pipe.do(ctx, cmd); err != nil {
			if faultOf(err) == refused {
				risk = "the settings of Redis cannot be read; it should have appendonly yes, appendfsync always and maxmemory-policy noeviction"
				return nil
			}
			return err
		}
		replication := goredis.NewStringCmd(ctx, "INFO", "replication")
		if err := p.pipe.do(ctx, replication); err != nil && faultOf(err) != refused {
			return err
		}
		replicas := parseInfo(replication.Val())["connected_slaves"]
		risk = riskOf(cmd.Val(), replicas != "" && replicas != "0")
		return nil
	})
	return risk, err
}

func riskOf(settings map[string]string, replicas bool) string {
	var risks []string
	switch {
	case settings["appendonly"] != "yes":
		risks = append(risks, "appendonly is off: a Redis that stops loses the queue; CONFIG SET appendonly yes")
	case settings["appendfsync"] != "always":
		risks = append(risks, "appendfsync is "+settings["appendfsync"]+": a machine that stops loses the last second or more; CONFIG SET appendfsync always")
	}
	if settings["maxmemory"] != "0" && strings.HasPrefix(settings["maxmemory-policy"], "allkeys") {
		risks = append(risks, "maxmemory-policy is "+settings["maxmemory-policy"]+": a full Redis evicts the queue; use a volatile policy or noeviction")
	}
	if replicas {
		text := "it has replicas, which get writes after they are acknowledged: one that is promoted may lack the last of them"
		if settings["min-replicas-to-write"] == "0" {
			text += "; CONFIG SET min-replicas-to-write 1, so that it is no more than min-replicas-max-lag"
		}
		risks = append(risks, text)
	}
	return strings.Join(risks, "; ")
}
