//go:build go1.27

package core

import (
	"database/sql"
	"errors"
	"io"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// NextRow moves to the next row, whose columns ScanColumn then scans.
func (r *Rows) NextRow() error {
	switch {
	case r.left > 0:
		r.left--
		r.row = r.after
		for range r.entry.Columns {
			_, r.after = r.field(r.after)
		}
		return nil
	case r.err != nil:
		return r.err
	case r.live == nil:
		return io.EOF
	case !r.live.Next():
		if err := r.live.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	r.row = -1
	return nil
}

// current returns column i of the current row.
func (r *Rows) current(i int) field {
	if r.row < 0 {
		v := r.live.RawValues()[i]
		return field{string(v), v == nil}
	}
	f, next := r.field(r.row)
	for range i {
		f, next = r.field(next)
	}
	return f
}

// ScanColumn scans as pgx's stdlib does: what database/sql knows by the
// backend.Value, so that a Scanner sees what it always saw; other destinations,
// such as slices and ranges, by pgx's codecs.
func (r *Rows) ScanColumn(scanCtx backend.ScanContext, index int, dest any) error {
	if dest == nil {
		return errors.New("destination not a pointer")
	}
	if v := reflect.ValueOf(dest); v.Kind() == reflect.Pointer && v.IsNil() {
		return errors.New("destination pointer is nil")
	}
	f := r.current(index)
	if knownToDatabaseSQL(reflect.TypeOf(dest)) {
		if f.null {
			return sql.ConvertAssign(scanCtx, dest, nil)
		}
		value, err := r.value(index, f.data)
		if err != nil {
			return err
		}
		return sql.ConvertAssign(scanCtx, dest, value)
	}
	var src []byte
	if !f.null {
		src = []byte(f.data)
	}
	col := r.entry.Columns[index]
	return r.typeMap().Scan(col.Type, col.Format, src, dest)
}

// knownToDatabaseSQL says which destinations get the backend.Value. The choice
// is made before scanning: trying the other way after a failure could call a
// Scanner twice.
func knownToDatabaseSQL(t reflect.Type) bool {
	for depth := 0; ; depth++ {
		if t.Implements(reflect.TypeFor[sql.Scanner]()) {
			return true
		}
		if t.Implements(reflect.TypeFor[pgtype.ArraySetter]()) || t.Implements(reflect.TypeFor[pgtype.BytesScanner]()) {
			return false // byte slices with a scan of their own
		}
		if t.Kind() != reflect.Pointer {
			break
		}
		if depth > 8 {
			return false // a pointer type that points to itself
		}
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Interface, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.Uint8
	case reflect.Struct:
		return t.ConvertibleTo(reflect.TypeFor[time.Time]())
	}
	return false
}
