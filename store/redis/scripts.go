package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	goredis "github.com/redis/go-redis/v9"
)

// script is one Lua script. Redis runs it as one step: nobody sees half of it,
// and a server that dies in the middle has done nothing or all of it.
type script struct {
	plain, full variant
}

type variant struct{ text, sha string }

// newScript makes a script of a body. One that must work on a Redis that is
// full gets a flag for that, which servers before version 7 do not know: there a
// full Redis takes no intents, and writers go past it.
func newScript(body string, whenFull bool) *script {
	s := &script{plain: newVariant(body)}
	s.full = s.plain
	if whenFull {
		s.full = newVariant("#!lua flags=allow-oom\n" + body)
	}
	return s
}

func newVariant(text string) variant {
	sum := sha1.Sum([]byte(text))
	return variant{text, hex.EncodeToString(sum[:])}
}

func (s *script) on(n *node) variant {
	if n.flags {
		return s.full
	}
	return s.plain
}

// args are those of EVALSHA, or of EVAL if whole is set.
func (v variant) args(whole bool, keys []string, argv []any) []any {
	args := make([]any, 0, 3+len(keys)+len(argv))
	if whole {
		args = append(args, "EVAL", v.text, len(keys))
	} else {
		args = append(args, "EVALSHA", v.sha, len(keys))
	}
	for i := range keys {
		args = append(args, &keys[i]) // a string itself would be copied
	}
	return append(args, argv...)
}

// run runs a script on the node that owns its keys, in a pipeline with what
// others send.
func (n *node) run(ctx context.Context, s *script, keys []string, argv ...any) ([]any, error) {
	return n.runIn(ctx, &n.pipe, s, keys, argv...)
}

// noScript begins the answer of a server that does not know a script yet.
const noScript = "NOSCRIPT"

// runIn is run in one of the node's pipes. A node that does not know the script
// yet is sent the text.
func (n *node) runIn(ctx context.Context, pipe *pipe, s *script, keys []string, argv ...any) ([]any, error) {
	v := s.on(n)
	cmd := goredis.NewSliceCmd(ctx, v.args(false, keys, argv)...)
	err := pipe.do(ctx, cmd)
	if goredis.HasErrorPrefix(err, noScript) {
		cmd = goredis.NewSliceCmd(ctx, v.args(true, keys, argv)...)
		err = pipe.do(ctx, cmd)
	}
	if err != nil {
		return nil, err
	}
	return cmd.Val(), nil
}

// A stamp is minted only under the lease of the caller's epoch, while D says
// that this is the epoch (so D is not lost, nor any intent in it), and if the
// tag has no intent and is of a relation that is open (I3, I12, I13, I26). The lock of the fill is taken in the same step,
// unless the entry is another than the caller saw: then somebody has filled it
// meanwhile, and he had better look again than run the SELECT. Nor is it taken for a while
// after one has failed who held it, see abandonScript. One that does not end by itself is none.
//
// KEYS: D, L. ARGV: prefix, epoch, key or nothing, how the entry began that the
// caller saw, time to live of stamps, of the lock, of the stamps of rows, then for each
// tag the tag and a stamp that is new.
// Returns what it found and all stamps, zero for a dirty tag.
var lookupScript = newScript(`
local d, l, prefix, e, key = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', d, 'e', 'doors')
if redis.call('GET', l) ~= e or known[1] ~= e then return {'cold'} end
local shut, stamps, dirty = {}, {}, false
for i = 13, #(known[2] or ''), 5 do shut[string.sub(known[2], i, i + 3)] = true end
for i = 8, #ARGV do
  local tag, new = string.sub(ARGV[i], 1, 17), string.sub(ARGV[i], 18)
  local row, stamp = string.byte(tag, 5) == 3
  if shut[string.sub(tag, 1, 4)] or redis.call('HEXISTS', d, 't' .. tag) == 1 then
    dirty, stamp = true, '\0\0\0\0\0\0\0\0'
  else
    local name = prefix .. 's' .. e .. tag
    stamp = redis.call('GET', name)
    if not stamp or #stamp ~= 8 then
      redis.call('SET', name, new, 'PX', row and ARGV[7] or ARGV[5])
      stamp = new
    elseif row and redis.call('PTTL', name) < tonumber(ARGV[7]) then
      redis.call('PEXPIRE', name, ARGV[7])
    end
  end
  stamps[#stamps + 1] = stamp
end
local all = table.concat(stamps)
if dirty then return {'dirty', all} end
if key == '' then return {'miss', all} end
local lock = prefix .. 'f' .. e .. key
local held, left = redis.pcall('GET', lock), redis.call('PTTL', lock)
if type(held) ~= 'string' or left < 0 or left > tonumber(ARGV[6]) then held = false end
if held == all then return {'busy', all} end
if redis.call('GETRANGE', prefix .. 'e' .. e .. key, 0, math.max(#ARGV[4], 1) - 1) ~= ARGV[4] then return {'again', all} end
if held ~= all .. 'x' then redis.call('SET', lock, all, 'PX', ARGV[6]) end
return {'miss', all}
`, false)

