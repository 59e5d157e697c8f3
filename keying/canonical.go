package keying

import (
	"database/sql/driver"
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/parser"
)

// part is one column of a key with the operands that fix it.
type part struct {
	class  class
	lo, hi int64 // range of an integer type
	values []operand
	array  bool // values[0] is an array

	// stored says that the values are stored, not compared: varchar(n) then
	// cuts blanks off, timestamp(0) rounds.
	stored bool
}

// ofTime reports whether the values are dates or times.
func (p *part) ofTime() bool {
	return p.class == dateClass || p.class == timestampClass || p.class == timestamptzClass
}

// collated reports whether the column's collation decides what is equal.
func (p *part) collated() bool { return p.class == textClass || p.class == bpcharClass }

type operand struct {
	parser.Operand

	// shared is a parameter that the text uses elsewhere too, so that its type
	// may come from there: the comparison may be that of float4, "char" or oid.
	shared bool
}

// doubt says why PostgreSQL may compare with another value than the one given.
type doubt uint8

const (
	inferred doubt = 1 << iota // the parameter's type may come from elsewhere in the text
	encoded                    // the bytes of a text that is not ASCII may be others in PostgreSQL
)

func (o *operand) doubt(v Values) (d doubt) {
	if o.shared {
		d |= inferred
	}
	if v.Encoded {
		d |= encoded
	}
	return d
}

// length is the number of values of the part.
func (p *part) length(v Values) int {
	if !p.array {
		return len(p.values)
	}
	a, ok := argument(v, p.values[0].Param)
	if !ok {
		return 0
	}
	switch a := a.(type) {
	case []int64:
		return len(a)
	case []int32:
		return len(a)
	case []int:
		return len(a)
	case []string:
		return len(a)
	case [][16]byte:
		return len(a)
	}
	if r := reflect.ValueOf(a); r.Kind() == reflect.Slice {
		if t := typeOf(r.Type()); !t.valuer && !t.opaque && !t.methods && !t.bytes {
			return r.Len()
		}
	}
	return 0
}

// mix adds the i-th value to the hash. It reports false when the value has no
// canonical form, and then tags must be coarse.
func (p *part) mix(h rowHash, v Values, i int) (rowHash, bool) {
	if p.array {
		return p.element(h, v, i)
	}
	o := &p.values[i]
	if o.Literal > 0 {
		if o.Literal > len(v.Literals) {
			return h, false
		}
		return p.literal(h, v.Literals[o.Literal-1], o.Negated, o.doubt(v))
	}
	a, ok := argument(v, o.Param)
	if !ok || o.Negated {
		return h, false
	}
	return p.value(h, a, o.doubt(v), 0)
}

// null reports that the i-th value is NULL.
func (p *part) null(v Values, i int) bool {
	if p.array || p.values[i].Param == 0 {
		return false
	}
	a, ok := argument(v, p.values[i].Param)
	return ok && isNull(a)
}

// isNull reports that pgx sends NULL for an argument.
func isNull(a any) bool {
	if a == nil {
		return true
	}
	t := typeOf(reflect.TypeOf(a))
	if r := reflect.ValueOf(a); r.Kind() == reflect.Pointer && r.IsNil() {
		return !t.opaque
	}
	if !t.valuer || !t.trusted {
		return false
	}
	value, err := a.(driver.Valuer).Value()
	return err == nil && value == nil
}

func (p *part) element(h rowHash, v Values, i int) (rowHash, bool) {
	o := &p.values[0]
	a, _ := argument(v, o.Param)
	switch a := a.(type) {
	case []int64:
		return p.integer(h, a[i], o.doubt(v))
	case []int32:
		return p.integer(h, int64(a[i]), o.doubt(v))
	case []int:
		return p.integer(h, int64(a[i]), o.doubt(v))
	case []string:
		return p.text(h, a[i], o.doubt(v))
	case [][16]byte:
		return p.uuid(h, &a[i])
	}
	return p.value(h, reflect.ValueOf(a).Index(i).Interface(), o.doubt(v), 0)
}

func argument(v Values, n int) (any, bool) {
	if n < 1 || n > len(v.Args) || v.Args[n-1].Name != "" {
		return nil, false
	}
	return v.Args[n-1].Value, true
}

// literal takes only literals that the grammar gives the column's type, or no
// type: 5 and '5' for an integer, 'a' for a text.
func (p *part) literal(h rowHash, l parser.Literal, negated bool, d doubt) (rowHash, bool) {
	switch l.Kind {
	case parser.Integer, parser.Number:
		if p.class == numericClass {
			return p.decimal(h, l.Text, negated, d)
		}
		if p.class != intClass && p.class != oidClass || len(l.Text) > 18 {
			return h, false
		}
		var n int64
		for _, c := range []byte(l.Text) {
			if c < '0' || c > '9' {
				return h, false // 5.0, 5e0, 0x5, 5_0
			}
			n = n*10 + int64(c-'0')
		}
		if len(l.Text) == 0 {
			return h, false
		}
		if negated {
			n = -n
		}
		return p.integer(h, n, d)
	case parser.String:
		if negated {
			return h, false
		}
		return p.text(h, l.Text, d)
	}
	return h, false
}

