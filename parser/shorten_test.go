package parser

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// shortened are texts whose lists may have three elements: [ and ] are around what is
// left out.
var shortened = []string{
	"SELECT 1 FROM t WHERE id IN ($1, $2, $3,[ $4, $5, $6,] $7)",
	"SELECT 1 FROM t WHERE id IN (1, 2, 3,[ 4, 5,] 6) AND v IN ('a', 'b', 'c',[ 'd',] 'e')",
	"SELECT 1 FROM t WHERE id IN ($1, 2, $3,[ 4, $5,] 'a', $7)",
	"SELECT 1 FROM t WHERE id IN ($1, $2, $3, now(),[ $4, now(),] nextval('s'),[ nextval('t'),] $7)",
	"SELECT 1 FROM t WHERE id IN ($1::int, $2::int, $3::int,[ $4::INT,] $5::int8, $6)",
	"SELECT 1 FROM t WHERE id = ANY (ARRAY [$1, $2, $3,[ $4,] $5])",
	"SELECT 1 FROM t WHERE id IN (1, /* a */ 2, 3 -- b\n,[ 4 /* c */,] 5)",
	"SELECT 1 FROM t WHERE (a, b) IN (($1, $2), ($3, $4), ($5, $6),[ ($7, $8),] ($9, $10))",
	"INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4), ($5, $6),[ ($7, $8), ($9, $10),] ($11, $12) RETURNING a, b, c, d, e, f",
	"INSERT INTO t (a, b) VALUES ($1, DEFAULT), ($2, DEFAULT), ($3, DEFAULT),[ ($4, default),] ($5, now()), ($6, DEFAULT) ON CONFLICT DO NOTHING",
	"SELECT 1 FROM t WHERE a = $1 OR a = $2 OR a = $3 OR a = $4 OR[ a = $5 OR a = $6 OR] a = $7 ORDER BY a",
	"SELECT 1 FROM t WHERE a <> 1 AND a <> 2 AND a <> 3 AND a <> 4 AND[ a <> 5 AND] b <> 6 AND a <> 7",
	"SELECT 1 FROM t WHERE (a = 1 AND b = 2) OR (a = 3 AND b = 4) OR (a = 5 AND b = 6) OR (a = 7 AND b = 8) OR[ (a = 9 AND b = 0) OR] (a = 1 AND b = 1)",
	"SELECT 1 FROM t WHERE x OR a BETWEEN 1 AND 2 OR a BETWEEN 3 AND 4 OR a BETWEEN 5 AND 6 OR[ a BETWEEN 7 AND 8 OR] y",
	// These stay, whatever they look like.
	"SELECT $1, $2, $3, $4, $5, $6",
	"SELECT * FROM (SELECT $1, $2, $3, $4, $5, $6) AS x (a, b, c, d, e, f)",
	"INSERT INTO t (a, b, c, d, e, f) VALUES ($1, $2, $3, $4, $5, $6)",
	"SELECT 1 FROM t WHERE a = 1 AND b = 1 OR a = 2 AND b = 2 OR a = 3 AND b = 3 OR a = 4 AND b = 4 OR a = 5 AND b = 5",
	"SELECT 1 FROM t WHERE a IN (1, 2, 3) OR a IN (SELECT 1 WHERE b = 1) OR a IN (SELECT 1 WHERE b = 2) OR a IN (SELECT 1 WHERE b = 3) OR a IN (SELECT 1 WHERE b = 4) OR y",
	"SELECT greatest(1::float(1), 1::float(20), 1::float(30), 1::float(40), 1::float(50), 1)",
	"SELECT CASE WHEN a = 1 OR b = 2 THEN 1 WHEN a = 2 OR b = 3 THEN 2 WHEN a = 3 OR b = 4 THEN 3 WHEN a = 4 OR b = 5 THEN 3 END",
	"WITH a AS (UPDATE t SET v = 1 WHERE id = 1), a AS (UPDATE t SET v = 1 WHERE id = 1), a AS (UPDATE t SET v = 1 WHERE id = 1), a AS (UPDATE t SET v = 1 WHERE id = 1) SELECT 1",
	"SELECT 1 FROM t WHERE id IN ($1, $2, $3, $4, $99999, $6)",
	"SELECT U&\"d!0061\" UESCAPE '!' FROM t WHERE id IN ($1, $2, $3,[ $4,] $5)",
}

