package keying

import (
	"database/sql/driver"
	"encoding"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"time"
)

// typeInfo is what the encoder knows of a Go type.
type typeInfo struct {
	name      string // unique per type; for a named one with its package path
	opaque    bool   // no canonical encoding
	valuer    bool
	nilIsNull bool // a nil pointer is NULL without asking Value
	bytes     bool // a slice or an array of plain bytes
	methods   bool // has methods that pgx may encode with

	// trusted types are Valuers whose Value is the one form of a value.
	trusted bool

	// time is of which class of dates and times a trusted type is. pgx may send the
	// text of a pgtype.Date for a timestamptz, which is midnight in the session's
	// TimeZone, or the time in it, by exec mode: so each is taken for its own.
	time class
}

// anyTime is the class of the types that are to pgx what a time.Time is.
const anyTime class = 255

// timeNames are the trusted types that may hold a time.
var timeNames = map[string]class{
	"database/sql.NullTime":                      anyTime,
	"database/sql.Null[time.Time]":               anyTime,
	"github.com/jackc/pgx/v5/pgtype.Date":        dateClass,
	"github.com/jackc/pgx/v5/pgtype.Timestamp":   timestampClass,
	"github.com/jackc/pgx/v5/pgtype.Timestamptz": timestamptzClass,
}

// types caches typeInfo by reflect.Type. A program has few argument types.
var types sync.Map

func typeOf(t reflect.Type) *typeInfo {
	if info, ok := types.Load(t); ok {
		return info.(*typeInfo)
	}
	info, _ := types.LoadOrStore(t, inspect(t))
	return info.(*typeInfo)
}

var (
	valuerType  = reflect.TypeFor[driver.Valuer]()
	timeType    = reflect.TypeFor[time.Time]()
	addrType    = reflect.TypeFor[netip.Addr]()
	prefixType  = reflect.TypeFor[netip.Prefix]()
	stringer    = reflect.TypeFor[fmt.Stringer]()
	textMarshal = reflect.TypeFor[encoding.TextMarshaler]()
	jsonMarshal = reflect.TypeFor[json.Marshaler]()
)

// trustedPackages have Valuers whose Value depends on nothing but the value,
// and gives each value one form: uuid packages, sql.NullInt64, pgtype.UUID.
var trustedPackages = map[string]bool{
	"database/sql":                   true,
	"github.com/google/uuid":         true,
	"github.com/gofrs/uuid":          true,
	"github.com/gofrs/uuid/v5":       true,
	"github.com/satori/go.uuid":      true,
	"github.com/jackc/pgx/v5/pgtype": true,
}

func inspect(t reflect.Type) *typeInfo {
	info := &typeInfo{
		name:   typeName(t),
		valuer: t.Implements(valuerType),
		bytes: (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) &&
			t.Elem() == reflect.TypeFor[byte](),
	}
	switch t {
	case timeType, addrType, prefixType:
		return info
	}
	pkg := t.PkgPath()
	if t.Kind() == reflect.Pointer {
		pkg = t.Elem().PkgPath()
		// As database/sql and pgx have it: a nil *T is NULL if T has the method.
		info.nilIsNull = t.Elem().Implements(valuerType)
	}
	info.trusted = info.valuer && trustedPackages[pkg]
	info.time = timeNames[info.name]
	for _, method := range []reflect.Type{stringer, textMarshal, jsonMarshal} {
		// pgx follows a pointer first; what T has is asked of T.
		if t.Implements(method) && !(t.Kind() == reflect.Pointer && t.Elem().Implements(method)) {
			info.methods = true
		}
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Uintptr, reflect.Complex64,
		reflect.Complex128, reflect.Map, reflect.Struct:
		info.opaque = !info.valuer
	}
	if !info.trusted && encodesItself(t) {
		info.opaque = true
	}
	return info
}