// value takes what pgx would send for the column's type, and nothing about
// which there could be two opinions.
func (p *part) value(h rowHash, a any, d doubt, depth int) (rowHash, bool) {
	switch a := a.(type) {
	case int64:
		return p.integer(h, a, d)
	case int:
		return p.integer(h, int64(a), d)
	case int32:
		return p.integer(h, int64(a), d)
	case int16:
		return p.integer(h, int64(a), d)
	case string:
		return p.text(h, a, d)
	case bool:
		return p.boolean(h, a)
	case [16]byte:
		return p.uuid(h, &a)
	case time.Time:
		return p.moment(h, a, d)
	case nil:
		return h, false // = NULL finds nothing, and no row has that value
	}
	if depth > 3 {
		return h, false
	}
	r := reflect.ValueOf(a)
	t := typeOf(r.Type())
	if r.Kind() == reflect.Pointer && r.IsNil() {
		return h, false
	}
	if t.valuer {
		if !t.trusted {
			return h, false
		}
		if p.ofTime() && t.time != anyTime && t.time != p.class {
			return h, false
		}
		value, err := a.(driver.Valuer).Value()
		if err != nil {
			return h, false
		}
		return p.value(h, value, d, depth+1)
	}
	if t.opaque {
		return h, false
	}
	return p.kind(h, r, t, d, depth)
}

func (p *part) kind(h rowHash, r reflect.Value, t *typeInfo, d doubt, depth int) (rowHash, bool) {
	switch r.Kind() {
	case reflect.Pointer:
		if t.methods {
			return h, false
		}
		return p.value(h, r.Elem().Interface(), d, depth+1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if t.methods && !samePrinted(r.Interface(), strconv.FormatInt(r.Int(), 10), p.class != numericClass) {
			return h, false
		}
		return p.integer(h, r.Int(), d)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if r.Uint() > math.MaxInt64 ||
			t.methods && !samePrinted(r.Interface(), strconv.FormatUint(r.Uint(), 10), p.class != numericClass) {
			return h, false
		}
		return p.integer(h, int64(r.Uint()), d)
	case reflect.String:
		if t.methods && !samePrinted(r.Interface(), r.String(), false) {
			return h, false
		}
		return p.text(h, r.String(), d)
	case reflect.Bool:
		if t.methods {
			return h, false
		}
		return p.boolean(h, r.Bool())
	case reflect.Array:
		if !t.bytes || t.methods || r.Len() != 16 {
			return h, false
		}
		u := r.Convert(reflect.TypeFor[[16]byte]()).Interface().([16]byte)
		return p.uuid(h, &u)
	}
	return h, false
}

// samePrinted reports whether the methods by which some exec modes of pgx print
// v cannot make PostgreSQL see another value than plain: they print the same,
// or, for an integer, something that is no integer and that PostgreSQL refuses.
func samePrinted(v any, plain string, integer bool) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	ok := func(s string) bool {
		if s == plain {
			return true
		}
		if !integer {
			return false
		}
		_, err := strconv.ParseInt(strings.TrimSpace(s), 0, 64)
		return err != nil
	}
	if m, is := v.(fmt.Stringer); is && !ok(m.String()) {
		return false
	}
	if m, is := v.(encoding.TextMarshaler); is {
		b, err := m.MarshalText()
		return err == nil && ok(string(b))
	}
	return true
}

// integer: a value out of the column's range equals no row, or is an error;
// either way there is no tag for it.
func (p *part) integer(h rowHash, n int64, d doubt) (rowHash, bool) {
	if p.class == numericClass {
		var digits [20]byte
		return p.decimal(h, string(strconv.AppendInt(digits[:0], n, 10)), false, d)
	}
	if p.class != intClass && p.class != oidClass || n < p.lo || n > p.hi {
		return h, false
	}
	// If the parameter's type comes from elsewhere in the text it may be
	// float4, which is exact up to here, or oid, to which -1 is its largest.
	if d&inferred != 0 && (n < 0 || n > 1<<24) {
		return h, false
	}
	return h.word(uint64(n)), true
}

// text takes a string for any class: for an integer in the strict form that has
// one spelling per value.
func (p *part) text(h rowHash, s string, d doubt) (rowHash, bool) {
	switch p.class {
	case textClass:
		if p.stored && strings.HasSuffix(s, " ") {
			return h, false
		}
		// As name or "char" it would be cut, as char it would lose blanks.
		if d&inferred != 0 || d&encoded != 0 && !isASCII(s) {
			return h, false
		}
		return h.bytes(s), true
	case bpcharClass:
		// What is stored loses no more than blanks, or is refused. As a text they count.
		if d&inferred != 0 || d&encoded != 0 && !isASCII(s) {
			return h, false
		}
		return h.bytes(strings.TrimRight(s, " ")), true
	case intClass, oidClass:
		n, ok := strictInteger(s)
		if !ok {
			return h, false
		}
		return p.integer(h, n, d)
	case uuidClass:
		u, ok := parseUUID(s)
		if !ok {
			return h, false
		}
		return p.uuid(h, &u)
	case dateClass, timestampClass, timestamptzClass:
		return p.momentText(h, s, d)
	case numericClass:
		return p.decimal(h, s, false, d)
	}
	return h, false
}

func (p *part) uuid(h rowHash, u *[16]byte) (rowHash, bool) {
	if p.class != uuidClass {
		return h, false
	}
	return h.uuid(u), true
}

func (p *part) boolean(h rowHash, b bool) (rowHash, bool) {
	if p.class != boolClass {
		return h, false
	}
	if b {
		return h.word(1), true
	}
	return h.word(0), true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