// wideLua is a field of D, and its value. A hash of few short values is a list for Redis, in which
// it goes from one field to the next until it has found the one that it looks for: for each tag of a
// commit, past those of all that are under way. One value that is longer makes it a table.
const wideLua = `'wide', string.rep(' ', 65)`

// Whether or not a lease stands: every tag has the writer's intent and no stamp
// when this returns (I2). If D is lost, the epoch that it was of ends here, and
// its lease with it (I12): no hit of it is possible from now on. A catalog tag that is
// not what the tags were planned with makes everything dirty (I10). Who leaves out tags of
// relations that are closed names the version of the list that says so (I26).
//
// KEYS: D, L, registries. ARGV: prefix, an epoch's id, writer, lease in milliseconds, 1 if
// the server may just have taken another's place, 1 to compare the catalog tag, its stamp,
// the fields of D of the catalog tag and of the schema tag, the version of the list of doors or
// '*', then the fields of the tags.
// Returns whether the schema tag was marked, how long to wait, the epoch; or, having done
// nothing, the list.
var markScript = newScript(`
local d, l, prefix, writer = KEYS[1], KEYS[2], ARGV[1], ARGV[3]
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local known = redis.call('HMGET', d, 'e', 'doors')
local e, doors = known[1], known[2] or ''
if ARGV[10] ~= '*' and string.sub(doors, 1, 12) ~= ARGV[10] then return {doors} end
if not e then
  e = ARGV[2]
  redis.call('HSET', d, 'e', e, 'cold', '1', 'born', now(), `+wideLua+`)
  redis.call('DEL', l)
end
if redis.call('GET', l) ~= e then
`+rivalsLua+`
  rivals(prefix, ARGV[2])
end
local stem = prefix .. 's' .. e
local function mark(first, last)
  local found = redis.call('HMGET', d, unpack(ARGV, first, last))
  local fields, stamps, n = {}, {}, 0
  for i, writers in ipairs(found) do
    local field = ARGV[first + i - 1]
    stamps[i] = stem .. string.sub(field, 2)
    local there = false
    for j = 1, writers and #writers or 0, 16 do
      if string.sub(writers, j, j + 15) == writer then there = true end
    end
    if not there then
      fields[n + 1], fields[n + 2], n = field, writers and writers .. writer or writer, n + 2
    end
  end
  if n > 0 then redis.call('HSET', d, unpack(fields)) end
  redis.call('DEL', unpack(stamps))
end
for i = 11, #ARGV, 2000 do mark(i, math.min(i + 1999, #ARGV)) end
local schema = 0
if ARGV[6] == '1' then
  local catalog = ARGV[8]
  if redis.call('HEXISTS', d, catalog) == 1 or redis.call('GET', stem .. string.sub(catalog, 2)) ~= ARGV[7] then
    mark(9, 9)
    schema = 1
  end
end
local wait = 0
if ARGV[5] == '1' then
  -- A clock that was put back makes the epoch look unborn: the wait is never
  -- more than a lease.
  local now = now()
  local age = now - (tonumber(redis.call('HGET', d, 'born')) or now)
  wait = math.max(0, math.min(ARGV[4], ARGV[4] - age))
end
return {schema, wait, e}
`, true)

