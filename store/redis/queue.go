package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// A queue is a stream of writes that PostgreSQL has not got yet. Unlike
// everything else here it is no cache: its names hold neither the life of the
// server nor an epoch, so that a server which restarts with its append-only file, or
// a replica that is promoted, goes on with it:
//
//	cachedpg:{p0}:queue:database        the stream
//	cachedpg:{p0}:queue:database:owner  the server that owns it, see owner.go
//	cachedpg:{p0}:queue:database:dead   those that PostgreSQL has refused
//	cachedpg:{p0}:queue:database:n…     that a write was queued, for a minute
//	cachedpg:{p0}:queue:database:look   that a reader has looked, see lastScript
//	cachedpg:{p0}:queue:database:turn   who queues next, see enqueueScript
//
// An entry of the stream has the write (w), its sequence number (n) and the server that
// it was queued for (s).
//
// A Cluster has tags on other nodes than the stream, and no step of Redis'
// reaches both, so it has no queue.

// ErrQueueFull is what Enqueue answers when the queue has as many entries as it may.
var ErrQueueFull = errors.New("cachedpg: the queue of writes is full")

// ErrNoQueue is what a Redis Cluster answers.
var ErrNoQueue = errors.New("cachedpg: strategy \"write-behind\" needs one Redis, or one with Sentinels: a Cluster cannot queue a write and invalidate its tags in one step")

// ErrNotOwner is what Enqueue and Applied answer when the queue is not that server's.
var ErrNotOwner = errors.New("cachedpg: the queue of writes belongs to another server of PostgreSQL")

// ErrQueueSealed is what Enqueue answers a process whose entries would be refused.
var ErrQueueSealed = errors.New("cachedpg: the queue of writes is encrypted, which other processes ask for by cache_encryption; give this one the same keys")

// Write is what Enqueue adds to the queue.
type Write struct {
	Tags    []store.Tag // that get new stamps
	Catalog store.Stamp // of the catalog tag when the tags were planned
	Payload string
	Server  string // the write is for it, see Owner

	// What is known to be applied, an ID or "", and the highest sequence number that is
	// known to have been given out: the write comes behind both.
	Applied string
	Given   int64

	Max int64 // the length at which the answer is ErrQueueFull
}

// Queued is an entry of the queue.
type Queued struct {
	ID       string // of the stream: "milliseconds-number", in order
	Sequence int64  // 1, 2, 3 … in a queue; 0 if the entry says none
	Server   string // that it was queued for
	sealed   string // or plain, see OpenQueued
}

// Refused is an entry that PostgreSQL has refused for good.
type Refused struct {
	ID       string `json:"id"`
	SQLState string `json:"sqlstate"`
	Message  string `json:"message"`
}

// Ids count up from the clock, so one that is ten thousand years ahead of it was not given out here,
// and all that come after it would be: there may be none left. Such entries leave the
// queue for the dead, and the stream goes on as if they had not been. (XSETID would not do it, nor
// would an entry that is deleted: a stream remembers both.)
var cleanQueue = `
local function ahead()
  local t = redis.call('TIME')
  return string.format('%.0f', t[1] * 1000 + ` + strconv.Itoa(farFuture) + `)
end
local ours = {w = true, n = true, s = true, id = true, sqlstate = true, error = true}
local clean
local function bury(dead, refused)
  if type(redis.pcall('XADD', dead, '*', unpack(refused))) == 'string' then return end
  clean(dead)
  redis.call('XADD', dead, '*', unpack(refused))
end
clean = function(stream, dead)
  local from = ahead()
  local kept = redis.call('XRANGE', stream, '-', '(' .. from)
  local strange = redis.call('XRANGE', stream, from, '+')
  redis.call('DEL', stream)
  for _, entry in ipairs(kept) do
    local fields = {}
    for j = 1, #entry[2], 2 do
      if ours[entry[2][j]] and #fields < 12 then
        table.insert(fields, entry[2][j])
        table.insert(fields, entry[2][j + 1])
      end
    end
    if #fields == 0 then fields = {'w', ''} end
    redis.call('XADD', stream, entry[1], unpack(fields))
  end
  if not dead then return end
  for _, entry in ipairs(strange) do
    local w = ''
    for j = 1, #entry[2], 2 do
      if entry[2][j] == 'w' then w = entry[2][j + 1] end
    end
    bury(dead, {'id', entry[1], 'sqlstate', '', 'error', 'cachedpg: an entry of the queue has an id of the far future', 'w', w})
  end
end
`

