package reads

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

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
			o := harness.NewOracle(t, database, mode)
			o.Dests = harness.FewDestinations
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
				o.CachedAgree(t, query)
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
			o := harness.NewOracle(t, database, mode)
			o.Dests = harness.FewDestinations
			for _, query := range []string{
				"SELECT body FROM docs WHERE id = 1",                                                              // one value
				"SELECT id, body, raw FROM docs ORDER BY id",                                                      // and more rows behind it
				"SELECT n.id, raw FROM docs, numbers n WHERE docs.id = 1 AND repeat(body, 1) <> 'x' AND n.id < 3", // small
			} {
				before := cachedpg.StatsOf(o.Cached)
				met := o.Agree(t, query)
				if strings.Contains(query, "raw FROM docs, numbers") {
					if met != "miss, hit" {
						t.Errorf("%s: got %q", query, met)
					}
					continue
				}
				after := cachedpg.StatsOf(o.Cached)
				if met != "miss, miss" || after.TooLarge != before.TooLarge+2 || after.Fills != before.Fills {
					t.Errorf("%s: got %q, %d too large, %d fills", query, met, after.TooLarge-before.TooLarge, after.Fills-before.Fills)
				}
			}

			// A limit in the middle of many rows: those before it are replayed, those behind read on.
			o = harness.NewOracle(t, database, mode, "cache_max_entry=100")
			o.Dests = harness.FewDestinations
			if met := o.Agree(t, "SELECT id, 'row ' || id FROM numbers ORDER BY id"); met != "miss, miss" {
				t.Errorf("over the limit: got %q", met)
			}
			o.CachedAgree(t, "SELECT id FROM numbers ORDER BY id")
			if met := o.Agree(t, "SELECT id, repeat('x', 20), 1/(8-id) FROM numbers ORDER BY id"); met != "miss, miss" {
				t.Errorf("an error behind the limit: got %q", met)
			}
			rows, err := o.Cached.Query("SELECT id, 'row ' || id FROM numbers ORDER BY id")
			if err != nil {
				t.Fatal(err)
			}
			rows.Next()
			if err := errors.Join(rows.Close(), rows.Err()); err != nil { // in the middle
				t.Error(err)
			}
			o.Agree(t, "SELECT id, 'row ' || id FROM numbers ORDER BY id")
		})
	}
}

func TestErrorsAreAsThroughPgx(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, oracleTables)
	for _, mode := range harness.Modes {
		t.Run(mode, func(t *testing.T) {
			o := harness.NewOracle(t, database, mode)
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
				fills := cachedpg.StatsOf(o.Cached).Fills
				met := o.Agree(t, tc.query, tc.args...)
				if strings.Contains(met, "hit") {
					t.Errorf("%s: got %q", tc.query, met)
				}
				if after := cachedpg.StatsOf(o.Cached).Fills; after != fills {
					t.Errorf("%s: an error was stored", tc.query)
				}
			}
			// The connections are still good.
			o.CachedAgree(t, "SELECT id FROM numbers WHERE id = 7")
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
			o := harness.NewOracle(t, database, mode)
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
				o.Agree(t, query)
				for _, make := range []func() any{harness.Dest[[]byte], harness.Dest[sql.RawBytes], harness.Dest[any]} {
					values := []any{make(), make(), make(), make(), make()}
					rows, err := o.Cached.Query(query)
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
				conn, err := o.Cached.Conn(context.Background())
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
			if met := o.Agree(t, query); met != "hit, hit" {
				t.Errorf("got %q", met)
			}
		})
	}
}
