package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"time"
	"unsafe"
)

// The encoding of an entry, integers big-endian, counts as uvarints:
//
//	version    1 byte
//	columns    count, then for each: name length, name, table OID (4), table
//	           column (2), type (4), type size (2), type modifier (4), format (2)
//	rows       count
//	took       microseconds, as a count
//	expires    milliseconds since 1970, as a count; 0 is none
//	data       length, bytes
//	checksum   4 bytes, CRC-32C of everything before
//
// The checksum finds what a store mangled or cut short. It is no defence
// against someone who writes entries on purpose.
const (
	codecVersion = 2

	// maxHead is how many bytes the names of columns may keep in memory beside as many
	// as their descriptions take.
	maxHead = 256

	columnFixed = 4 + 2 + 4 + 2 + 4 + 2
	columnMin   = 1 + columnFixed

	// maxBareRows bounds the rows of a result without columns, which take no
	// bytes: without it a few hostile bytes keep a reader busy for ever.
	maxBareRows = 1 << 24
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errEntryShort    = errors.New("cachedpg: encoded entry: too short")
	errEntryChecksum = errors.New("cachedpg: encoded entry: checksum does not match")
	errEntryData     = errors.New("cachedpg: encoded entry: data does not hold its rows")
)

// AppendEntry appends the encoding of e to dst. It keeps no reference to e. Took
// is rounded down to microseconds and Expires to milliseconds; what is before
// 1970 is none.
func AppendEntry(dst []byte, e *Entry) []byte {
	start := len(dst)
	dst = append(dst, codecVersion)
	dst = binary.AppendUvarint(dst, uint64(len(e.Columns)))
	for i := range e.Columns {
		c := &e.Columns[i]
		dst = binary.AppendUvarint(dst, uint64(len(c.Name)))
		dst = append(dst, c.Name...)
		dst = binary.BigEndian.AppendUint32(dst, c.TableOID)
		dst = binary.BigEndian.AppendUint16(dst, c.TableColumn)
		dst = binary.BigEndian.AppendUint32(dst, c.Type)
		dst = binary.BigEndian.AppendUint16(dst, uint16(c.TypeSize))
		dst = binary.BigEndian.AppendUint32(dst, uint32(c.TypeModifier))
		dst = binary.BigEndian.AppendUint16(dst, uint16(c.Format))
	}
	dst = binary.AppendUvarint(dst, uint64(e.Rows))
	dst = binary.AppendUvarint(dst, uint64(max(0, e.Took.Microseconds())))
	dst = binary.AppendUvarint(dst, uint64(max(0, e.Expires.onWall().UnixMilli())))
	dst = binary.AppendUvarint(dst, uint64(len(e.Data)))
	dst = append(dst, e.Data...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// DecodeEntry decodes what AppendEntry wrote. It copies encoded once, survives
// any bytes and allocates at most a small multiple of their length; the entry
// it returns is Valid. An error means that the bytes are no entry of this
// version: a miss.
func DecodeEntry(encoded []byte) (*Entry, error) {
	return DecodeEntryString(string(encoded))
}

// DecodeEntryString is DecodeEntry without the copy: the entry shares the
// memory of encoded, and keeps all of what that was cut from.
func DecodeEntryString(encoded string) (*Entry, error) {
	if len(encoded) < 1+4 {
		return nil, errEntryShort
	}
	if encoded[0] != codecVersion {
		return nil, fmt.Errorf("cachedpg: encoded entry: version %d is not %d", encoded[0], codecVersion)
	}
	body, sum := encoded[:len(encoded)-4], encoded[len(encoded)-4:]
	// Checksum only reads, so a string will do for its bytes.
	if crc32.Checksum(unsafe.Slice(unsafe.StringData(body), len(body)), castagnoli) != be32(sum) {
		return nil, errEntryChecksum
	}

	// All names and the data are cut out of it.
	d := decoder{rest: body[1:], ok: true}
	e := &Entry{}
	if n := d.count(len(d.rest) / columnMin); n > 0 {
		e.Columns = make([]Column, n)
	}
	for i := range e.Columns {
		c := &e.Columns[i]
		c.Name = d.take(d.count(len(d.rest)))
		fixed := d.take(columnFixed)
		if !d.ok {
			return nil, errEntryShort
		}
		c.TableOID = be32(fixed[0:])
		c.TableColumn = be16(fixed[4:])
		c.Type = be32(fixed[6:])
		c.TypeSize = int16(be16(fixed[10:]))
		c.TypeModifier = int32(be32(fixed[12:]))
		c.Format = int16(be16(fixed[16:]))
	}
	// Whoever keeps the names of the columns shall not keep the rows.
	if head := len(body) - 1 - len(d.rest); d.ok && len(d.rest) > head+maxHead {
		own := decoder{rest: strings.Clone(body[1 : 1+head]), ok: true}
		own.count(math.MaxInt32)
		for i := range e.Columns {
			e.Columns[i].Name = own.take(own.count(head))
			own.take(columnFixed)
		}
	}
	limit := math.MaxInt32
	if len(e.Columns) == 0 {
		limit = maxBareRows
	}
	e.Rows = d.count(limit)
	e.Took = time.Duration(d.uvarint(math.MaxInt64/1000)) * time.Microsecond
	if ms := d.uvarint(math.MaxInt64 / uint64(time.Millisecond)); ms > 0 {
		e.Expires = momentAt(time.UnixMilli(int64(ms)))
	}
	e.Data = d.take(d.count(len(d.rest)))
	if !d.ok || d.rest != "" {
		return nil, errEntryShort
	}
	if !e.Valid() {
		return nil, errEntryData
	}
	return e, nil
}

// decoder cuts pieces off rest. After a piece that is not there ok is false
// and every later piece is empty.
type decoder struct {
	rest string
	ok   bool
}

// count reads the number of things that follow.
func (d *decoder) count(limit int) int { return int(d.uvarint(uint64(limit))) }

// uvarint reads a number that must not exceed limit. It reads the canonical
// form only, so that equal entries have equal encodings.
func (d *decoder) uvarint(limit uint64) uint64 {
	var v uint64
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64 && d.ok; i++ {
		b := d.rest[i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if v > limit || b == 0 && i > 0 {
				break
			}
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.ok, d.rest = false, ""
	return 0
}

func (d *decoder) take(n int) string {
	if !d.ok || n > len(d.rest) {
		d.ok, d.rest = false, ""
		return ""
	}
	piece := d.rest[:n]
	d.rest = d.rest[n:]
	return piece
}

func be16(s string) uint16 { return uint16(s[0])<<8 | uint16(s[1]) }

func be32(s string) uint32 { return uint32(be16(s))<<16 | uint32(be16(s[2:])) }