// cut takes the marks out of one of shortened, and gives it without what is between them.
func cut(marked string) (sql, short string) {
	out := false
	for i, c := range []byte(marked) {
		switch {
		case c == '[' && strings.IndexByte(",RD", marked[i-1]) >= 0:
			out = true
		case c == ']' && out:
			out = false
		case out:
			sql, short = sql+string(c), short+" "
		default:
			sql, short = sql+string(c), short+string(c)
		}
	}
	return sql, short
}

func TestShorten(t *testing.T) {
	for _, want := range shortened {
		sql, short := cut(want)
		if got, _ := shorten(sql, 3, false); got != short {
			t.Errorf("%s\ngot  %s\nwant %s", sql, got, short)
		}
	}
}

// TestLiteralsAreNotLeftOutWhereTheyCount: in a text of which they are a part, the
// name of a setting is one.
func TestLiteralsAreNotLeftOutWhereTheyCount(t *testing.T) {
	calls := func(name string) string { return "set_config('" + name + "', $1, false), " }
	sql := "SELECT coalesce(" + strings.Repeat(calls("a"), 2*MaxList) + calls("search_path") + calls("a") + "'')"
	statements, err := Parse(sql, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f := statements[0].Functions; len(f) > MaxList+4 || !slices.ContainsFunc(f, func(f Function) bool { return f.Setting == "search_path" }) {
		t.Errorf("got %d calls, %v", len(f), f)
	}
}

// TestWhatIsLeftOutSaysNothingNew: the facts of the corpus and of those texts are the same if lists
// have one element as if they have as many as they have, but for how often the same is said.
func TestWhatIsLeftOutSaysNothingNew(t *testing.T) {
	texts := corpus(t)
	for _, marked := range shortened {
		sql, _ := cut(marked)
		texts = append(texts, sql)
	}
	lists := 0
	for _, sql := range texts {
		s, ok := Scan(sql)
		if !ok {
			s.Literals = nil
		}
		all, err := parse(sql, s.Literals, len(sql), false)
		some, err2 := parse(sql, s.Literals, 1, false)
		if (err == nil) != (err2 == nil) {
			t.Errorf("%q: %v, and with short lists %v", sql, err, err2)
			continue
		}
		if short, _ := shorten(sql, 1, s.Literals == nil); short != sql {
			lists++
		}
		if got, want := gist(some), gist(all); got != want {
			t.Errorf("%q: with short lists\n%swant\n%s", sql, got, want)
		}
	}
	if lists < 15 {
		t.Errorf("%d texts have lists", lists)
	}
}

// gist is what statements say without regard to how often, and to numbers of arguments.
func gist(statements []*Statement) string {
	var out strings.Builder
	for _, st := range statements {
		once := make(map[string]bool)
		note := func(format string, args ...any) { once[fmt.Sprintf(format, args...)] = true }
		relation := func(r Relation) string {
			columns := make(map[string]bool)
			for _, e := range r.Equal {
				columns[fmt.Sprint(e.Column, len(e.Values) > 1, e.Array)] = true
			}
			return fmt.Sprint(r.Name, r.Alias, r.Nested, r.Columns, r.AllColumns, slices.Sorted(maps.Keys(columns)))
		}
		for _, r := range st.Reads {
			note("reads %s", relation(r))
		}
		for _, w := range st.Writes {
			note("writes %v %s %v %v %v %v %v", w.Op, relation(w.Target), w.Cascade, w.Columns, w.InsertColumns, w.ConflictColumns, len(w.Rows) > 0)
			for _, row := range w.Rows {
				note("row %d %v", len(row), slices.Contains(row, nil))
			}
		}
		for _, f := range st.Functions {
			note("calls %v %s", f.Name, f.Setting)
		}
		for _, c := range st.Casts {
			note("casts to %v from %v", c.Type, len(c.From) > 0)
		}
		note("%v %v %v %v", st.Operators, st.Types, st.Attributes, st.Keywords)
		note("%v %v %v %v %v %v", st.Kind, st.Bounded, st.Locks, st.Sample, st.Into, st.Local)
		note("%v %v %v %v %v %v %v", st.Params, st.SettingName, st.Plain, st.Grouped, st.Single, st.Outputs, st.Body != nil)
		fmt.Fprintln(&out, strings.Join(slices.Sorted(maps.Keys(once)), "\n"))
	}
	return out.String()
}
