package cachedpg

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
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

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// oracle asks plain pgx and cachedpg the same and compares everything that
// database/sql shows.
type oracle struct {
	plain, cached *sql.DB
	dests         []func() any
}

func newOracle(tb testing.TB, database, mode string, keys ...string) *oracle {
	tb.Helper()
	dsn := harness.WithKey(database, "default_query_exec_mode", mode)
	o := &oracle{dests: destinations}
	open := func(name, dsn string) *sql.DB {
		db, err := sql.Open(name, dsn)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { db.Close() })
		return db
	}
	o.plain = open("pgx", dsn)
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		dsn = harness.WithKey(dsn, key, value)
	}
	o.cached = open("cachedpg", dsn)
	harness.AwaitCaching(tb, o.cached)
	return o
}

// agree asks plain pgx once and cachedpg twice, and returns what cachedpg's
// stats said of the two: "miss, hit" where the result is cached.
func (o *oracle) agree(tb testing.TB, query string, args ...any) (met string) {
	tb.Helper()
	want := o.transcript(o.plain, query, args)
	var both []string
	for range 2 {
		before := inside.Counted(o.cached)
		got := o.transcript(o.cached, query, args)
		d := harness.Difference(before, inside.Counted(o.cached))
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

// cachedAgree is agree for a query whose second answer must be a hit.
func (o *oracle) cachedAgree(tb testing.TB, query string, args ...any) {
	tb.Helper()
	if met := o.agree(tb, query, args...); met != "miss, hit" {
		tb.Errorf("%s: got %q, want a miss and a hit", query, met)
	}
}

// transcript writes down, in lines, everything that can be seen of a query.
// Every row is scanned into every kind of destination: database/sql allows
// several Scans of one row.
func (o *oracle) transcript(db *sql.DB, query string, args []any) (lines []string) {
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
		for _, dest := range o.dests {
			values := make([]any, len(names))
			for i := range values {
				values[i] = dest()
			}
			err := rows.Scan(values...)
			line := make([]string, len(values))
			for i := range values {
				line[i] = describe(reflect.ValueOf(values[i]).Elem().Interface())
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

// describe writes a value with its type so that two are written alike only
// where a program could not tell them apart.
func describe(v any) string {
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
		return "Scan was given " + describe(v.src)
	case pgtype.Numeric:
		return fmt.Sprintf("numeric %v e%d NaN %v %v %v", v.Int, v.Exp, v.NaN, v.InfinityModifier, v.Valid)
	case netip.Prefix, netip.Addr:
		return fmt.Sprintf("%T %v", v, v)
	}
	switch r := reflect.ValueOf(v); {
	case r.Kind() == reflect.Pointer && r.IsNil():
		return fmt.Sprintf("%T nil", v)
	case r.Kind() == reflect.Pointer:
		return "*" + describe(r.Elem().Interface())
	case r.Kind() == reflect.Slice:
		var elements []string
		for i := range r.Len() {
			elements = append(elements, describe(r.Index(i).Interface()))
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

func dest[T any]() any { return new(T) }

// destinations is what a program may scan into.
var destinations = []func() any{
	dest[any], dest[string], dest[*string], dest[[]byte], dest[sql.RawBytes],
	dest[int64], dest[*int64], dest[int16], dest[uint8], dest[float64], dest[float32], dest[bool], dest[time.Time], dest[*time.Time],
	dest[sql.NullString], dest[sql.NullInt64], dest[sql.NullFloat64], dest[sql.NullBool], dest[sql.NullTime],
	dest[sql.Null[int32]], dest[sql.Null[[]byte]], dest[seen],
	dest[pgtype.Text], dest[pgtype.Int8], dest[pgtype.Float8], dest[pgtype.Bool], dest[pgtype.Numeric], dest[pgtype.UUID],
	dest[pgtype.Date], dest[pgtype.Timestamp], dest[pgtype.Timestamptz], dest[pgtype.Time], dest[pgtype.Interval],
	dest[pgtype.Bits], dest[pgtype.Point], dest[pgtype.Range[pgtype.Int4]],
	dest[elements[string]], dest[elements[*int32]], dest[struct{}],
}

// few are destinations enough where the columns are many.
var fewDestinations = []func() any{dest[any], dest[sql.RawBytes], dest[seen]}

const oracleTables = `
	CREATE TABLE one (id int PRIMARY KEY, name text); INSERT INTO one VALUES (1, 'x'), (2, ''), (3, NULL);
	CREATE TABLE numbers (id int PRIMARY KEY); INSERT INTO numbers SELECT generate_series(1, 10);
	CREATE TABLE docs (id int PRIMARY KEY, body text, raw bytea);
	INSERT INTO docs VALUES (1, repeat('a☃', 300000), repeat('b', 100)::bytea), (2, 'small', '\x00');
	CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;
`

func TestEveryShapeOfAResultIsAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, wideTable("wide", 1600)+oracleTables)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, database, mode)
			o.dests = fewDestinations
			for _, query := range []string{
				"SELECT id, name FROM one WHERE id = 9", // no rows
				"SELECT id, name FROM one WHERE id = 3",
				"SELECT name, id, name, id AS name FROM one ORDER BY id", // names twice
				"SELECT id, '' AS empty, NULL AS null, name IS NULL FROM one ORDER BY id",
				"SELECT FROM one", // no columns
				"SELECT FROM one WHERE id = 9",
				"SELECT FROM bare",
				"SELECT * FROM bare",
				`SELECT id AS "Ünï ""q""", id AS "?column?" FROM one ORDER BY 1`,
				"SELECT one FROM one ORDER BY id", // whole rows
				"SELECT one.*, docs.id FROM one, docs WHERE one.id = 1 ORDER BY 3",
				"SELECT * FROM wide",
				"VALUES (1, 'a'), (2, NULL)",
				"TABLE numbers",
				"WITH n AS (SELECT id FROM numbers) SELECT id::text FROM n ORDER BY id",
				"SELECT id, body FROM docs WHERE id = 2 /* a comment */ -- and another",
			} {
				o.cachedAgree(t, query)
			}
		})
	}
}

func wideTable(name string, columns int) string {
	var list, values []string
	for i := range columns {
		list = append(list, fmt.Sprintf("c%d int", i))
		values = append(values, fmt.Sprint(i))
	}
	return fmt.Sprintf("CREATE TABLE %s (%s); INSERT INTO %[1]s VALUES (%[3]s);", name, strings.Join(list, ", "), strings.Join(values, ", "))
}

func TestALargeResultPassesThrough(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, oracleTables)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, database, mode)
			o.dests = fewDestinations
			for _, query := range []string{
				"SELECT body FROM docs WHERE id = 1",                                                              // one value
				"SELECT id, body, raw FROM docs ORDER BY id",                                                      // and more rows behind it
				"SELECT n.id, raw FROM docs, numbers n WHERE docs.id = 1 AND repeat(body, 1) <> 'x' AND n.id < 3", // small
			} {
				before := StatsOf(o.cached)
				met := o.agree(t, query)
				if strings.Contains(query, "raw FROM docs, numbers") {
					if met != "miss, hit" {
						t.Errorf("%s: got %q", query, met)
					}
					continue
				}
				after := StatsOf(o.cached)
				if met != "miss, miss" || after.TooLarge != before.TooLarge+2 || after.Fills != before.Fills {
					t.Errorf("%s: got %q, %d too large, %d fills", query, met, after.TooLarge-before.TooLarge, after.Fills-before.Fills)
				}
			}

			// A limit in the middle of many rows: those before it are replayed, those behind read on.
			o = newOracle(t, database, mode, "cache_max_entry=100")
			o.dests = fewDestinations
			if met := o.agree(t, "SELECT id, 'row ' || id FROM numbers ORDER BY id"); met != "miss, miss" {
				t.Errorf("over the limit: got %q", met)
			}
			o.cachedAgree(t, "SELECT id FROM numbers ORDER BY id")
			if met := o.agree(t, "SELECT id, repeat('x', 20), 1/(8-id) FROM numbers ORDER BY id"); met != "miss, miss" {
				t.Errorf("an error behind the limit: got %q", met)
			}
			rows, err := o.cached.Query("SELECT id, 'row ' || id FROM numbers ORDER BY id")
			if err != nil {
				t.Fatal(err)
			}
			rows.Next()
			if err := errors.Join(rows.Close(), rows.Err()); err != nil { // in the middle
				t.Error(err)
			}
			o.agree(t, "SELECT id, 'row ' || id FROM numbers ORDER BY id")
		})
	}
}

func TestErrorsAreAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, oracleTables)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			o := newOracle(t, database, mode)
			for _, tc := range []struct {
				query string
				args  []any
			}{
				{"SELEC 1", nil},
				{"SELECT id FROM nowhere", nil},
				{"SELECT nocolumn FROM one", nil},
				{"SELECT nofunction(id) FROM one", nil},
				{"SELECT id FROM one WHERE id = $2", []any{1}},
				{"SELECT id FROM one WHERE id = $1", nil},
				{"SELECT id FROM one WHERE id = $1", []any{1, 2}},
				{"SELECT id FROM one WHERE id = $1", []any{"one"}},
				{"SELECT id FROM one WHERE id = $1", []any{1 << 40}},
				{"SELECT id FROM one WHERE id = $1", []any{struct{ x int }{1}}},
				{"SELECT id FROM one WHERE id = $1", []any{make(chan int)}},
				{"SELECT id FROM one WHERE id = $1", []any{math.NaN()}},
				{"SELECT id FROM one WHERE id = $1::int", []any{sql.Named("id", 1)}},
				{"SELECT 1/0 FROM one", nil},
				{"SELECT name::int FROM one", nil},
				{"SELECT 1/(5-id) FROM numbers ORDER BY id", nil},
				{"SELECT 1/(1-id) FROM numbers ORDER BY id", nil}, // in the first row
				{"SELECT id, 1/(3-id) FROM one ORDER BY id", nil},
				{"SELECT 1/(5-i) FROM generate_series(1, 10) i", nil},
				{"SELECT (SELECT id FROM numbers)", nil},
				{"SELECT id FROM one; SELECT 2/0", nil},
				{"SELECT '\x00'", nil},
				{"SELECT name FROM one WHERE name = $1", []any{"a\x00b"}},
				{"SELECT '\xff'", nil},
				{"", nil},
				{"-- nothing", nil},
				{"COPY one TO STDOUT", nil},
				{"INSERT INTO one VALUES (1, 'again') RETURNING id", nil},
			} {
				fills := StatsOf(o.cached).Fills
				met := o.agree(t, tc.query, tc.args...)
				if strings.Contains(met, "hit") {
					t.Errorf("%s: got %q", tc.query, met)
				}
				if after := StatsOf(o.cached).Fills; after != fills {
					t.Errorf("%s: an error was stored", tc.query)
				}
			}
			// The connections are still good.
			o.cachedAgree(t, "SELECT id FROM numbers WHERE id = 7")
		})
	}
}

