package keying

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
)

// TestPlanningGrowsWithTheText plans texts of every way in which they get long, and
// again twice as long: what is allocated may not grow by much more. Where a text is
// long by what is repeated in it, that is little for each byte of it.
func TestPlanningGrowsWithTheText(t *testing.T) {
	snapshot := longSchema(t)
	cost := func(sql string) (bytes, objects uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		plan, literals := planFor(t, snapshot, sql)
		plan.WriteTags(nil, Values{Args: named(numbers(sql)...), Literals: literals})
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, after.Mallocs - before.Mallocs
	}
	for name, long := range longTexts {
		once, twice := long.text(long.n), long.text(2*long.n)
		cost(once) // what is made once for all
		bytes1, objects1 := cost(once)
		bytes2, objects2 := cost(twice)
		t.Logf("%-14s %7d bytes in %6d pieces for %6d of text, × %.2f and × %.2f", name, bytes1, objects1, len(once), ratio(bytes2, bytes1), ratio(objects2, objects1))
		// Maps and slices grow by doubling, so a little more than twice is no sign.
		if bytes2 > bytes1*23/10+1<<15 || objects2 > objects1*22/10+1000 {
			t.Errorf("%s: %d → %d bytes, %d → %d pieces for twice the text", name, bytes1, bytes2, objects1, objects2)
		}
		if list := uint64(24*len(once) + 1<<19); long.repeats && (bytes1 > list || objects1 > uint64(len(once)/4+20000)) {
			t.Errorf("%s: %d bytes in %d pieces for a text of %d", name, bytes1, objects1, len(once))
		}
	}
}

func ratio(a, b uint64) float64 { return float64(a) / float64(b) }

func numbers(sql string) []any {
	list := make([]any, strings.Count(sql, "$"))
	for i := range list {
		list[i] = int64(i)
	}
	return list
}

// longSchema has a relation t, and m1, m2, … with a key each.
func longSchema(t testing.TB) *catalog.Snapshot {
	c := testContents(t)
	lines := []string{"r t 5000 | id int4, v text | 5001* id"}
	for i := 1; i <= 1000; i++ {
		lines = append(lines, fmt.Sprintf("r m%d %d | id int4, v text | %d* id", i, 100000+2*i, 100001+2*i))
	}
	tables(t, &c, strings.Join(lines, "\n"))
	return catalog.NewSnapshot(c)
}

// list joins n parts.
func list(n int, separator string, part func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = part(i + 1)
	}
	return strings.Join(parts, separator)
}

func format(pattern string) func(i int) string {
	n := strings.Count(pattern, "%d")
	return func(i int) string {
		args := make([]any, n)
		for j := range args {
			args[j] = i
		}
		return fmt.Sprintf(pattern, args...)
	}
}

