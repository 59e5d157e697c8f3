package redis

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/cachedpg/cachedpg/store"
)

// formatVersion goes into every name: programs that lay things out differently
// never meet.
const formatVersion = "1"

// namespace names everything that belongs to one database and one incarnation
// of a server: a server that was restarted, promoted or given another history
// starts cold, whatever it has on disk.
func namespace(identity string, s serverID) string {
	h := sha256.New()
	for _, part := range []string{formatVersion, identity, s.runID, s.replID} {
		h.Write(binary.AppendUvarint(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:15])
}

// base begins the names of a partition. In a Cluster the braces choose the slot.
func base(namespace string, partition int, cluster bool) string {
	if !cluster {
		return "cachedpg:" + namespace + ":"
	}
	return "cachedpg:{" + strconv.Itoa(partition) + "}:" + namespace + ":"
}

const (
	fieldSize = 1 + 17 // "t" and a tag
	stampSize = 8
	epochSize = 16
)

// appendField appends the field of a tag in D, which also ends the name of its
// stamp.
func appendField(b []byte, t store.Tag) []byte {
	b = append(b, 't')
	b = binary.BigEndian.AppendUint32(b, t.Relation)
	b = append(b, byte(t.Kind))
	b = binary.BigEndian.AppendUint32(b, t.Index)
	return binary.BigEndian.AppendUint64(b, t.Value)
}

func field(t store.Tag) string { return string(appendField(make([]byte, 0, fieldSize), t)) }

func appendStamp(b []byte, s store.Stamp) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(s))
}

// stampOf reads a stamp; what is none is zero.
func stampOf(s string) store.Stamp {
	if len(s) != stampSize {
		return 0
	}
	return store.Stamp(binary.BigEndian.Uint64([]byte(s)))
}

// joinStamps is what the lock of a fill holds.
func joinStamps(stamps []store.Stamp) string {
	b := make([]byte, 0, len(stamps)*stampSize)
	for _, s := range stamps {
		b = appendStamp(b, s)
	}
	return string(b)
}
