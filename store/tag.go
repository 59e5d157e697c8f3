package store

import "encoding/binary"

// TagBytes is the length of a tag as AppendTag writes it.
const TagBytes = 4 + 1 + 4 + 8

// AppendTag appends the tag's fields in big-endian order, as they are stored in
// Redis and sent to others.
func AppendTag(dst []byte, t Tag) []byte {
	dst = binary.BigEndian.AppendUint32(dst, t.Relation)
	dst = append(dst, byte(t.Kind)|t.Part<<4)
	dst = binary.BigEndian.AppendUint32(dst, t.Index)
	return binary.BigEndian.AppendUint64(dst, t.Value)
}

// ParseTag reads what AppendTag has written; false if b is none. A kind that is
// not known is TagSchema: whoever wrote it meant something to be invalidated.
func ParseTag(b []byte) (t Tag, ok bool) {
	if len(b) != TagBytes {
		return t, false
	}
	t = Tag{Relation: binary.BigEndian.Uint32(b), Kind: TagKind(b[4] & 0xf), Part: b[4] >> 4, Index: binary.BigEndian.Uint32(b[5:]), Value: binary.BigEndian.Uint64(b[9:])}
	if t.Kind > lastTagKind {
		t = Tag{Kind: TagSchema}
	}
	return t, true
}
