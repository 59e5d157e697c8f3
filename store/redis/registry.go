package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
)

// A database that has moved has another identity, and so a namespace of its own.
// Those who have not heard of it would go on hitting the one before, until its lease
// ends, while commits in the new one have returned. So a namespace is registered, by
// whatever its database shares with what it was before (Options.Families), before a
// commit can be marked in it. Who registers it first ends the epochs of the others:
//
//	process 1, knows A              process 2, knows B          store
//	                                registers B                 the epoch of A is cold
//	                                marks, COMMIT on B
//	a lookup: cold, asks PostgreSQL
//	(a hit of A's entries …)
//
// The epoch gets another lease if A's server says that it is A still: clones of one
// database that are alive make each other cold once.
//
// Namespaces of one server are not alive at the same time: there it is a name that was
// given to another database, and may be given back. Then nobody is registered first:
//
//	process 1, knows A              process 2, knows B          store
//	the name is A's again
//	marks, COMMIT on A
//	                                (a hit of B's entries …)    B's lease stands
//
// So a mark without a lease, and a lease that begins, end the epochs of those as well.
//
//	cachedpg:{partition}:family:r   a hash with the namespaces as its fields, and their servers
//
// Redis may evict it. Every renewal puts its own namespace back. Who finds no
// registry, on a server that has evicted anything, cannot end what it does not know of,
// and waits for one lease with its first commits.

// rivalsLua defines replace, which ends the epoch of a namespace, and rivals, which
// does so for those of the same server. What is before a namespace in names is its stem.
const rivalsLua = `
local function replace(space, stem, epoch)
  local d = stem .. space .. ':d'
  if redis.call('HEXISTS', d, 'e') == 0 then return false end
  local marks = redis.call('HGET', d, 'cold') == '1' and '1' or '2' -- lost, or kept as they are
  redis.call('HSET', d, 'e', epoch, 'cold', marks)
  redis.call('DEL', stem .. space .. ':l')
  return true
end
local function rivals(prefix, epoch)
  local stem, space = string.match(prefix, '^(.*:)([^:]+):$')
  for i = 3, #KEYS do
    local server = redis.call('HGET', KEYS[i], space)
    local all = server and server ~= '' and redis.call('HGETALL', KEYS[i]) or {}
    for j = 1, #all, 2 do
      if all[j] ~= space and all[j + 1] == server then replace(all[j], stem, epoch) end
    end
  end
end
`

// registerLua defines register, which returns for how many milliseconds commits
// have to wait. Its registries are KEYS from the third on. Where there are none
// it does nothing.
const registerLua = rivalsLua + `
local function register(space, stem, epoch, lease, server)
  local new, lost, wait = false, false, stem .. space .. ':w'
  for i = 3, #KEYS do
    if redis.call('HSET', KEYS[i], space, server) == 1 then new = true end
    redis.call('PEXPIRE', KEYS[i], 604800000)
  end
  if new then
    for i = 3, #KEYS do
      local all = redis.call('HGETALL', KEYS[i])
      lost = lost or #all == 2
      for j = 1, #all, 2 do
        if all[j] ~= space and not replace(all[j], stem, epoch) then redis.call('HDEL', KEYS[i], all[j]) end
      end
    end
    if lost and not string.find(redis.call('INFO', 'stats'), 'evicted_keys:0', 1, true) then
      redis.call('SET', wait, '', 'PX', lease)
    end
  end
  return math.max(0, redis.call('PTTL', wait))
end
`

// Registers a namespace, see registry.go.
//
// KEYS: D, L, registries. ARGV: namespace, what comes before it in names, an epoch's
// id, lease in milliseconds, server.
// Returns for how many milliseconds commits have to wait.
var registerScript = newScript(registerLua+`
return {register(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])}
`, true)

// registry names the registry of a family on the partition.
func registry(partition int, family, runID, replID string) string {
	h := sha256.New()
	for _, part := range []string{formatVersion, "family", family, runID, replID} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return prefix(partition, base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])) + "r"
}

// register makes sure that the partition's namespace is registered, once.
func (p *partition) register(ctx context.Context) error {
	if len(p.keys) == 2 || p.registered.Load() != nil {
		return nil
	}
	reply, err := p.run(ctx, registerScript, p.keys, p.space, hashTag(p.index)+":", newEpoch(), patience.Lease.Milliseconds(), p.store.server)
	if err != nil {
		return err
	}
	wait, ok := int64(0), false
	if len(reply) == 1 {
		wait, ok = reply[0].(int64)
	}
	if !ok {
		return errReply
	}
	p.enroll(wait)
	return nil
}

// enroll notes that the namespace is registered, and until when commits wait.
func (p *partition) enroll(wait int64) {
	until := time.Now().Add(leaseOf(wait))
	p.registered.CompareAndSwap(nil, &until)
}

// young is how long a commit that is marked now has to wait for leases of
// namespaces that nobody knows of.
func (p *partition) young() time.Duration {
	if until := p.registered.Load(); until != nil {
		return max(0, time.Until(*until))
	}
	return 0
}
