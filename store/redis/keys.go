package redis

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/store"
)

// All names begin with "cachedpg:", so that one rule of an ACL covers them:
//
//	cachedpg:{partition}:namespace:d           D, a hash: the epoch, all intents, the list of doors
//	cachedpg:{partition}:namespace:l           L, the lease: the epoch's id
//	cachedpg:{partition}:namespace:s epoch tag   a stamp, 8 bytes
//	cachedpg:{partition}:namespace:e epoch key   an entry
//	cachedpg:{partition}:namespace:f epoch key   the fill lock: the stamps that it is for
//	cachedpg:{partition}:namespace:w           commits wait while it is there
//	cachedpg:{partition}:namespace:t           a hash: traffic of the relations in this window, see doors.go
//	cachedpg:{partition}:family:r              a hash: namespaces, see registry.go
//
// Epoch, tag and key have a fixed length and no blanks between them. The braces
// keep a partition's keys on one node of a Cluster.
const (
	formatVersion = "3" // of names and scripts; entries have one of their own

	epochBytes = 12
	stampBytes = 8
)

// namespace names what the cache is of and the life of the server that it is
// in. Whatever is restored, promoted or moved finds itself under another name.
func namespace(identity, runID, replID string) string {
	h := sha256.New()
	for _, part := range []string{formatVersion, identity, runID, replID} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

func prefix(partition int, namespace string) string {
	return hashTag(partition) + ":" + namespace + ":"
}

// hashTag is what decides in which slot of a Cluster a partition is.
func hashTag(partition int) string { return "cachedpg:{p" + strconv.Itoa(partition) + "}" }

func encodeTag(t store.Tag) string {
	return string(store.AppendTag(make([]byte, 0, store.TagBytes), t))
}

// appendFields appends the names of the fields of D that hold the intents on tags to the arguments of
// a script. Two allocations are enough for all of them.
func appendFields(argv []any, tags ...store.Tag) []any {
	const length = 1 + store.TagBytes
	var all strings.Builder
	all.Grow(len(tags) * length)
	var field [length]byte
	for _, t := range tags {
		all.Write(store.AppendTag(append(field[:0], 't'), t))
	}
	names := make([]string, len(tags))
	for i := range names {
		names[i] = all.String()[i*length:][:length]
		argv = append(argv, &names[i]) // a string itself would be copied
	}
	return argv
}

var (
	schemaTag  = encodeTag(store.Tag{Kind: store.TagSchema})
	catalogTag = encodeTag(store.Tag{Kind: store.TagCatalog})

	catalogFields = appendFields(nil, store.Tag{Kind: store.TagCatalog}, store.Tag{Kind: store.TagSchema})
)

// partitionBits are the lowest bits of a stamp, which hold the number of the
// partition that it was minted in. So stamps alone tell where an entry that
// was filled with them, and its fill lock, are.
const (
	partitionBits = 6
	maxPartitions = 1 << partitionBits
)

// newStamp returns a stamp that was never used before, in all likelihood of 58
// random bits (I6).
func newStamp(partition int) store.Stamp {
	for {
		if s := rand.Uint64()<<partitionBits | uint64(partition); s>>partitionBits != 0 {
			return store.Stamp(s)
		}
	}
}

func appendStamp(dst []byte, s store.Stamp) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(s))
}

func stampOf(s string) store.Stamp {
	if len(s) != stampBytes {
		return 0
	}
	return store.Stamp(binary.BigEndian.Uint64([]byte(s)))
}

// homeOf returns the partition that holds the entry and the fill lock of stamps
// in the order of their tags: that of the first relation. Relations are never in
// partition 0 of several, see incarnation.partitionOf.
func homeOf(stamps []store.Stamp) int {
	for _, s := range stamps {
		if p := int(s & (maxPartitions - 1)); p != 0 {
			return p
		}
	}
	return 0
}

// lockOf returns what the fill lock holds: the stamps that were minted at home.
// A fill gives fewer tags than its lookup, but those that come first, so its
// lock is a prefix of the lookup's.
func lockOf(home int, stamps []store.Stamp) string {
	b := make([]byte, 0, len(stamps)*stampBytes)
	for _, s := range stamps {
		if int(s&(maxPartitions-1)) == home {
			b = appendStamp(b, s)
		}
	}
	return string(b)
}

// newEpoch returns an id that was never used before.
func newEpoch() string {
	b := binary.BigEndian.AppendUint64(nil, rand.Uint64())
	return base64.RawURLEncoding.EncodeToString(append(b, byte(rand.Uint32())))
}
