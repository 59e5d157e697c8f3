package core

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/store"
)

// Rows replays a result as PostgreSQL sent it. A miss is read to its end first
// and then replayed by the same code, so that a hit cannot differ from it. A
// result too large to store is replayed up to there and read on from PostgreSQL.
type Rows struct {
	c     *Conn
	entry *store.Entry
	row   int // where the current row begins in entry.Data
	after int // where the one after it begins
	left  int // rows not yet replayed
	names []string

	live backend.Rows // the rest of a result that was too large
	err  error        // what ended the result after the replayed rows
}

// field is one value as PostgreSQL sent it.
type field struct {
	data string
	null bool
}

func newRows(c *Conn, entry *store.Entry) *Rows {
	return &Rows{c: c, entry: entry, left: entry.Rows}
}

// readRows reads a result up to the limit of an entry. It returns an error
// only where pgx's stdlib would, before the first row.
func (c *Conn) readRows(wire backend.Rows, sh *planning.Shape) (*Rows, error) {
	return c.readRowsUpTo(c.d.Config.MaxEntry, wire, sh)
}

// readRowsUpTo is readRows up to a size. One row is read whatever it is.
func (c *Conn) readRowsUpTo(size int64, wire backend.Rows, sh *planning.Shape) (*Rows, error) {
	var data []byte
	rows, large := 0, false
	for !large && wire.Next() {
		for _, v := range wire.RawValues() {
			if v == nil {
				data = binary.BigEndian.AppendUint32(data, math.MaxUint32)
				continue
			}
			data = binary.BigEndian.AppendUint32(data, uint32(len(v)))
			data = append(data, v...)
		}
		rows++
		large = int64(len(data)) > size
	}
	r := &Rows{c: c, left: rows}
	if large {
		r.live = wire
	} else {
		wire.Close()
		if r.err = wire.Err(); r.err != nil && rows == 0 {
			return nil, r.err
		}
	}
	if cap(data)-len(data) > len(data)/8 {
		data = append(make([]byte, 0, len(data)), data...)
	}
	// data is never written again, so a string may share its memory.
	r.entry = &store.Entry{Columns: sh.ColumnsOf(wire.FieldDescriptions()), Rows: rows, Data: unsafe.String(unsafe.SliceData(data), len(data))}
	return r, nil
}

// Columns returns the names of the columns.
func (r *Rows) Columns() []string {
	if r.names == nil {
		r.names = make([]string, len(r.entry.Columns))
		for i, col := range r.entry.Columns {
			r.names[i] = col.Name
		}
	}
	return r.names
}