// longTexts are texts by n; what is in one another is below the limit of nesting.
var longTexts = map[string]struct {
	n       int
	repeats bool // the same again and again, but for parameters and literals
	text    func(n int) string
}{
	"in":         {5000, true, func(n int) string { return "SELECT * FROM t WHERE id IN (" + list(n, ", ", format("$%d")) + ")" }},
	"in-integer": {5000, true, func(n int) string { return "SELECT * FROM t WHERE id IN (" + list(n, ", ", format("%d")) + ")" }},
	"in-string":  {5000, true, func(n int) string { return "SELECT * FROM t WHERE v IN (" + list(n, ", ", format("'v%d'")) + ")" }},
	"in-cast":    {5000, true, func(n int) string { return "SELECT * FROM t WHERE id IN (" + list(n, ", ", format("$%d::int4")) + ")" }},
	"in-mixed": {2000, true, func(n int) string {
		return "SELECT * FROM t WHERE id IN (" + list(n, ", ", format("$%d, id, v::int4, $%d::int4, -5, id + $%d")) + ")"
	}},
	"delete": {5000, true, func(n int) string { return "DELETE FROM t WHERE id IN (" + list(n, ", ", format("$%d")) + ")" }},
	"array": {5000, true, func(n int) string {
		return "SELECT * FROM t WHERE id = ANY(ARRAY[" + list(n, ", ", format("$%d::int4")) + "])"
	}},
	"or": {2000, true, func(n int) string { return "SELECT * FROM t WHERE " + list(n, " OR ", format("id = $%d")) }},
	"or-pairs": {2000, true, func(n int) string {
		return "SELECT * FROM t WHERE " + list(n, " OR ", format("(id = $%d AND v = $%d)"))
	}},
	"or-words":  {1000, false, func(n int) string { return "SELECT * FROM t WHERE " + list(n, " OR ", format("t.c%d = $%d")) }},
	"and":       {2000, true, func(n int) string { return "SELECT * FROM t WHERE " + list(n, " AND ", format("id <> $%d")) }},
	"and-equal": {2000, true, func(n int) string { return "UPDATE t SET v = 'a' WHERE " + list(n, " AND ", format("id = $%d")) }},
	"insert":    {2000, true, func(n int) string { return "INSERT INTO t (id, v) VALUES " + list(n, ", ", format("($%d, $%d)")) }},
	"upsert": {2000, true, func(n int) string {
		return "INSERT INTO t (id, v) VALUES " + list(n, ", ", format("($%d, $%d)")) + " ON CONFLICT (id) DO UPDATE SET v = excluded.v"
	}},
	"insert-mixed": {500, false, func(n int) string {
		return "INSERT INTO t (id, v) VALUES " + list(n, ", ", func(i int) string { return "(" + strings.Repeat("- ", i%20) + "1, $1)" })
	}},
	"from-values": {1000, true, func(n int) string {
		return "UPDATE t SET v = x.v FROM (VALUES " + list(n, ", ", format("($%d::int4, $%d::text)")) + ") AS x (id, v) WHERE t.id = x.id"
	}},
	"columns":   {1000, false, func(n int) string { return "SELECT " + list(n, ", ", format("c%d")) + " FROM t" }},
	"qualified": {1000, false, func(n int) string { return "SELECT " + list(n, ", ", format("t.c%d")) + " FROM t" }},
	"derived": {1000, false, func(n int) string {
		return "SELECT " + list(n, ", ", format("x.c%d")) + " FROM (SELECT " + list(n, ", ", format("%d AS c%d")) + ") x"
	}},
	"derived-bare": {1000, false, func(n int) string {
		return "SELECT " + list(n, ", ", format("c%d")) + " FROM (SELECT " + list(n, ", ", format("%d AS c%d")) + ") x"
	}},
	"set":       {1000, false, func(n int) string { return "UPDATE t SET " + list(n, ", ", format("c%d = $%d")) + " WHERE id = 1" }},
	"returning": {1000, false, func(n int) string { return "INSERT INTO t (id) VALUES (1) RETURNING " + list(n, ", ", format("c%d")) }},
	"order":     {1000, false, func(n int) string { return "SELECT * FROM t ORDER BY " + list(n, ", ", format("c%d")) }},
	"sets": {1000, false, func(n int) string {
		return "SELECT id FROM t GROUP BY GROUPING SETS (" + list(n, ", ", format("(id, c%d)")) + ")"
	}},
	"cte": {500, false, func(n int) string {
		return "WITH " + list(n, ", ", format("c%d AS (SELECT id FROM t WHERE id = $%d)")) + " SELECT * FROM " + list(n, ", ", format("c%d"))
	}},
	"cte-chain": {500, false, func(n int) string {
		return "WITH c0 AS (SELECT id FROM t), " + list(n, ", ", func(i int) string { return fmt.Sprintf("c%d AS (SELECT * FROM c%d)", i, i-1) }) + fmt.Sprintf(" SELECT * FROM c%d", n)
	}},
	"cte-recursive": {500, false, func(n int) string {
		return "WITH RECURSIVE " + list(n, ", ", format("c%d AS (SELECT id FROM t)")) + " SELECT * FROM " + list(n, ", ", format("c%d"))
	}},
	"cte-update": {500, false, func(n int) string {
		return "WITH " + list(n, ", ", format("c%d AS (UPDATE t SET v = 'a' WHERE id = $%d RETURNING id)")) + " SELECT 1"
	}},
	"from": {500, false, func(n int) string {
		return "SELECT 1 FROM " + list(n, ", ", format("t AS t%d")) + " WHERE " + list(n, " AND ", format("t%d.id = $%d"))
	}},
	"from-bare": {500, false, func(n int) string {
		return "SELECT " + list(n, ", ", format("c%d")) + " FROM " + list(n, ", ", format("t AS t%d"))
	}},
	"from-stars": {500, false, func(n int) string {
		return "SELECT " + list(n, ", ", format("t%d.*")) + " FROM " + list(n, ", ", format("t AS t%d"))
	}},
	"tables": {500, false, func(n int) string { return "SELECT 1 FROM " + list(n, ", ", format("m%d")) }},
	"join": {45, false, func(n int) string {
		return "SELECT 1 FROM t AS t0 " + list(n, " ", format("JOIN t AS t%d ON t%d.id = t0.id"))
	}},
	"lateral": {45, false, func(n int) string {
		return "SELECT 1 FROM t " + list(n, " ", format("CROSS JOIN LATERAL (SELECT * FROM t u WHERE u.id = t.id) l%d"))
	}},
	"union":      {45, false, func(n int) string { return list(n, " UNION ALL ", format("SELECT id, v FROM t WHERE id = $%d")) }},
	"unions":     {1000, false, func(n int) string { return list(n, " UNION ALL ", format("SELECT id, v FROM t WHERE id = $%d")) }},
	"subselects": {500, false, func(n int) string { return "SELECT " + list(n, ", ", format("(SELECT v FROM t WHERE id = $%d)")) }},
	"exists": {500, false, func(n int) string {
		return "SELECT 1 FROM t WHERE " + list(n, " OR ", format("EXISTS (SELECT 1 FROM m%d WHERE m%d.id = t.id)"))
	}},
	"brackets": {45, false, func(n int) string { return "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) }},
	"calls": {30, false, func(n int) string {
		return "SELECT " + strings.Repeat("lower(", n) + "v" + strings.Repeat(")", n) + " FROM t"
	}},
	"selects": {20, false, func(n int) string {
		return strings.Repeat("SELECT * FROM (", n) + "SELECT * FROM t" + strings.Repeat(") x", n)
	}},
	"concat":   {90, false, func(n int) string { return "SELECT (" + list(n, " || ", format("v")) + ")::date FROM t" }},
	"coalesce": {2000, true, func(n int) string { return "SELECT coalesce(" + list(n, ", ", format("id")) + ")::text FROM t" }},
	"coalesce-many": {1000, false, func(n int) string {
		return "SELECT coalesce(" + list(n, ", ", format("id, c%d, v || c%d")) + ")::text FROM t"
	}},
	"case": {1000, false, func(n int) string {
		return "SELECT (CASE " + list(n, " ", format("WHEN id = $%d THEN v")) + " END)::date FROM t"
	}},
	"casts":      {1000, false, func(n int) string { return "SELECT " + list(n, ", ", format("v::date")) + " FROM t" }},
	"types":      {1000, false, func(n int) string { return "SELECT " + list(n, ", ", format("v::t%d")) + " FROM t" }},
	"functions":  {1000, false, func(n int) string { return "SELECT " + list(n, ", ", format("f%d(id)")) + " FROM t" }},
	"statements": {500, false, func(n int) string { return list(n, "; ", format("SELECT lower(v) FROM m%d")) }},
	"inserts":    {500, false, func(n int) string { return list(n, "; ", format("INSERT INTO m%d (id) VALUES (%d)")) }},
	"comments":   {5000, false, func(n int) string { return "SELECT 1 " + list(n, " ", format("/* %d */")) }},
	"unread":     {5000, false, func(n int) string { return "SELECT * FROM FROM t WHERE id IN (" + list(n, ", ", format("$%d")) + ")" }},
}
