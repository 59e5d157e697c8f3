package harness

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/inside"
)

// Oracle asks plain pgx and cachedpg the same and compares everything that
// database/sql shows.
type Oracle struct {
	Plain, Cached *sql.DB
	Dests         []func() any
}

// NewOracle returns an oracle in an exec mode, with keys of the driver.
func NewOracle(tb testing.TB, database, mode string, keys ...string) *Oracle {
	tb.Helper()
	dsn := WithKey(database, "default_query_exec_mode", mode)
	o := &Oracle{Dests: Destinations}
	open := func(name, dsn string) *sql.DB {
		db, err := sql.Open(name, dsn)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { db.Close() })
		return db
	}
	o.Plain = open("pgx", dsn)
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		dsn = WithKey(dsn, key, value)
	}
	o.Cached = open("cachedpg", dsn)
	AwaitCaching(tb, o.Cached)
	return o
}

// Agree asks plain pgx once and cachedpg twice, and returns what cachedpg's
// stats said of the two: "miss, hit" where the result is cached.
func (o *Oracle) Agree(tb testing.TB, query string, args ...any) (met string) {
	tb.Helper()
	want := o.transcript(o.Plain, query, args)
	var both []string
	for range 2 {
		before := inside.Counted(o.Cached)
		got := o.transcript(o.Cached, query, args)
		d := Difference(before, inside.Counted(o.Cached))
		both = append(both, d)
		for i := range max(len(got), len(want)) {
			switch {
			case i >= len(got):
				tb.Errorf("%s (%s):\nnot in cachedpg's: %s", query, d, want[i])
			case i >= len(want):
				tb.Errorf("%s (%s):\nnot in pgx's: %s", query, d, got[i])
			case got[i] != want[i]:
				tb.Errorf("%s (%s):\ngot   %s\npgx's %s", query, d, got[i], want[i])
			default:
				continue
			}
			break
		}
	}
	return strings.Join(both, ", ")
}

// CachedAgree is agree for a query whose second answer must be a hit.
func (o *Oracle) CachedAgree(tb testing.TB, query string, args ...any) {
	tb.Helper()
	if met := o.Agree(tb, query, args...); met != "miss, hit" {
		tb.Errorf("%s: got %q, want a miss and a hit", query, met)
	}
}

// transcript writes down, in lines, everything that can be seen of a query.
// Every row is scanned into every kind of destination: database/sql allows
// several Scans of one row.
func (o *Oracle) transcript(db *sql.DB, query string, args []any) (lines []string) {
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	rows, err := db.QueryContext(context.Background(), query, args...)
	if err != nil {
		note("Query: %s", describeError(err))
		return lines
	}
	names, err := rows.Columns()
	note("columns %q, %v", names, err)
	types, err := rows.ColumnTypes()
	note("%d types, %v", len(types), err)
	for _, t := range types {
		length, hasLength := t.Length()
		precision, scale, hasScale := t.DecimalSize()
		nullable, known := t.Nullable()
		note("column %q: %s, length %d %v, decimal %d %d %v, nullable %v %v, scan %v",
			t.Name(), t.DatabaseTypeName(), length, hasLength, precision, scale, hasScale, nullable, known, t.ScanType())
	}
	for n := 0; rows.Next(); n++ {
		note("row %d", n)
		for _, dest := range o.Dests {
			values := make([]any, len(names))
			for i := range values {
				values[i] = dest()
			}
			err := rows.Scan(values...)
			line := make([]string, len(values))
			for i := range values {
				line[i] = Describe(reflect.ValueOf(values[i]).Elem().Interface())
			}
			note("  %T: %s", dest(), strings.Join(line, "; "))
			if err != nil {
				note("  %s", describeError(err))
			}
		}
	}
	note("Err: %s", describeError(rows.Err()))
	note("Close: %s", describeError(rows.Close()))
	return lines
}