const farFuture = 315576000000000 // in milliseconds

// bounded is how far a queue is read.
const bounded = "'(' .. ahead()"

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
// Sequence numbers have no gaps and no repetitions. Whoever seals an entry has to
// say the number before, and tries again if another was faster; then it is his turn,
// so that one who is far away comes to queue too.
//
// What Redis says of the numbers is believed only if it is near what the process knows: a
// number that is far ahead leaves none for those that come after.
//
// KEYS: D, L, stream, nonce, owner, turn, dead. ARGV: prefix, most entries, payload, catalog
// tag, its stamp, schema tag, milliseconds and number of the last id known to be applied,
// lease in milliseconds, 1 if the server may just have taken another's place, the server that it is for,
// the sequence number that it was sealed with or nothing, the highest one known, a name
// of the caller, then the tags.
// Returns 'ok', how long to wait and the sequence number; 'again' and the next one; or
// 'full', 'other', 'sealed', 'plain'.
var enqueueScript = newScript(cleanQueue+`
local d, stream, nonce, o, prefix = KEYS[1], KEYS[3], KEYS[4], KEYS[5], ARGV[1]
local wait, e = 0, redis.call('HGET', d, 'e')
if ARGV[10] == '1' then
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local age = now - (tonumber(e and redis.call('HGET', d, 'born')) or now)
  wait = math.max(0, math.min(ARGV[9], ARGV[9] - age))
end
local done = redis.call('GET', nonce)
if done then return {'ok', wait, tonumber(done)} end
if redis.call('HGET', o, 'server') ~= ARGV[11] then return {'other'} end
local sealed = redis.call('HGET', o, 'sealed') == '1'
if sealed ~= (ARGV[12] ~= '') then return {sealed and 'sealed' or 'plain'} end
if redis.call('XLEN', stream) >= tonumber(ARGV[2]) then return {'full'} end
local n = tonumber(ARGV[13])
for _, field in ipairs({'acked', 'given'}) do
  local said = tonumber(redis.call('HGET', o, field)) or 0
  if said > n and said <= tonumber(ARGV[13]) + 4294967296 then n = said end
end
n = n + 1
if sealed then
  local turn = redis.call('GET', KEYS[6])
  local lasts = redis.call('PTTL', KEYS[6])
  if lasts < 0 or lasts > 100 then turn = false end
  if turn and turn ~= ARGV[14] or tonumber(ARGV[12]) ~= n then
    if not turn then redis.call('SET', KEYS[6], ARGV[14], 'PX', 100) end
    return {'again', n}
  end
  if turn then redis.call('DEL', KEYS[6]) end
end
local number = string.format('%.0f', n)
local function add(call)
  local id = call('XADD', stream, '*', 'w', ARGV[3], 'n', number, 's', ARGV[11])
  if type(id) ~= 'string' then return end
  local ms, k = string.match(id, '(%d+)-(%d+)')
  return id, tonumber(ms), tonumber(k)
end
local id, ms, k = add(redis.pcall)
if not ms or ms >= tonumber(ahead()) then
  if ms then redis.call('XDEL', stream, id) end
  clean(stream, KEYS[7])
  id, ms, k = add(redis.call)
end
local toMs, toK = tonumber(ARGV[7]), tonumber(ARGV[8])
if toK >= 4294967296 then toMs, toK = toMs + 1, 0 end
if ms < toMs or ms == toMs and k <= toK then
  redis.call('XDEL', stream, id)
  redis.call('XADD', stream, string.format('%.0f-%.0f', toMs, toK + 1), 'w', ARGV[3], 'n', number, 's', ARGV[11])
end
redis.call('HSET', o, 'given', number)
redis.call('SET', nonce, number, 'PX', 60000)
if not e then
  redis.call('DEL', KEYS[2])
  return {'ok', wait, n}
end
for i = 15, #ARGV do redis.call('DEL', prefix .. 's' .. e .. ARGV[i]) end
if redis.call('HEXISTS', d, 't' .. ARGV[4]) == 1 or redis.call('GET', prefix .. 's' .. e .. ARGV[4]) ~= ARGV[5] then
  redis.call('DEL', prefix .. 's' .. e .. ARGV[6])
end
return {'ok', wait, n}
`, false)