// Next decodes the next row. The values are the caller's own.
func (r *Rows) Next(dest []backend.Value) error {
	if r.left > 0 {
		r.left--
		r.row = r.after
		for i := range r.entry.Columns {
			var f field
			f, r.after = r.field(r.after)
			if dest[i] = nil; f.null {
				continue
			}
			var err error
			if dest[i], err = r.value(i, f.data); err != nil {
				return fmt.Errorf("convert field %d failed: %w", i, err)
			}
		}
		return nil
	}
	if r.err != nil {
		return r.err
	}
	if r.live == nil {
		return io.EOF
	}
	if !r.live.Next() {
		if err := r.live.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	for i, v := range r.live.RawValues() {
		if dest[i] = nil; v == nil {
			continue
		}
		var err error
		if dest[i], err = r.value(i, string(v)); err != nil {
			return fmt.Errorf("convert field %d failed: %w", i, err)
		}
	}
	return nil
}

// field reads the value at an offset into the entry, and returns the offset of
// the one after it.
func (r *Rows) field(at int) (f field, next int) {
	n := int32(be32(r.entry.Data[at:]))
	if at += 4; n < 0 {
		return field{null: true}, at
	}
	next = at + int(n)
	return field{data: r.entry.Data[at:next]}, next
}

// share is a string for the caller to keep: src, which is a piece of a result, where
// that holds on to little else, and a copy otherwise.
func share(src string, result int) string {
	if result-len(src) > len(src)+maxPinned {
		return strings.Clone(src)
	}
	return src
}

// maxPinned is how many bytes a string may keep in memory beside as many as its own.
const maxPinned = 128

// value decodes what PostgreSQL sent for column i into the backend.Value that
// pgx's stdlib makes of it. It shares no memory with src that is worth mentioning.
func (r *Rows) value(i int, src string) (backend.Value, error) {
	col := &r.entry.Columns[i]
	if col.Format == pgtype.BinaryFormatCode {
		switch {
		case col.Type == pgtype.Int8OID && len(src) == 8:
			return int64(be64(src)), nil
		case col.Type == pgtype.Int4OID && len(src) == 4:
			return int64(int32(be32(src))), nil
		case col.Type == pgtype.Int2OID && len(src) == 2:
			return int64(int16(uint16(src[0])<<8 | uint16(src[1]))), nil
		case col.Type == pgtype.BoolOID && len(src) == 1:
			return src[0] == 1, nil
		case col.Type == pgtype.Float8OID && len(src) == 8:
			return math.Float64frombits(be64(src)), nil
		case col.Type == pgtype.Float4OID && len(src) == 4:
			return float64(math.Float32frombits(be32(src))), nil
		case col.Type == pgtype.ByteaOID:
			return []byte(src), nil
		}
	} else if !decodedByPgx(col.Type) {
		return share(src, len(r.entry.Data)), nil
	}
	return scanValue(r.typeMap(), col.Type, col.Format, []byte(src))
}

// decodedByPgx says which types stdlib does not pass on as text.
func decodedByPgx(oid uint32) bool {
	switch oid {
	case pgtype.BoolOID, pgtype.ByteaOID, pgtype.CIDOID, pgtype.OIDOID, pgtype.XIDOID, pgtype.DateOID,
		pgtype.Float4OID, pgtype.Float8OID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID,
		pgtype.JSONOID, pgtype.JSONBOID, pgtype.XMLOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return true
	}
	return false
}

// scanValue decodes with pgx's codecs, by the rules of stdlib's Rows.
func scanValue(m *pgtype.Map, oid uint32, format int16, src []byte) (backend.Value, error) {
	switch oid {
	case pgtype.BoolOID:
		return scan[bool](m, oid, format, src)
	case pgtype.ByteaOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.XMLOID:
		return scan[[]byte](m, oid, format, src)
	case pgtype.CIDOID, pgtype.OIDOID, pgtype.XIDOID:
		return scanValuer[pgtype.Uint32](m, oid, format, src)
	case pgtype.DateOID:
		return scanValuer[pgtype.Date](m, oid, format, src)
	case pgtype.TimestampOID:
		return scanValuer[pgtype.Timestamp](m, oid, format, src)
	case pgtype.TimestamptzOID:
		return scanValuer[pgtype.Timestamptz](m, oid, format, src)
	case pgtype.Float4OID:
		v, err := scan[float32](m, oid, format, src)
		if err != nil {
			return float64(0), err
		}
		return float64(v.(float32)), nil
	case pgtype.Float8OID:
		return scan[float64](m, oid, format, src)
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return scan[int64](m, oid, format, src)
	default:
		return scan[string](m, oid, format, src)
	}
}

func scan[T any](m *pgtype.Map, oid uint32, format int16, src []byte) (backend.Value, error) {
	var v T
	err := m.PlanScan(oid, format, &v).Scan(src, &v)
	return v, err
}

func scanValuer[T backend.Valuer](m *pgtype.Map, oid uint32, format int16, src []byte) (backend.Value, error) {
	var v T
	if err := m.PlanScan(oid, format, &v).Scan(src, &v); err != nil {
		return nil, err
	}
	return v.Value()
}

func be32(s string) uint32 {
	_ = s[3]
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
}

func be64(s string) uint64 { return uint64(be32(s))<<32 | uint64(be32(s[4:])) }

// typeMap is the connection's own where there is one, because a caller may
// have registered types on it, and else pgx's standard types.
func (r *Rows) typeMap() *pgtype.Map {
	if r.c.inner != nil {
		return r.c.inner.TypeMap()
	}
	if r.c.types == nil {
		r.c.types = r.c.d.newTypes()
	}
	return r.c.types
}

// Held is how many bytes of the result are in memory, read ahead or from the cache.
func (r *Rows) Held() int { return len(r.entry.Data) }

// Close ends the result. It is safe to call more than once.
func (r *Rows) Close() error {
	r.left = 0
	if r.live == nil {
		return r.err
	}
	r.live.Close()
	return r.live.Err()
}

// ColumnTypeDatabaseTypeName returns the name of the type in upper case, or
// its OID if pgx does not know it.
func (r *Rows) ColumnTypeDatabaseTypeName(i int) string {
	oid := r.entry.Columns[i].Type
	if t, ok := r.typeMap().TypeForOID(oid); ok {
		return strings.ToUpper(t.Name)
	}
	return strconv.FormatInt(int64(oid), 10)
}

// varlenaHeader is what PostgreSQL adds to the length in a type modifier.
const varlenaHeader = 4

// ColumnTypeLength returns the length limit of a variable-length type.
func (r *Rows) ColumnTypeLength(i int) (int64, bool) {
	switch col := r.entry.Columns[i]; col.Type {
	case pgtype.TextOID, pgtype.ByteaOID:
		return math.MaxInt64, true
	case pgtype.VarcharOID, pgtype.BPCharOID:
		return int64(col.TypeModifier - varlenaHeader), true
	case pgtype.VarbitOID:
		return int64(col.TypeModifier), true
	}
	return 0, false
}

// ColumnTypePrecisionScale returns the precision and scale of a numeric.
func (r *Rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	col := r.entry.Columns[i]
	if col.Type != pgtype.NumericOID {
		return 0, 0, false
	}
	modifier := col.TypeModifier - varlenaHeader
	return int64((modifier >> 16) & 0xffff), int64(modifier & 0xffff), true
}

// ColumnTypeScanType returns the Go type that suits the column.
func (r *Rows) ColumnTypeScanType(i int) reflect.Type {
	switch r.entry.Columns[i].Type {
	case pgtype.Float8OID, pgtype.NumericOID:
		return reflect.TypeFor[float64]()
	case pgtype.Float4OID:
		return reflect.TypeFor[float32]()
	case pgtype.Int8OID:
		return reflect.TypeFor[int64]()
	case pgtype.Int4OID:
		return reflect.TypeFor[int32]()
	case pgtype.Int2OID:
		return reflect.TypeFor[int16]()
	case pgtype.BoolOID:
		return reflect.TypeFor[bool]()
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return reflect.TypeFor[time.Time]()
	case pgtype.ByteaOID:
		return reflect.TypeFor[[]byte]()
	}
	return reflect.TypeFor[string]()
}

// passReturning is pass of a write, which may be made to return something.
func (c *Conn) passReturning(ctx context.Context, q *call) (backend.ResultSet, error) {
	if q.returned == nil {
		return c.pass(ctx, q)
	}
	var rows *Rows
	again, err := c.guarded(ctx, q, func() error {
		wire, err := c.inner.Read(ctx, q.sentReturning())
		if err == nil {
			rows, err = c.readRowsUpTo(0, q.apart(wire), q.text.Shape) // pgx has read the first one too
		}
		return err
	})
	switch {
	case again:
		q.returned.unknown = true
		return c.pass(ctx, q)
	case err != nil:
		return nil, pgerr.AsStdlib(err)
	}
	return rows, nil
}

// pass runs a query of which nothing is stored, as pgx' stdlib would.
func (c *Conn) pass(ctx context.Context, q *call) (backend.ResultSet, error) {
	if q.mode != pgx.QueryExecModeDescribeExec || c.inner.TxStatus() != 'I' || q.sql == "" { // which pgx sends otherwise
		return c.inner.QueryContext(ctx, q.sql, q.args)
	}
	wire, err := c.inner.Read(ctx, q.sent())
	if err != nil {
		return nil, pgerr.AsStdlib(err)
	}
	rows, err := c.readRowsUpTo(0, wire, &planning.Shape{}) // pgx has read the first one too
	if err != nil {
		return nil, err
	}
	return rows, nil
}