// Exactly that writer's intents are dropped (I4), and no tag keeps its stamp (I5). One with an
// intent has none since that was set, whoever's it is; one without, which was not marked or whose
// mark was lost, may have one.
// Without D the names of the stamps are not known: then it is the lease that goes.
//
// KEYS: D, L. ARGV: prefix, writer, then the fields of D of the tags.
var releaseScript = newScript(`
local d, prefix, writer = KEYS[1], ARGV[1], ARGV[2]
local e = redis.call('HGET', d, 'e')
if not e then
  redis.call('DEL', KEYS[2])
  return {}
end
local stem = prefix .. 's' .. e
for first = 3, #ARGV, 2000 do
  local clean, stamps = {}, {}
  for i, writers in ipairs(redis.call('HMGET', d, unpack(ARGV, first, math.min(first + 1999, #ARGV)))) do
    local field = ARGV[first + i - 1]
    if not writers then
      stamps[#stamps + 1] = stem .. string.sub(field, 2)
    elseif writers == writer then
      clean[#clean + 1] = field
    else
      local rest = {}
      for j = 1, #writers, 16 do
        local w = string.sub(writers, j, j + 15)
        if w ~= writer then rest[#rest + 1] = w end
      end
      if #rest == 0 then
        clean[#clean + 1] = field
      elseif #rest * 16 < #writers then
        redis.call('HSET', d, field, table.concat(rest))
      end
    end
  end
  if #clean > 0 then redis.call('HDEL', d, unpack(clean)) end
  if #stamps > 0 then redis.call('DEL', unpack(stamps)) end
end
return {}
`, true)

// As a release of all tags that the writers have intents on.
//
// KEYS: D. ARGV: prefix, then the writers.
var resolveScript = newScript(`
local d, prefix = KEYS[1], ARGV[1]
local e = redis.call('HGET', d, 'e')
if not e then return {} end
local over = {}
for i = 2, #ARGV do over[ARGV[i]] = true end
local all = redis.call('HGETALL', d)
for i = 1, #all, 2 do
  local field, writers = all[i], all[i + 1]
  if string.sub(field, 1, 1) == 't' then
    local rest = {}
    for j = 1, #writers, 16 do
      local w = string.sub(writers, j, j + 15)
      if not over[w] then rest[#rest + 1] = w end
    end
    if #rest * 16 < #writers then
      if #rest == 0 then
        redis.call('HDEL', d, field)
      else
        redis.call('HSET', d, field, table.concat(rest))
      end
      redis.call('DEL', prefix .. 's' .. e .. string.sub(field, 2))
    end
  end
end
return {}
`, true)

// KEYS: D. Returns each writer that has an intent, once.
var writersScript = newScript(`
local all, seen, out = redis.call('HGETALL', KEYS[1]), {}, {}
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) == 't' then
    for j = 1, #all[i + 1], 16 do
      local w = string.sub(all[i + 1], j, j + 15)
      if not seen[w] then
        seen[w] = true
        out[#out + 1] = w
      end
    end
  end
end
return out
`, true)

// The start of a renewal. A lease that ran out ends its epoch (I13), and so does a
// lost D (I12); the next one is cold until somebody extends. Intents are kept, unless they
// are what was lost: cold says which, 2 or 1. The time is read before PostgreSQL is asked.
// What is of another type than it should be was lost too, and takes no place.
//
// KEYS: D, L, registries. ARGV: an epoch's id, then as for registerScript.
// Returns the epoch, how cold it is or 0, milliseconds left of its lease, the time, and
// for how long commits have to wait.
var peekScript = newScript(registerLua+`
local d, l = KEYS[1], KEYS[2]
for i, name in ipairs(KEYS) do
  local found = i == 2 and redis.pcall('GET', l) or i ~= 2 and redis.pcall('HGET', name, 'e')
  if type(found) == 'table' and found.err then redis.call('DEL', name) end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local wait = 0
if ARGV[2] then wait = register(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]) end
local e, cold = redis.call('HGET', d, 'e'), redis.call('HGET', d, 'cold')
if not e then
  redis.call('HSET', d, 'e', ARGV[1], 'cold', '1', 'born', now, `+wideLua+`)
  redis.call('DEL', l)
  return {ARGV[1], 1, 0, now, wait}
end
if cold then return {e, cold == '2' and 2 or 1, 0, now, wait} end
if redis.call('GET', l) ~= e then
  redis.call('HSET', d, 'e', ARGV[1], 'cold', '2')
  redis.call('DEL', l)
  return {ARGV[1], 2, 0, now, wait}
end
return {e, 0, redis.call('PTTL', l), now, wait}
`, true)

