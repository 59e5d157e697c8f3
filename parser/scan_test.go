package parser

import (
	"strings"
	"testing"
)

// TestSameText has texts that differ in nothing that matters.
func TestSameText(t *testing.T) {
	for _, group := range [][]string{
		{"SELECT 1", "select 2", " SeLeCt\n3 ", "SELECT/**/4", "SELECT 5 -- five", "SELECT 007"},
		{"SELECT 'a'", "SELECT E'\\n'", "SELECT $$x$$", "SELECT $q$'$q$", "SELECT U&'\\0041'", "SELECT 'a'\n'b'"},
		{"SELECT 1.0", "SELECT 1e0", "SELECT 3000000000"},
		{"SELECT N'x'", "SELECT NCHAR 'x'"},
		{"SELECT a.b", "SELECT a . b", "SELECT A/**/.B"},
		{"SELECT f(x)", "SELECT f (x)", "SELECT f( x )"},
		{"SELECT x::int", "SELECT x :: int"},
		{"SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"},
		{"SELECT * FROM t /* traceparent='00-1' */", "SELECT * FROM t /* traceparent='00-2' */", "SELECT * FROM t -- cachedpg: bypass"},
	} {
		want := mustScan(t, group[0]).Text
		for _, sql := range group[1:] {
			if got := mustScan(t, sql).Text; got != want {
				t.Errorf("%q became %q, and %q became %q", sql, got, group[0], want)
			}
		}
	}
}

// TestDifferentText has texts of which each means something else.
func TestDifferentText(t *testing.T) {
	seen := map[string]string{}
	for _, sql := range []string{
		"SELECT 1", "SELECT '1'", "SELECT 1.0", "SELECT B'1'", "SELECT $1", "SELECT $2", "SELECT -1", "SELECT - - 1", "SELECT --\n 1, 1",
		"SELECT 0x1", "SELECT 0x01", "SELECT 1_0",
		"SELECT a", `SELECT "a"`, `SELECT "A"`, `SELECT U&"a"`, `SELECT "a b"`, "SELECT a b", "SELECT ab", "SELECT a$b", "SELECT a$int", "SELECT a, 1", `SELECT "$int"`, `SELECT "$str"`,
		"SELECT N'1'", "SELECT n, '1'", "SELECT e, '1'", "SELECT u & '1'", `SELECT u & "a"`, "SELECT n.'1'",
		"SELECT a+b", "SELECT a+ +b", "SELECT a @+ b", "SELECT a @ + b", "SELECT a<-1", "SELECT a <@- 1", "SELECT a = > b", "SELECT a => b",
		"SELECT a.b.c", "SELECT a . b c", "SELECT a .1", "SELECT a. 1", "SELECT a[1]", "SELECT (a)[1]", "SELECT a.*", "SELECT a . b * c", "SELECT a * b",
		"SELECT a::b", "SELECT a : : b", "SELECT a := b", "SELECT a : = b",
		"SELECT float(1) '1'", "SELECT float(2) '1'", "SELECT float '1'", "SELECT a ORDER BY 1", "SELECT a ORDER BY 2", "SELECT a GROUP BY 1", "SELECT a ORDER BY '1'", "SELECT a ORDER BY a, 1", "SELECT a ORDER BY a, 2",
		"SELECT 1;", "SELECT 1; ;", "", ";", "SELECT é", "SELECT É",
	} {
		text := mustScan(t, sql).Text
		if other, ok := seen[text]; ok {
			t.Errorf("%q and %q both became %q", sql, other, text)
		}
		seen[text] = sql
	}
}

func mustScan(t *testing.T, sql string) Scanned {
	t.Helper()
	s, ok := Scan(sql)
	if !ok {
		t.Fatalf("%q is unclear", sql)
	}
	return s
}

// TestScanAllocations is the budget of a hit on the plan cache: the text, and
// the literals if there are any.
func TestScanAllocations(t *testing.T) {
	for sql, want := range map[string]float64{
		"SELECT id, name FROM author WHERE id = $1":                                1,
		"SELECT id, name FROM author WHERE id = 42 AND name = 'x' /* c */ LIMIT 1": 2,
		"SELECT id FROM author WHERE name = 'O''Hara'":                             4,
	} {
		if got := testing.AllocsPerRun(100, func() { Scan(sql) }); got > want {
			t.Errorf("%q: got %v allocations, want %v", sql, got, want)
		}
	}
}

// TestScanLinear scans texts that a careless lexer looks at again and again.
func TestScanLinear(t *testing.T) {
	for _, part := range []string{"+", "+-", "/*", "/**/", "'a'\n", "$a", "$$ ", "\"\"", "''", "--\n", "E'\\'", "1.", "a.", "(", "::", "U&''", "/* cachedpg: bypass */", "order by 1,"} {
		Scan(strings.Repeat(part, 1<<20/len(part)))
	}
}
