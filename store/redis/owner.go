package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// One server of PostgreSQL owns the queue (I25): writes are queued for it, and it alone
// applies them. A copy of it (a base backup that was started, a snapshot of a volume, a
// branch) has the same names, the same tables and the same position in the queue.
// But it was started at another time: Redis knows the owner by the start of its postmaster, and
// PostgreSQL records with each position a number that only grows, the fencing token (fence):
//
//	PostgreSQL                                Redis
//	position, sequence, fence, locked
//	                                          is the queue this server's?
//	apply; fence + 1; COMMIT
//	                                          owner, fence + 1; trim
//
// Another server may take the queue over when the owner has not been seen for some time and the
// server has the whole of the owner's history: its fence is not below the one in Redis. Then it is
// the owner, started again, or a standby that was promoted. A copy that was taken before the owner's
// last batch has a lower fence. One that was taken since has not, but then the owner is alive. Where
// neither decides, a person has to.

// Owner is a server that may own the queue, and what it has recorded.
type Owner struct {
	Server   string // the start of its postmaster, which no other has
	Timeline string // a promotion begins a later one
	Place    string // where it was reached, as the configuration says it

	Fence    int64
	Sequence int64 // of the last entry that it has applied or refused
	Given    int64 // the highest sequence number known to have been given out
}

// Claim is the answer to a server that wants to own the queue.
type Claim struct {
	Owns   bool
	New    bool // it did not own it before, or nobody is known to have
	Orphan bool // nobody is known to own it, and something was queued for another server

	// Of the owner, if that is another server.
	Server string
	Beat   string        // when it was seen last, on Redis' clock
	Silent time.Duration // since then
	Behind bool          // the claimant lacks a part of its history
	Known  bool          // the claimant is at a place where the owner was, or of a later timeline

	Given int64 // the last sequence number that was given out
	Acked int64 // the last that the owner is known to have applied
	Fence int64 // that it is known to have recorded

	Sealed bool // entries must be sealed
}

// Ways to claim the queue.
const (
	lookQueue  = "look"  // not at all; if it is the claimant's, that is alive
	claimQueue = "claim" // if it is the claimant's, or nobody's
	takeQueue  = "take"  // also from an owner that was not seen since Claim.Beat
	forceQueue = "force" // from anybody
)

// An entry that was put there with an id of the far future is taken out, see cleanQueue.
//
// KEYS: owner, stream, dead. ARGV: server, timeline, place, fence, sequence number, highest one
// known, the way, and with "take" from which server and when that was seen.
// Returns whether it owns the queue, whether that is new, whether it is nobody's that had
// one, the owner, when it was seen, for how long it was not, whether the claimant is behind,
// whether it is known, the last number given, the last acknowledged, whether it is sealed,
// the fence.
var ownerScript = newScript(cleanQueue+`
local o, server, way = KEYS[1], ARGV[1], ARGV[7]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local owner, beat = redis.call('HGET', o, 'server') or '', redis.call('HGET', o, 'beat') or '0'
local function number(field)
  local n = tonumber(redis.call('HGET', o, field)) or 0
  if n >= 0 and n < 4503599627370496 then return math.floor(n) end
  return 0
end
local owns, orphan = owner == server, 0
if owner == '' and way ~= 'look' then
  owns = true
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 100)) do
    for j = 1, #entry[2], 2 do
      if entry[2][j] == 's' and entry[2][j + 1] ~= server then owns, orphan = false, 1 end
    end
  end
end
local new = owner ~= server
if way == 'force' or way == 'take' and owner == ARGV[8] and beat == ARGV[9] then owns = true end
local behind = tonumber(ARGV[4]) < number('fence') and tonumber(ARGV[5]) <= number('acked')
local known = redis.call('HEXISTS', o, 'place ' .. ARGV[3]) == 1 or ARGV[2] > (redis.call('HGET', o, 'timeline') or '')
if owns then
  if way ~= 'look' and #redis.call('XRANGE', KEYS[2], ahead(), '+', 'COUNT', 1) > 0 then clean(KEYS[2], KEYS[3]) end
  if new then
    for _, field in ipairs(redis.call('HKEYS', o)) do
      if string.sub(field, 1, 6) == 'place ' then redis.call('HDEL', o, field) end
    end
  end
  redis.call('HSET', o, 'server', server, 'timeline', ARGV[2], 'place ' .. ARGV[3], '1', 'beat', string.format('%.0f', now))
  if tonumber(ARGV[4]) > number('fence') then redis.call('HSET', o, 'fence', ARGV[4]) end
  for _, known in ipairs({ARGV[5], ARGV[6]}) do
    if tonumber(known) > number('given') then redis.call('HSET', o, 'given', known) end
  end
end
return {owns and 1 or 0, new and 1 or 0, orphan, owner, beat, now - tonumber(beat), behind and 1 or 0, known and 1 or 0, number('given'), number('acked'),
  redis.call('HGET', o, 'sealed') == '1' and 1 or 0, number('fence')}
`, true)