// The end of a renewal, perhaps a late one. A cold epoch gets its first lease. One
// that had a lease gets more only while that stands: after its end somebody may have
// committed past the store. To a fixed time, never a shorter one, and nothing if
// that time has come (I13). What nobody has asked for in a week may go, and takes
// its epoch along.
//
// KEYS: D, L, registries. ARGV: epoch, until when in milliseconds, prefix, an epoch's id.
// Returns 1 if the lease stands.
var extendScript = newScript(rivalsLua+`
local d, l, e, to = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('HGET', d, 'e') ~= e then return {0} end
redis.call('PEXPIRE', d, 604800000)
if redis.call('HGET', d, 'cold') then
  if to <= now then return {0} end
  redis.call('SET', l, e, 'PXAT', ARGV[2])
  redis.call('HDEL', d, 'cold')
  rivals(ARGV[3], ARGV[4])
  return {1}
end
if redis.call('GET', l) ~= e then return {0} end
if to > now + redis.call('PTTL', l) then redis.call('PEXPIREAT', l, ARGV[2]) end
return {1}
`, true)

// An entry is stored only while its stamps stand: a late one is never valid, and must
// not take the place of one that is. The lock goes in the same step, so who finds it
// gone finds the entry. The stamps of its rows live as long as it does.
//
// KEYS: entry, lock. ARGV: prefix, epoch, the lock's stamps or the first of them, the entry,
// its time to live, then for each tag of this partition the tag and its stamp.
// Returns 1 if it was stored.
var fillScript = newScript(`
local prefix, e, lock = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', KEYS[2])
if held and string.sub(held, 1, #lock) == lock then redis.call('DEL', KEYS[2]) end
for i = 6, #ARGV do
  if redis.call('GET', prefix .. 's' .. e .. string.sub(ARGV[i], 1, 17)) ~= string.sub(ARGV[i], 18) then return {0} end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
for i = 6, #ARGV do
  local name = prefix .. 's' .. e .. string.sub(ARGV[i], 1, 17)
  if string.byte(ARGV[i], 5) == 3 and redis.call('PTTL', name) < tonumber(ARGV[5]) then redis.call('PEXPIRE', name, ARGV[5]) end
end
return {1}
`, false)

// Nobody else is Busy from here on. A lock that another reader has taken with
// other stamps stays.
//
// KEYS: the lock. ARGV: the stamps it is for, or the first of them.
var unlockScript = newScript(`
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {}
`, true)

// The lock says from here on that nobody is to wait: who held it has failed, so that those
// who did wait would be held up by one of their own next, and the last by all of them.
//
// KEYS: the lock. ARGV: the stamps it is for, for how long.
var abandonScript = newScript(`
local held = redis.call('GET', KEYS[1])
if not held then
  held = ARGV[1]
elseif string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
  return {}
end
if #held % 8 == 0 then held = held .. 'x' end
redis.call('SET', KEYS[1], held, 'PX', ARGV[2])
return {}
`, true)

// KEYS: the lock. ARGV: the stamps it is for, how long it holds.
var holdScript = newScript(`
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif string.sub(held, 1, #ARGV[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {}
`, false)

// Every command that the other scripts call, on keys that none of them uses, so
// that a user without a permission is found out when the store is opened.
//
// KEYS: a string, a hash.
var checkScript = newScript(`
redis.call('TIME')
redis.call('SET', KEYS[1], '', 'PX', '1000')
redis.call('GET', KEYS[1])
redis.call('GETRANGE', KEYS[1], 0, 0)
redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], '1000')
redis.call('PEXPIREAT', KEYS[1], '1')
redis.call('HSET', KEYS[2], 'e', '')
redis.call('HGET', KEYS[2], 'e')
redis.call('HMGET', KEYS[2], 'e')
redis.call('HEXISTS', KEYS[2], 'e')
redis.call('HINCRBY', KEYS[2], 'n', '1')
redis.call('HGETALL', KEYS[2])
redis.call('INFO', 'stats')
redis.call('HDEL', KEYS[2], 'e')
redis.call('DEL', KEYS[1], KEYS[2])
return {}
`, true)
