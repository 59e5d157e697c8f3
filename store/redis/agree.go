package redis

import (
	"context"

	"github.com/cachedpg/cachedpg/store"
)

// The digest is kept in D, so that it ends with the epoch, and with the name of
// the epoch before it, because D outlives that when a lease runs out. It is replaced
// and the stamps with it in one step: what stands under a stamp of the schema tag
// was planned with the catalog of the digest (I22). Whoever finds other stamps than
// before he loaded does not know whether his catalog is older or newer than the
// digest, and changes nothing. Unless it is the very digest that stands beside these stamps: of processes
// that begin together one puts it there, and the others take its stamps.
//
// KEYS: D, L. ARGV: prefix, epoch, version, digest, then for the schema and the
// catalog the tag, its stamp of before, and a new one; time to live of stamps.
// Returns what it found, and of the same digest its stamps.
var agreeScript = newScript(`
local d, l, prefix, e = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('GET', l) ~= e or redis.call('HGET', d, 'e') ~= e then return {'cold'} end
local now = {}
for i = 5, 8, 3 do
  if redis.call('HEXISTS', d, 't' .. ARGV[i]) == 1 then return {'moved'} end
  now[#now + 1] = redis.call('GET', prefix .. 's' .. e .. ARGV[i]) or ''
end
local field, digest = 'g' .. ARGV[3], e .. ARGV[4]
local kept = redis.call('HGET', d, field) or ''
if kept == digest .. now[1] .. now[2] then return {'same', now[1], now[2]} end
if now[1] ~= ARGV[6] or now[2] ~= ARGV[9] then return {'moved'} end
if string.sub(kept, 1, #digest) == digest then
  redis.call('HSET', d, field, digest .. now[1] .. now[2])
  return {'same', now[1], now[2]}
end
redis.call('HSET', d, field, digest .. ARGV[7] .. ARGV[10])
for i = 5, 8, 3 do redis.call('SET', prefix .. 's' .. e .. ARGV[i], ARGV[i + 2], 'PX', ARGV[11]) end
return {'replaced'}
`, true)

// Agree implements store.Shared.
func (s *Store) Agree(ctx context.Context, version string, digest [32]byte, stamps *[2]store.Stamp) (store.Agreement, error) {
	var agreement store.Agreement
	err := s.use(ctx, func(in *incarnation) error {
		p := in.partitions[0]
		fresh := [2]store.Stamp{newStamp(p.index), newStamp(p.index)}
		reply, err := p.run(ctx, agreeScript, p.keys, p.prefix, p.current(), version, digest[:],
			schemaTag, appendStamp(nil, stamps[0]), appendStamp(nil, fresh[0]),
			catalogTag, appendStamp(nil, stamps[1]), appendStamp(nil, fresh[1]), s.stampTTL())
		if err != nil {
			return err
		}
		words := make([]string, 3)
		for i := range min(len(reply), len(words)) {
			words[i], _ = reply[i].(string)
		}
		switch words[0] {
		case "same":
			agreement, *stamps = store.Agreed, [2]store.Stamp{stampOf(words[1]), stampOf(words[2])}
		case "replaced":
			agreement, *stamps = store.Replaced, fresh
		case "moved":
			agreement = store.Moved
		case "cold":
			return store.ErrCold
		default:
			return errReply
		}
		return nil
	})
	return agreement, err
}
