package keying

import (
	"database/sql/driver"
	"encoding/binary"
	"math"
	"net/netip"
	"reflect"
	"time"
)

// The encoding of an argument is one byte that says what follows, and then
// exactly as many bytes as can be told from what was read so far. So it could
// be decoded, and two different lists of arguments never give the same bytes:
// the tests decode it. The Go type is part of it, because pgx encodes by type:
// int64(1) and "1" may be different values to PostgreSQL. Where they are not, see integers.go.
const (
	codeNil byte = iota
	codeInt64
	codeInt
	codeInt32
	codeString
	codeBytes
	codeNilBytes
	codeFalse
	codeTrue
	codeFloat64
	codeTime
	codeUUID
	codeOther    // type name, then the rest
	codePointer  // within codeOther: the value pointed to
	codeNilValue // within codeOther: a nil pointer or slice
	codeSigned
	codeUnsigned
	codeFloat
	codeText
	codeRaw
	codeList
	codeValuer
	codeMethod // output of a method that pgx may encode with
	codeAddr
	codePrefix
	codeInteger // of any Go type, for a parameter that is an integer
)

// maxDepth bounds nested arguments; what is deeper has no encoding.
const maxDepth = 8

// encoder appends arguments to buf.
type encoder struct {
	buf   []byte
	clock bool // a text among the values may be a clock-dependent time
	depth int
}

func (e *encoder) uint(x uint64)  { e.buf = binary.AppendUvarint(e.buf, x) }
func (e *encoder) fixed(x uint64) { e.buf = binary.BigEndian.AppendUint64(e.buf, x) }

func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
	e.clock = e.clock || clockInput(s)
}

// bytes looks for dates too: pgx sends a []byte as it is, whatever the type of
// the parameter.
func (e *encoder) bytes(b []byte) {
	e.uint(uint64(len(b)))
	e.buf = append(e.buf, b...)
	e.clock = e.clock || clockInput(b)
}

// name writes a type's name, which is no value.
func (e *encoder) name(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

// value appends v and reports whether it has an encoding. The first types are
// handled without reflection and without allocating.
func (e *encoder) value(v any) bool {
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, codeNil)
	case int64:
		e.buf = append(e.buf, codeInt64)
		e.fixed(uint64(v))
	case int:
		e.buf = append(e.buf, codeInt)
		e.fixed(uint64(v))
	case int32:
		e.buf = append(e.buf, codeInt32)
		e.fixed(uint64(v))
	case string:
		e.buf = append(e.buf, codeString)
		e.text(v)
	case []byte:
		if v == nil {
			e.buf = append(e.buf, codeNilBytes) // NULL, where an empty one is ''
			break
		}
		e.buf = append(e.buf, codeBytes)
		e.bytes(v)
	case bool:
		if v {
			e.buf = append(e.buf, codeTrue)
		} else {
			e.buf = append(e.buf, codeFalse)
		}
	case float64:
		e.buf = append(e.buf, codeFloat64)
		e.fixed(math.Float64bits(v)) // by bits: NaN equals itself, -0 is not 0
	case time.Time:
		e.buf = append(e.buf, codeTime)
		e.time(v)
	case [16]byte:
		e.buf = append(e.buf, codeUUID)
		e.buf = append(e.buf, v[:]...)
	default:
		return e.other(v)
	}
	return true
}

// time appends the instant, the offset and the zone's name: pgx sends the wall
// clock for timestamp, the instant for timestamptz, and may format all of it.
func (e *encoder) time(t time.Time) {
	zone, offset := t.Zone()
	e.fixed(uint64(t.Unix()))
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(t.Nanosecond()))
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(int32(offset)))
	e.name(zone)
}

// other handles every type that value does not know, by reflection.
func (e *encoder) other(v any) (ok bool) {
	if e.depth == maxDepth {
		return false
	}
	e.depth++
	defer func() {
		e.depth--
		// Value, String and the like are the application's code. pgx will call
		// them too and meet the same panic, where it belongs to the caller.
		if recover() != nil {
			ok = false
		}
	}()

	r := reflect.ValueOf(v)
	t := typeOf(r.Type())
	if t.opaque {
		return false
	}
	e.buf = append(e.buf, codeOther)
	e.name(t.name)

	if r.Kind() == reflect.Pointer && r.IsNil() {
		e.buf = append(e.buf, codeNilValue)
		// A method with a pointer receiver may give nil a meaning.
		return !t.valuer || t.nilIsNull
	}
	if t.valuer {
		e.buf = append(e.buf, codeValuer)
		value, err := v.(driver.Valuer).Value()
		return err == nil && e.value(value) // all that pgx sees of it
	}
	return e.methods(v, t) && e.kind(r, t)
}

// kind appends the contents of r as its underlying type.
func (e *encoder) kind(r reflect.Value, t *typeInfo) bool {
	switch r.Kind() {
	case reflect.Pointer:
		e.buf = append(e.buf, codePointer)
		return e.value(r.Elem().Interface())
	case reflect.Bool:
		return e.value(r.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.buf = append(e.buf, codeSigned)
		e.fixed(uint64(r.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.buf = append(e.buf, codeUnsigned)
		e.fixed(r.Uint())
	case reflect.Float32, reflect.Float64:
		e.buf = append(e.buf, codeFloat)
		e.fixed(math.Float64bits(r.Float()))
	case reflect.String:
		e.buf = append(e.buf, codeText)
		e.text(r.String())
	case reflect.Slice:
		if r.IsNil() {
			e.buf = append(e.buf, codeNilValue)
			return true
		}
		if t.bytes {
			e.buf = append(e.buf, codeRaw)
			e.bytes(r.Bytes())
			return true
		}
		return e.list(r)
	case reflect.Array:
		if !t.bytes {
			return e.list(r)
		}
		e.buf = append(e.buf, codeRaw)
		e.uint(uint64(r.Len()))
		for i := range r.Len() {
			e.buf = append(e.buf, byte(r.Index(i).Uint()))
		}
		e.clock = e.clock || clockInput(e.buf[len(e.buf)-r.Len():])
	case reflect.Struct:
		return e.structure(r)
	default:
		return false
	}
	return true
}

func (e *encoder) list(r reflect.Value) bool {
	e.buf = append(e.buf, codeList)
	e.uint(uint64(r.Len()))
	for i := range r.Len() {
		if !e.value(r.Index(i).Interface()) {
			return false
		}
	}
	return true
}

// structure knows the only structs with a text form of their own that pgx takes.
func (e *encoder) structure(r reflect.Value) bool {
	switch v := r.Interface().(type) {
	case time.Time:
		e.buf = append(e.buf, codeTime)
		e.time(v)
	case netip.Addr:
		e.buf = append(e.buf, codeAddr)
		e.name(v.String())
	case netip.Prefix:
		if !v.IsValid() && v != (netip.Prefix{}) {
			return false
		}
		e.buf = append(e.buf, codePrefix)
		e.name(v.String())
	default:
		return false
	}
	return true
}