// From now on entries must be sealed.
//
// KEYS: owner, stream. Returns the last id in the queue.
var sealScript = newScript(cleanQueue+`
redis.call('HSET', KEYS[1], 'sealed', '1')
local found = redis.call('XREVRANGE', KEYS[2], `+bounded+`, '-', 'COUNT', 1)
return {#found == 1 and found[1][1] or '0-0'}
`, true)

func (s *Store) ownerKey() string { return s.QueueName() + ":owner" }

// Look says whose the queue is. If it is the claimant's that is seen to be alive: o must
// have been asked of it just now.
func (s *Store) Look(ctx context.Context, o Owner) (Claim, error) { return s.claim(ctx, o, lookQueue) }

// Claim is Look, and a queue that is nobody's becomes the claimant's.
func (s *Store) Claim(ctx context.Context, o Owner) (Claim, error) {
	return s.claim(ctx, o, claimQueue)
}

// Take has the queue change hands if from, the answer to a Claim, still holds.
func (s *Store) Take(ctx context.Context, o Owner, from Claim) (Claim, error) {
	return s.claim(ctx, o, takeQueue, from.Server, from.Beat)
}

// Force gives the queue to o, whoever has it.
func (s *Store) Force(ctx context.Context, o Owner) (Claim, error) {
	return s.claim(ctx, o, forceQueue)
}

func (s *Store) claim(ctx context.Context, o Owner, way string, from ...any) (c Claim, err error) {
	argv := append([]any{o.Server, o.Timeline, o.Place, o.Fence, o.Sequence, o.Given, way}, from...)
	err = s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, ownerScript, []string{s.ownerKey(), s.QueueName(), s.DeadLetters()}, argv...)
		if err == nil {
			c, err = claimed(reply)
		}
		return err
	})
	return c, err
}

func claimed(reply []any) (c Claim, err error) {
	if len(reply) != 12 {
		return c, errReply
	}
	var ok1, ok2 bool
	c.Server, ok1 = reply[3].(string)
	c.Beat, ok2 = reply[4].(string)
	if !ok1 || !ok2 {
		return c, errReply
	}
	var n [12]int64
	for i, v := range reply {
		if i == 3 || i == 4 {
			continue
		}
		var ok bool
		if n[i], ok = v.(int64); !ok {
			return c, errReply
		}
	}
	c.Owns, c.New, c.Orphan, c.Behind, c.Known, c.Sealed = n[0] != 0, n[1] != 0, n[2] != 0, n[6] != 0, n[7] != 0, n[10] != 0
	c.Silent, c.Given, c.Acked, c.Fence = time.Duration(n[5])*time.Millisecond, n[8], n[9], n[11]
	return c, nil
}

// SealQueue says that from now on the entries of the queue are sealed. Entries up to
// plain, an id, may be from before.
func (s *Store) SealQueue(ctx context.Context) (plain string, err error) {
	err = s.queue(ctx, func(p *partition) error {
		reply, err := p.run(ctx, sealScript, []string{s.ownerKey(), s.QueueName()})
		if err != nil {
			return err
		}
		var ok bool
		if len(reply) == 1 {
			plain, ok = reply[0].(string)
		}
		if !ok {
			return errReply
		}
		return nil
	})
	return plain, err
}

