package redis

import (
	"encoding/binary"

	"github.com/cachedpg/cachedpg/store"
)

// A stored entry, integers big-endian:
//
//	format    1 byte
//	tags      count (2), then for each that it depends on: the tag (17), its stamp (8)
//	body      store.AppendEntry, or that sealed, with all that comes before and the
//	          entry's name as additional data
const (
	entryFormat = 1

	depBytes    = store.TagBytes + stampBytes
	headerBytes = 1 + 2
)

// parseEntry takes a stored entry apart. It survives any bytes and allocates nothing.
func parseEntry(value string) (deps, body string, ok bool) {
	if len(value) < headerBytes || value[0] != entryFormat {
		return "", "", false
	}
	end := headerBytes + (int(value[1])<<8|int(value[2]))*depBytes
	if len(value) < end {
		return "", "", false
	}
	return value[headerBytes:end], value[end:], true
}

// decodeEntry returns the entry whose body is the end of value, which is stored
// under the name.
func decodeEntry(value, body string, sealer *Sealer, name string) (*store.Entry, error) {
	if sealer == nil {
		return store.DecodeEntryString(body)
	}
	additional := append([]byte(value[:len(value)-len(body)]), name...)
	plain, err := sealer.Open(nil, []byte(body), additional)
	if err != nil {
		return nil, err
	}
	return store.DecodeEntry(plain)
}

// encodeEntry is the reverse. tags and stamps are as many, and no more than the
// count has room for.
func encodeEntry(entry *store.Entry, tags []store.Tag, stamps []store.Stamp, sealer *Sealer, name string) []byte {
	b := make([]byte, 0, headerBytes+len(tags)*depBytes+len(name)+entry.Size()+SealOverhead)
	b = append(b, entryFormat)
	b = binary.BigEndian.AppendUint16(b, uint16(len(tags)))
	for i, t := range tags {
		b = appendStamp(store.AppendTag(b, t), stamps[i])
	}
	if sealer == nil {
		return store.AppendEntry(b, entry)
	}
	additional := append(b[:len(b):len(b)], name...)
	return sealer.Seal(b, store.AppendEntry(nil, entry), additional)
}