// Describe writes a value with its type so that two are written alike only
// where a program could not tell them apart.
func Describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case time.Time:
		return fmt.Sprintf("time %s in %s", v.Format("-070000 2006-01-02T15:04:05.999999999"), v.Location())
	case []byte:
		if v == nil {
			return "no bytes"
		}
		return "bytes " + shortened(string(v))
	case sql.RawBytes:
		if v == nil {
			return "no raw bytes"
		}
		return "raw bytes " + shortened(string(v))
	case string:
		return shortened(v)
	case seen:
		return "Scan was given " + Describe(v.src)
	case pgtype.Numeric:
		return fmt.Sprintf("numeric %v e%d NaN %v %v %v", v.Int, v.Exp, v.NaN, v.InfinityModifier, v.Valid)
	case netip.Prefix, netip.Addr:
		return fmt.Sprintf("%T %v", v, v)
	}
	switch r := reflect.ValueOf(v); {
	case r.Kind() == reflect.Pointer && r.IsNil():
		return fmt.Sprintf("%T nil", v)
	case r.Kind() == reflect.Pointer:
		return "*" + Describe(r.Elem().Interface())
	case r.Kind() == reflect.Slice:
		var elements []string
		for i := range r.Len() {
			elements = append(elements, Describe(r.Index(i).Interface()))
		}
		return fmt.Sprintf("%T [%s]", v, strings.Join(elements, " "))
	}
	return fmt.Sprintf("%#v", v)
}

// shortened stands for a string without its length in the messages.
func shortened(s string) string {
	if len(s) < 1000 {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%q… %d bytes %x", s[:20], len(s), sha256.Sum256([]byte(s)))
}

func describeError(err error) string {
	if err == nil {
		return "no error"
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		detail := *pg
		detail.Line, detail.Routine, detail.File = 0, "", ""
		return fmt.Sprintf("%v; SQLSTATE %s, %+v", err, pg.Code, detail)
	}
	return fmt.Sprintf("%v; no rows %v, bad conn %v, cancelled %v, deadline %v", err, errors.Is(err, sql.ErrNoRows),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded))
}

// seen is a Scanner that remembers the driver.Value it was given.
type seen struct{ src any }

func (s *seen) Scan(src any) error {
	s.src = src
	if b, ok := src.([]byte); ok {
		s.src = slices.Clone(b) // it is the driver's
	}
	return nil
}

// elements scans an array by pgx's codecs, from the text that database/sql gives it.
type elements[T any] struct{ list []T }

var (
	arrays   = pgtype.NewMap()
	arraysMu sync.Mutex // guards arrays
)

func (e *elements[T]) Scan(src any) error {
	arraysMu.Lock()
	defer arraysMu.Unlock()
	return arrays.SQLScanner(&e.list).Scan(src)
}

// Dest makes a destination for Scan.
func Dest[T any]() any { return new(T) }

// Destinations is what a program may scan into.
var Destinations = []func() any{
	Dest[any], Dest[string], Dest[*string], Dest[[]byte], Dest[sql.RawBytes],
	Dest[int64], Dest[*int64], Dest[int16], Dest[uint8], Dest[float64], Dest[float32], Dest[bool], Dest[time.Time], Dest[*time.Time],
	Dest[sql.NullString], Dest[sql.NullInt64], Dest[sql.NullFloat64], Dest[sql.NullBool], Dest[sql.NullTime],
	Dest[sql.Null[int32]], Dest[sql.Null[[]byte]], Dest[seen],
	Dest[pgtype.Text], Dest[pgtype.Int8], Dest[pgtype.Float8], Dest[pgtype.Bool], Dest[pgtype.Numeric], Dest[pgtype.UUID],
	Dest[pgtype.Date], Dest[pgtype.Timestamp], Dest[pgtype.Timestamptz], Dest[pgtype.Time], Dest[pgtype.Interval],
	Dest[pgtype.Bits], Dest[pgtype.Point], Dest[pgtype.Range[pgtype.Int4]],
	Dest[elements[string]], Dest[elements[*int32]], Dest[struct{}],
}

// FewDestinations are destinations enough where the columns are many.
var FewDestinations = []func() any{Dest[any], Dest[sql.RawBytes], Dest[seen]}

func Quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