// A caller that changes what it got changes nothing but its own.
func TestValuesAreTheCallersOwn(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, `CREATE TABLE v (id int PRIMARY KEY, b bytea, j jsonb, s text, x xml, n numeric);
		INSERT INTO v VALUES (1, '\x010203', '{"a": 1}', 'text', '<a/>', 1.5)`)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, database, mode)
			const query = "SELECT b, j, s, x, n FROM v WHERE id = 1"
			scribble := func(values []any) {
				for _, v := range values {
					var b []byte
					switch v := v.(type) {
					case *[]byte:
						b = *v
					case *sql.RawBytes:
						b = *v
					case []byte:
						b = v
					}
					for i := range b {
						b[i] = '!'
					}
					_ = append(b, "more"...)
				}
			}
			for range 3 {
				o.agree(t, query)
				for _, make := range []func() any{dest[[]byte], dest[sql.RawBytes], dest[any]} {
					values := []any{make(), make(), make(), make(), make()}
					rows, err := o.cached.Query(query)
					if err != nil {
						t.Fatal(err)
					}
					for rows.Next() {
						if err := rows.Scan(values...); err != nil {
							t.Fatal(err)
						}
						for i, v := range values {
							if p, ok := v.(*any); ok {
								values[i] = *p
							}
						}
						scribble(values)
					}
					if err := errors.Join(rows.Err(), rows.Close()); err != nil {
						t.Fatal(err)
					}
				}
				// Below database/sql, which copies.
				conn, err := o.cached.Conn(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				err = conn.Raw(func(c any) error {
					rows, err := c.(driver.QueryerContext).QueryContext(context.Background(), query, nil)
					if err != nil {
						return err
					}
					columns := rows.Columns()
					values := make([]driver.Value, len(columns))
					if err := rows.Next(values); err != nil {
						return err
					}
					for i, v := range values {
						scribble([]any{v})
						columns[i] = "!"
					}
					if err := rows.Next(values); err != io.EOF {
						return fmt.Errorf("got %v at the end", err)
					}
					return rows.Close()
				})
				if err := errors.Join(err, conn.Close()); err != nil {
					t.Fatal(err)
				}
			}
			if met := o.agree(t, query); met != "hit, hit" {
				t.Errorf("got %q", met)
			}
		})
	}
}
