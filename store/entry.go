package store

import (
	"encoding/binary"
	"math"
	"unsafe"
)

const (
	entryBytes  = int(unsafe.Sizeof(Entry{}))
	columnBytes = int(unsafe.Sizeof(Column{}))
)

// Size returns the bytes of memory that the entry holds on to, its column
// descriptions included.
func (e *Entry) Size() int {
	size := entryBytes + len(e.Columns)*columnBytes + len(e.Data)
	for i := range e.Columns {
		size += len(e.Columns[i].Name)
	}
	return size
}

// Valid reports whether Data holds exactly Rows times len(Columns) values. It
// looks at each value's length, so its cost grows with their number.
func (e *Entry) Valid() bool {
	if e.Rows < 0 {
		return false
	}
	columns := len(e.Columns)
	if columns == 0 {
		return len(e.Data) == 0
	}
	// Four bytes a value at least: no row count can make the loop longer than Data.
	if e.Rows > len(e.Data)/4/columns {
		return false
	}
	values := e.Values()
	for range e.Rows * columns {
		if _, _, ok := values.Next(); !ok {
			return false
		}
	}
	return len(values.rest) == 0
}

// Values returns an iterator over the raw values, row by row. It is safe on
// any Data.
func (e *Entry) Values() Values {
	return Values{e.Data}
}

// Values iterates over the raw values of an entry. The zero Values is at its
// end. It must not be used concurrently; a copy is independent.
type Values struct {
	rest string
}

// Next returns the next value, which shares the entry's memory, and whether it
// is NULL. ok is false at the end and, for good, at the first bytes that are
// no value.
func (v *Values) Next() (value string, null, ok bool) {
	if len(v.rest) < 4 {
		return "", false, false
	}
	n := int32(uint32(v.rest[0])<<24 | uint32(v.rest[1])<<16 | uint32(v.rest[2])<<8 | uint32(v.rest[3]))
	if n == -1 {
		v.rest = v.rest[4:]
		return "", true, true
	}
	if n < 0 || int64(n) > int64(len(v.rest)-4) {
		return "", false, false
	}
	value = v.rest[4 : 4+int(n)]
	v.rest = v.rest[4+int(n):]
	return value, false, true
}

// AppendValue appends one raw value to an entry's Data in the making. A nil
// value is NULL, as in pgx's RawValues. PostgreSQL's protocol bounds a value by
// 2 GiB; a longer one panics.
func AppendValue(dst, value []byte) []byte {
	if value == nil {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	if int64(len(value)) > math.MaxInt32 {
		panic("cachedpg: a value of more than 2 GiB")
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
	return append(dst, value...)
}
