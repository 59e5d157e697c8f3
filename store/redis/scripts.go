package redis

import (
	"crypto/sha1" // Redis names scripts by it
	"encoding/hex"
)

// The scripts are the steps of the protocol that happen at one instant. Each
// works on one partition, whose KEYS are D, the hash with the epoch and all
// intents, L, the lease, and a base. Names of stamps, entries and locks are the
// base, the epoch, a letter and what they are of. In a Cluster all names of a
// partition lie in one slot.
//
// D has the fields "e", the epoch, "cold" while it has no lease yet, "born", its
// beginning in milliseconds, and for each dirty tag "t" and the tag's 17 bytes,
// with the ids of the writers, 16 bytes each, in a row. Because D is one key,
// no intent can be lost without the epoch (I12).
const (
	luaNow = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`
	// luaBegin begins an epoch in a D that has none. It may have lost intents, so
	// that nobody hits or mints before the epoch gets a lease.
	luaBegin = luaNow + `
local e = redis.call('HGET', KEYS[1], 'e')
if not e then
	e = ARGV[1]
	redis.call('HSET', KEYS[1], 'e', e, 'cold', '1', 'born', now)
	redis.call('DEL', KEYS[2])
end
`
	// luaWithout is ids without one of them.
	luaWithout = `
local function without(ids, id)
	for i = 1, #ids, 16 do
		if string.sub(ids, i, i + 15) == id then
			return string.sub(ids, 1, i - 1) .. string.sub(ids, i + 16)
		end
	end
	return ids
end
local function drop(field, ids, id)
	local left = without(ids, id)
	if left == '' then
		redis.call('HDEL', KEYS[1], field)
	elseif left ~= ids then
		redis.call('HSET', KEYS[1], field, left)
	end
	return left
end
`
)

// luaPrepare mints what a miss needs and takes the lock of the fill. ARGV: the
// epoch, the entry's key or ”, the lock's and a stamp's life in milliseconds, and
// for each tag its field and a candidate. It returns false when the epoch has
// no lease; otherwise the stamps, ” for a dirty tag (I3), and 1 at the end if
// another holds the lock.
const luaPrepare = `
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then
	return false
end
local base = KEYS[3] .. ARGV[1]
local out, dirty = {}, false
for i = 5, #ARGV, 2 do
	local stamp = ''
	if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
		dirty = true
	else
		local name = base .. ARGV[i]
		stamp = redis.call('GET', name)
		if not stamp then
			stamp = ARGV[i + 1]
			redis.call('SET', name, stamp, 'PX', ARGV[4])
		end
	end
	out[#out + 1] = stamp
end
local busy = 0
if ARGV[2] ~= '' and not dirty then
	local lock, want = base .. 'f' .. ARGV[2], table.concat(out)
	if redis.call('GET', lock) == want then
		busy = 1
	else
		redis.call('SET', lock, want, 'PX', ARGV[3])
	end
end
out[#out + 1] = busy
return out
`

// luaMine makes sure that the lock of a fill is held for stamps that begin with
// those given: a result with rows depends on the first of those looked up.
const luaMine = `
local lock = KEYS[3] .. ARGV[1] .. 'f' .. ARGV[2]
local holds = redis.call('GET', lock)
local mine = holds and string.sub(holds, 1, #ARGV[3]) == ARGV[3]
`

// luaLock takes, holds or gives up the lock of a fill. ARGV: epoch, entry's key,
// stamps, the lock's life in milliseconds, and what to do. It returns 1 if another
// holds it.
const luaLock = luaMine + `
if ARGV[5] == 'take' then
	if holds == ARGV[3] then
		return 1
	end
	redis.call('SET', lock, ARGV[3], 'PX', ARGV[4])
elseif mine and ARGV[5] == 'hold' then
	redis.call('PEXPIRE', lock, ARGV[4])
elseif mine then
	redis.call('DEL', lock)
end
return 0
`

// luaFill stores an entry and gives up its lock. An entry that lost a race is
// never valid; it is left out because a valid one may be there already. ARGV:
// epoch, entry's key, stamps, value, its life in milliseconds, and the fields of
// the tags as far as they are in this partition: all or none. It returns whether
// it stored.
const luaFill = luaMine + `
if mine then
	redis.call('DEL', lock)
end
for i = 6, #ARGV do
	local at = (i - 6) * 8
	if redis.call('GET', KEYS[3] .. ARGV[1] .. ARGV[i]) ~= string.sub(ARGV[3], at + 1, at + 8) then
		return 0
	end
end
redis.call('SET', KEYS[3] .. ARGV[1] .. 'e' .. ARGV[2], ARGV[4], 'PX', ARGV[5])
return 1
`

// luaMark sets intents (I2). ARGV: an epoch in case there is none, the writer,
// the stamp that the catalog tag should have ('-': it does not matter), its field,
// the schema tag's field, and the fields to mark. It returns whether the schema
// tag was marked because of that stamp, and the age of the epoch in milliseconds.
const luaMark = luaBegin + luaWithout + `
local base = KEYS[3] .. e
local function mark(field)
	local ids = redis.call('HGET', KEYS[1], field) or ''
	redis.call('HSET', KEYS[1], field, without(ids, ARGV[2]) .. ARGV[2])
	redis.call('DEL', base .. field)
end
local moved = 0
if ARGV[3] ~= '-' and (redis.call('HEXISTS', KEYS[1], ARGV[4]) == 1 or redis.call('GET', base .. ARGV[4]) ~= ARGV[3]) then
	moved = 1
	mark(ARGV[5])
end
for i = 6, #ARGV do
	mark(ARGV[i])
end
return {moved, now - (redis.call('HGET', KEYS[1], 'born') or 0)}
`

// luaRelease drops a writer's intents and the stamps of the tags (I5). ARGV: the
// writer and the fields.
const luaRelease = luaWithout + `
local e = redis.call('HGET', KEYS[1], 'e')
for i = 2, #ARGV do
	local ids = redis.call('HGET', KEYS[1], ARGV[i])
	if ids then
		drop(ARGV[i], ids, ARGV[1])
	end
	if e then
		redis.call('DEL', KEYS[3] .. e .. ARGV[i])
	end
end
return 1
`

// luaResolve drops all intents of the writers in ARGV.
const luaResolve = luaWithout + `
local e = redis.call('HGET', KEYS[1], 'e')
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	local field, ids = all[i], all[i + 1]
	if string.sub(field, 1, 1) == 't' then
		local before = ids
		for _, id in ipairs(ARGV) do
			ids = drop(field, ids, id)
		end
		if ids ~= before and e then
			redis.call('DEL', KEYS[3] .. e .. field)
		end
	end
end
return 1
`

// luaPeek says how things stand, and begins an epoch where the lease has run out
// or lost its epoch (I13). The intents stay. ARGV: a new epoch. It returns the
// epoch, whether it is cold, what is left of the lease, and the time.
const luaPeek = luaBegin + `
local lease = redis.call('GET', KEYS[2])
local cold = redis.call('HEXISTS', KEYS[1], 'cold')
if lease ~= e and cold == 0 then
	e, cold = ARGV[1], 1
	redis.call('HSET', KEYS[1], 'e', e, 'cold', '1', 'born', now)
	redis.call('DEL', KEYS[2])
end
local left = 0
if cold == 0 then
	left = redis.call('PTTL', KEYS[2])
end
return {e, cold, left, now}
`

// luaExtend gives the epoch in ARGV a lease until a time in milliseconds, its
// first one if the third says so. It never shortens a lease, and takes no
// epoch but the one of now. It returns whether a lease stands.
const luaExtend = luaNow + `
if redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then
	return 0
end
local untill = tonumber(ARGV[2])
if untill > now then
	if redis.call('HDEL', KEYS[1], 'cold') == 1 then
		if ARGV[3] ~= '1' then
			redis.call('HSET', KEYS[1], 'cold', '1')
			return 0
		end
		redis.call('SET', KEYS[2], ARGV[1])
		redis.call('PEXPIREAT', KEYS[2], ARGV[2])
	elseif redis.call('GET', KEYS[2]) == ARGV[1] and redis.call('PTTL', KEYS[2]) < untill - now then
		redis.call('PEXPIREAT', KEYS[2], ARGV[2])
	end
end
if redis.call('GET', KEYS[2]) == ARGV[1] then
	return 1
end
return 0
`

// allowOOM lets a Redis from version 7 on take intents, which are few and short,
// although maxmemory is reached and nothing may be evicted.
const allowOOM = "#!lua flags=allow-oom\n"

// scripts are those of one server.
type scripts struct {
	prepare, lock, fill, mark, release, resolve, peek, extend script
}

type script struct{ source, sha string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source, hex.EncodeToString(sum[:])}
}

func newScripts(major int) *scripts {
	small := func(source string) script {
		if major >= 7 {
			source = allowOOM + source
		}
		return newScript(source)
	}
	return &scripts{
		prepare: newScript(luaPrepare), lock: newScript(luaLock), fill: newScript(luaFill),
		mark: small(luaMark), release: small(luaRelease), resolve: small(luaResolve), peek: small(luaPeek), extend: small(luaExtend),
	}
}
