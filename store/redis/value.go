package redis

import (
	"encoding/binary"
	"errors"

	"github.com/cachedpg/cachedpg/store"
)

// A stored value is a header and a body. The header has the format, a count,
// and for each tag that the entry depends on its field and its stamp. The body is
// the encoded entry, sealed if values are encrypted; the header and the value's
// name are sealed with it, so that neither can be exchanged.
const (
	valuePlain  = 1
	valueSealed = 2

	tagSize = fieldSize + stampSize
	maxTags = 1 << 12
)

var errValue = errors.New("cachedpg: a stored value that is none of this version")

func appendValue(sealer *Sealer, name string, tags []store.Tag, stamps []store.Stamp, e *store.Entry) []byte {
	b := make([]byte, 0, 3+len(tags)*tagSize+e.Size()+64)
	format := byte(valuePlain)
	if sealer != nil {
		format = valueSealed
	}
	b = append(b, format)
	b = binary.BigEndian.AppendUint16(b, uint16(len(tags)))
	for i, t := range tags {
		b = appendField(b, t)
		b = appendStamp(b, stamps[i])
	}
	if sealer == nil {
		return store.AppendEntry(b, e)
	}
	return sealer.Seal(b, store.AppendEntry(nil, e), additional(name, b))
}

func additional(name string, header []byte) []byte {
	return append(append([]byte(nil), name...), header...)
}

// split cuts a value into its header's tags and its body.
func split(value string) (format byte, tags, body string, err error) {
	if len(value) < 3 {
		return 0, "", "", errValue
	}
	n := (int(value[1])<<8 | int(value[2])) * tagSize
	if format = value[0]; format != valuePlain && format != valueSealed || n > maxTags*tagSize || len(value) < 3+n {
		return 0, "", "", errValue
	}
	return format, value[3 : 3+n], value[3+n:], nil
}

// openValue decodes the body of a value under its name.
func openValue(sealer *Sealer, name, value string) (*store.Entry, error) {
	format, tags, body, err := split(value)
	if err != nil {
		return nil, err
	}
	switch {
	case format == valuePlain && sealer == nil:
		return store.DecodeEntryString(body)
	case format == valueSealed && sealer != nil:
		plain, err := sealer.Open(nil, []byte(body), additional(name, []byte(value[:3+len(tags)])))
		if err != nil {
			return nil, err
		}
		return store.DecodeEntry(plain)
	}
	return nil, errValue // some encrypt and some do not: neither trusts the other
}