// encodesItself reports whether t has one of the methods by which pgx's codecs
// take a value apart. What they give is unknown here. The names stand as
// constants so that the linker may still drop unused methods.
func encodesItself(t reflect.Type) bool {
	for _, has := range []func() bool{
		func() bool { _, ok := t.MethodByName("BitsValue"); return ok },
		func() bool { _, ok := t.MethodByName("BoolValue"); return ok },
		func() bool { _, ok := t.MethodByName("BoxValue"); return ok },
		func() bool { _, ok := t.MethodByName("BytesValue"); return ok },
		func() bool { _, ok := t.MethodByName("CircleValue"); return ok },
		func() bool { _, ok := t.MethodByName("DateValue"); return ok },
		func() bool { _, ok := t.MethodByName("Float64Value"); return ok },
		func() bool { _, ok := t.MethodByName("HstoreValue"); return ok },
		func() bool { _, ok := t.MethodByName("Int64Value"); return ok },
		func() bool { _, ok := t.MethodByName("IntervalValue"); return ok },
		func() bool { _, ok := t.MethodByName("LineValue"); return ok },
		func() bool { _, ok := t.MethodByName("LsegValue"); return ok },
		func() bool { _, ok := t.MethodByName("NetipPrefixValue"); return ok },
		func() bool { _, ok := t.MethodByName("NumericValue"); return ok },
		func() bool { _, ok := t.MethodByName("PathValue"); return ok },
		func() bool { _, ok := t.MethodByName("PointValue"); return ok },
		func() bool { _, ok := t.MethodByName("PolygonValue"); return ok },
		func() bool { _, ok := t.MethodByName("TIDValue"); return ok },
		func() bool { _, ok := t.MethodByName("TSVectorValue"); return ok },
		func() bool { _, ok := t.MethodByName("TextValue"); return ok },
		func() bool { _, ok := t.MethodByName("TimeValue"); return ok },
		func() bool { _, ok := t.MethodByName("TimestampValue"); return ok },
		func() bool { _, ok := t.MethodByName("TimestamptzValue"); return ok },
		func() bool { _, ok := t.MethodByName("UUIDValue"); return ok },
		func() bool { _, ok := t.MethodByName("Uint32Value"); return ok },
		func() bool { _, ok := t.MethodByName("Uint64Value"); return ok },
		func() bool { _, ok := t.MethodByName("Dimensions"); return ok },
		func() bool { _, ok := t.MethodByName("IsNull"); return ok },
		func() bool { _, ok := t.MethodByName("SkipUnderlyingTypePlan"); return ok },
	} {
		if has() {
			return true
		}
	}
	return false
}

// methods appends what the methods give that pgx may encode v with: String for
// a text parameter, the marshalers for json. They may say more than the value
// beneath, and may say something else in another version of the application.
func (e *encoder) methods(v any, t *typeInfo) bool {
	if !t.methods {
		return true
	}
	switch v.(type) {
	case json.RawMessage, netip.Addr, netip.Prefix, time.Time:
		return true // what is beneath says it all
	}
	if m, ok := v.(fmt.Stringer); ok {
		e.buf = append(e.buf, codeMethod)
		e.text(m.String())
	}
	if m, ok := v.(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		if err != nil {
			return false
		}
		e.buf = append(e.buf, codeMethod)
		e.bytes(b)
	}
	if m, ok := v.(json.Marshaler); ok {
		b, err := m.MarshalJSON()
		if err != nil {
			return false
		}
		e.buf = append(e.buf, codeMethod)
		e.bytes(b)
	}
	return true
}

// typeName names a type uniquely: reflect's String has only the last element
// of the package path. Two types declared in different functions of a package
// share a name; they have no methods, so pgx sees what is beneath.
func typeName(t reflect.Type) string {
	if t.Name() != "" {
		return t.PkgPath() + "." + t.Name()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + typeName(t.Elem())
	case reflect.Slice:
		return "[]" + typeName(t.Elem())
	case reflect.Array:
		return "[" + strconv.Itoa(t.Len()) + "]" + typeName(t.Elem())
	}
	return t.String()
}