// The last of the queue. What a server has to say that was replaced by another is
// worth nothing, and it knows nothing of that. While a lease stands it is good, because
// who writes to the successor waits for that long; after that the server has to take
// a write first, which one that is a replica now, or has lost its own, refuses.
//
// KEYS: L, stream, a name for the write, owner.
// Returns the id, nothing when the queue is empty, and the server that owns it.
var lastScript = newScript(cleanQueue+`
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[3], '', 'PX', 1000) end
local found = redis.call('XREVRANGE', KEYS[2], `+bounded+`, '-', 'COUNT', 1)
return {#found == 1 and found[1][1] or '', redis.call('HGET', KEYS[4], 'server') or ''}
`, true)

// What PostgreSQL has applied leaves the queue, and what it has refused goes to the
// dead. That an entry is still there is what makes it happen once. Only its owner may
// say so: another has not applied what this one needs (I25).
//
// KEYS: stream, dead, owner. ARGV: the last id applied, the one after, server, fence and
// sequence number as recorded, then id, code and message of each that was refused.
// Returns 1 if it was done.
var appliedScript = newScript(cleanQueue+`
local o = KEYS[3]
if redis.call('HGET', o, 'server') ~= ARGV[3] then return {0} end
for i, field in ipairs({'fence', 'acked', 'given'}) do
  local value = i == 1 and ARGV[4] or ARGV[5]
  if tonumber(value) > (tonumber(redis.call('HGET', o, field)) or 0) then redis.call('HSET', o, field, value) end
end
for i = 6, #ARGV, 3 do
  local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
  if #found == 1 then
    local entry = {'', ''}
    for j = 1, #found[1][2], 2 do
      if found[1][2][j] == 'w' then entry[1] = found[1][2][j + 1] end
      if found[1][2][j] == 'n' then entry[2] = found[1][2][j + 1] end
    end
    bury(KEYS[2], {'id', ARGV[i], 'sqlstate', ARGV[i + 1], 'error', ARGV[i + 2], 'w', entry[1], 'n', entry[2]})
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
return {1}
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
	sum := sha256.Sum256([]byte(s.database))
	return hashTag(0) + ":queue:" + base64.RawURLEncoding.EncodeToString(sum[:12])
}

// DeadLetters is the name of the stream of writes that PostgreSQL has refused.
func (s *Store) DeadLetters() string { return s.QueueName() + ":dead" }

// Enqueue adds a write to the queue and gives its tags new stamps, in one step. If the
// catalog tag has another stamp than the write says, the schema tag gets a new one too.
// After any error but those of this package the write may be in the queue or not. The caller
// waits for wait before it reports that the write is queued.
func (s *Store) Enqueue(ctx context.Context, w Write) (sequence int64, wait time.Duration, err error) {
	if s.target.Sealer == nil {
		return s.enqueue(ctx, w, 0, rand.Text())
	}
	// One at a time in a process: two would each make the other's number wrong.
	select {
	case s.sealing <- struct{}{}:
		defer func() { <-s.sealing }()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	nonce := rand.Text()
	for {
		next, wait, err := s.enqueue(ctx, w, max(s.sealed, w.Given)+1, nonce)
		var faster *faster
		switch {
		case err == nil:
			s.sealed = next
			return next, wait, nil
		case !errors.As(err, &faster):
			return 0, 0, err
		}
		if s.sealed = faster.next - 1; faster.again {
			if err := pause(ctx); err != nil {
				return 0, 0, err
			}
		}
	}
}

// faster says that another has taken the sequence number, or has the turn.
type faster struct {
	next  int64
	again bool
}

func (f *faster) Error() string { return "cachedpg: the queue goes on with another number" }

// pause lets another have his turn.
func pause(ctx context.Context) error {
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue adds a write, sealed with a sequence number unless that is 0.
func (s *Store) enqueue(ctx context.Context, w Write, number int64, nonce string) (sequence int64, wait time.Duration, err error) {
	name := s.QueueName()
	ms, n, _ := ParseQueueID(w.Applied)
	payload, sealed := w.Payload, ""
	if number != 0 {
		payload = string(s.target.Sealer.Seal(nil, []byte(w.Payload), s.queuedAs(number)))
		sealed = strconv.FormatInt(number, 10)
	}
	err = s.queue(ctx, func(p *partition) error {
		if err := p.register(ctx); err != nil {
			return err
		}
		argv := []any{p.prefix, w.Max, payload, catalogTag, appendStamp(nil, w.Catalog), schemaTag,
			ms, n, patience.Lease.Milliseconds(), flag(p.succeeds()), w.Server, sealed, w.Given, s.name}
		for _, t := range w.Tags {
			argv = append(argv, encodeTag(t))
		}
		keys := []string{p.keys[0], p.keys[1], name, name + ":n" + nonce, name + ":owner", name + ":turn", s.DeadLetters()}
		reply, err := p.run(ctx, enqueueScript, keys, argv...)
		if err != nil {
			return err
		}
		if sequence, wait, err = enqueued(reply, number); err == nil {
			wait = max(wait, p.young())
		}
		return err
	})
	return sequence, wait, err
}

func enqueued(reply []any, number int64) (sequence int64, wait time.Duration, err error) {
	if len(reply) == 0 {
		return 0, 0, errReply
	}
	var numbers [2]int64
	for i, v := range reply[1:min(len(reply), 3)] {
		n, ok := v.(int64)
		if !ok {
			return 0, 0, errReply
		}
		numbers[i] = n
	}
	switch {
	case reply[0] == "ok" && len(reply) == 3:
		return numbers[1], leaseOf(numbers[0]), nil
	case reply[0] == "again" && len(reply) == 2:
		return 0, 0, &faster{numbers[0], numbers[0] == number}
	case reply[0] == "full":
		return 0, 0, ErrQueueFull
	case reply[0] == "other", reply[0] == "plain": // its owner says first that it is sealed
		return 0, 0, ErrNotOwner
	case reply[0] == "sealed":
		return 0, 0, ErrQueueSealed
	}
	return 0, 0, errReply
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

// Last returns the id of the last entry of the queue, "" when it is empty, and the server that owns it.
func (s *Store) Last(ctx context.Context) (id, owner string, err error) {
	err = s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, lastScript, []string{p.lease, s.QueueName(), s.QueueName() + ":look", s.ownerKey()})
		if err != nil {
			return err
		}
		var ok1, ok2 bool
		if len(reply) == 2 {
			id, ok1 = reply[0].(string)
			owner, ok2 = reply[1].(string)
		}
		if !ok1 || !ok2 {
			return errReply
		}
		return nil
	})
	return id, owner, err
}

// After returns at most count entries behind the one with that id, in order.
func (s *Store) After(ctx context.Context, id string, count int) (found []Queued, err error) {
	err = s.queue(ctx, func(p *partition) (err error) {
		found, err = s.entries(ctx, p, "XRANGE", "("+id, fmt.Sprintf("(%d", time.Now().UnixMilli()+farFuture), count)
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
		number, _ := m.Values["n"].(string)
		server, _ := m.Values["s"].(string)
		sequence, _ := strconv.ParseInt(number, 10, 64)
		found[i] = Queued{m.ID, sequence, server, payload}
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

// Applied takes entries out of the queue that the owner has applied, up to and
// with id, and puts those that it has refused among the dead. It may be repeated.
func (s *Store) Applied(ctx context.Context, o Owner, id string, refused []Refused) error {
	ms, n, ok := ParseQueueID(id)
	if !ok {
		return fmt.Errorf("cachedpg: %q is no id of a queued write", id)
	}
	argv := []any{id, fmt.Sprintf("%d-%d", ms, n+1), o.Server, o.Fence, o.Sequence}
	for _, r := range refused {
		argv = append(argv, r.ID, r.SQLState, s.sealedMessage(r))
	}
	return s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, appliedScript, []string{s.QueueName(), s.DeadLetters(), s.ownerKey()}, argv...)
		if err == nil && (len(reply) != 1 || reply[0] != int64(1)) {
			err = ErrNotOwner
		}
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