// QueueKey names the key that entries of the queue are sealed with, without telling
// anything of it; "" if they are not.
func (s *Store) QueueKey() string {
	if s.target.Sealer == nil {
		return ""
	}
	return hex.EncodeToString(s.target.Sealer.first.head[:])
}

// Key is the QueueKey of whoever sealed the entry, as the entry has it; "" if it was not.
func (e Queued) Key() string {
	if len(e.sealed) < SealOverhead || e.sealed[0] != sealVersion {
		return ""
	}
	return hex.EncodeToString([]byte(e.sealed[:sealHead]))
}

// IsUnknownKey reports that what OpenQueued was given needs a key that it has not.
func IsUnknownKey(err error) bool {
	return errors.Is(err, errUnknownKey) || errors.Is(err, errWrongKey)
}

// OpenQueued returns the payload of an entry. If the store has keys it must have been
// sealed for this queue and with the sequence number that it has, or else plain has to allow
// that it was not sealed.
func (s *Store) OpenQueued(e Queued, plain bool) (payload string, err error) {
	switch {
	case s.target.Sealer == nil && e.Key() != "":
		return "", errors.New("cachedpg: an entry of the queue is encrypted, and this process has no key (cache_encryption)")
	case s.target.Sealer == nil || plain && e.Key() == "":
		return e.sealed, nil
	}
	opened, err := s.target.Sealer.Open(nil, []byte(e.sealed), s.queuedAs(e.Sequence))
	if err != nil {
		return "", fmt.Errorf("cachedpg: an entry of the queue was not written by a process with the keys of this one, or not for this place in it: %w", err)
	}
	return string(opened), nil
}

// queuedAs is what a sealed entry is bound to.
func (s *Store) queuedAs(sequence int64) []byte {
	return fmt.Appendf(nil, "queued write %s %d", s.QueueName(), sequence)
}

// sealedMessage is the message of a refused entry as it lies among the dead: it may hold values.
func (s *Store) sealedMessage(r Refused) string {
	if s.target.Sealer == nil {
		return r.Message
	}
	return string(s.target.Sealer.Seal(nil, []byte(r.Message), s.refusedAs(r.ID)))
}

func (s *Store) refusedAs(id string) []byte {
	return fmt.Appendf(nil, "refused write %s %s", s.QueueName(), id)
}

// Dead is a refused entry as it lies among the dead.
type Dead struct {
	At      string // its id there
	Refused        // Message is that PostgreSQL's cannot be read, if so
	Payload string // "" if it cannot be read
}

// Dead returns at most count refused entries behind the one with that id.
func (s *Store) Dead(ctx context.Context, after string, count int) (dead []Dead, err error) {
	err = s.queue(ctx, func(p *partition) error {
		cmd := goredis.NewXMessageSliceCmd(ctx, "XRANGE", s.DeadLetters(), "("+after, "+", "COUNT", count)
		if err := p.pipe.do(ctx, cmd); err != nil {
			return err
		}
		for _, m := range cmd.Val() {
			text := func(field string) string { v, _ := m.Values[field].(string); return v }
			d := Dead{At: m.ID, Refused: Refused{ID: text("id"), SQLState: text("sqlstate"), Message: text("error")}}
			if s.target.Sealer != nil {
				opened, err := s.target.Sealer.Open(nil, []byte(d.Message), s.refusedAs(d.ID))
				if d.Message = string(opened); err != nil {
					d.Message = err.Error()
				}
			}
			e := Queued{ID: d.ID, sealed: text("w")}
			_, _ = fmt.Sscan(text("n"), &e.Sequence)
			d.Payload, _ = s.OpenQueued(e, false)
			dead = append(dead, d)
		}
		return nil
	})
	return dead, err
}
