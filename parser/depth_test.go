package parser

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// nests are texts whose parse tree gets deeper by each repetition, or at least
// longer: head, n times part, middle, n times tail, end.
var nests = []struct{ name, head, part, middle, tail, end string }{
	{"brackets", "SELECT ", "(", "1", ")", ""},
	{"sums", "SELECT 1", "+1", "", "", ""},
	{"signs", "SELECT ", "- ", "a", "", ""},
	{"ors", "SELECT 1 WHERE a", " OR a", "", "", ""},
	{"ands", "SELECT 1 WHERE a = 1", " AND a = 1", "", "", ""},
	{"nots", "SELECT ", "NOT ", "a", "", ""},
	{"sub-selects", "", "SELECT (", "SELECT 1", ")", ""},
	{"sub-selects behind a comma", "", "SELECT 1, (", "SELECT 1", ")", ""},
	{"sub-selects in FROM", "", "SELECT * FROM (", "SELECT 1", ") x", ""},
	{"exists", "SELECT 1 WHERE true", " AND EXISTS (SELECT 1 WHERE true", "", ")", ""},
	{"with", "", "WITH a AS (", "SELECT 1", ") SELECT 1", ""},
	{"with behind a comma", "", "WITH b AS (SELECT 1), a AS (", "SELECT 1", ") SELECT 1", ""},
	{"set operations", "SELECT 1", " UNION SELECT 1", "", "", ""},
	{"set operations in brackets", "", "(", "SELECT 1", " UNION SELECT 1)", ""},
	{"joins", "SELECT * FROM a", " CROSS JOIN a", "", "", ""},
	{"joins with conditions", "SELECT * FROM a", " JOIN a ON true AND a = a", "", "", ""},
	{"joins in brackets", "SELECT * FROM ", "(", "a", " JOIN b ON 1 = 1)", ""},
	{"casts", "SELECT 1", "::int", "", "", ""},
	{"tests", "SELECT 1", " IS NULL", "", "", ""},
	{"betweens", "SELECT 1", " BETWEEN 1 AND 2 IS NULL", "", "", ""},
	{"ins", "SELECT 1", " IN (1) IS NULL", "", "", ""},
	{"collations", "SELECT a", " COLLATE x", "", "", ""},
	{"time zones", "SELECT a", " AT TIME ZONE x", "", "", ""},
	{"conditions", "SELECT ", "CASE WHEN ", "a", " THEN 1 END", ""},
	{"conditions with and", "SELECT ", "CASE WHEN a AND ", "a", " THEN 1 END", ""},
	{"else", "SELECT ", "CASE WHEN a THEN b ELSE ", "a", " END", ""},
	{"calls", "SELECT ", "f(", "1", ")", ""},
	{"calls behind a comma", "SELECT ", "f(1, ", "1", ")", ""},
	{"windows", "SELECT ", "f() OVER (ORDER BY ", "1", ")", ""},
	{"partitions", "SELECT ", "f() OVER (PARTITION BY a, ", "1", ")", ""},
	{"filters", "SELECT ", "f() FILTER (WHERE ", "1", ")", ""},
	{"aggregates", "SELECT ", "f(a ORDER BY ", "1", ")", ""},
	{"arrays", "SELECT ARRAY", "[", "1", "]", ""},
	{"array keywords", "SELECT ", "ARRAY[", "1", "]", ""},
	{"rows", "SELECT ", "ROW(", "1", ")", ""},
	{"subscripts", "SELECT ", "a[", "1", "]", ""},
	{"subscripts side by side", "SELECT a", "[1]", "", "", ""},
	{"fields", "SELECT ", "(", "a", ").b", ""},
	{"grouping sets", "SELECT 1 GROUP BY ", "GROUPING SETS (", "a", ")", ""},
	{"coalesces", "SELECT ", "coalesce(", "1", ")", ""},
	{"xml", "SELECT ", "xmlelement(name a, ", "1", ")", ""},
	{"json", "SELECT ", "json_object('a': ", "1", ")", ""},
	{"json arrays", "SELECT ", "json_array(", "1", ")", ""},
	{"json aggregates", "SELECT ", "json_objectagg('a': ", "1", ")", ""},
	{"xml tables", "SELECT * FROM ", "XMLTABLE('a' PASSING (SELECT 1 FROM ", "t", ") COLUMNS a int)", ""},
	{"functions in FROM", "SELECT * FROM ", "ROWS FROM (f((SELECT 1 FROM ", "t", ")))", ""},
	{"casts as calls", "SELECT ", "CAST(", "1", " AS int)", ""},
	{"typmods", "SELECT ", "a::b(", "1", ")", ""},
	{"any", "SELECT ", "1 = ANY(", "1", ")", ""},
	{"operators by name", "SELECT 1", " OPERATOR(a.+) 1", "", "", ""},
	{"likes", "SELECT a", " LIKE (b) IS NULL", "", "", ""},
	{"lists", "SELECT 1 WHERE a IN (1", ", 1", "", "", ")"},
	{"targets", "SELECT 1", ", 1", "", "", ""},
	{"values", "VALUES (1)", ", (1)", "", "", ""},
	{"statements", "SELECT 1", "; SELECT 1", "", "", ""},
	{"begin case", "SELECT 1 AS case", ", (1", "", ")", ""},
	{"unclosed brackets", "SELECT ", "(", "", "", ""},
	{"unclosed conditions", "SELECT ", "CASE ", "", "", ""},
	{"closed brackets", "SELECT 1", ")", "", "", ""},
	{"ends", "SELECT 1", " END", "", "", ""},
	{"quotes", "SELECT '", "''", "", "", "'"},
	{"comments", "SELECT ", "/*", "", "*/", "1"},
	{"operators without end", "SELECT ", "+", "1", "", ""},
	{"operators of all characters", "SELECT ", "/+*-@", "1", "", ""},
	{"comments side by side", "SELECT 1", "/**/", "", "", ""},
	{"create rule", "CREATE RULE r AS ON INSERT TO t DO (", "SELECT 1;", "", "", ")"},
}

func nest(i, n int) string {
	t := nests[i]
	return t.head + strings.Repeat(t.part, n) + t.middle + strings.Repeat(t.tail, n) + t.end
}

// TestNesting parses texts that nest without end. One that gets past the check
// and is too deep for the C parser crashes the process.
func TestNesting(t *testing.T) {
	for i, x := range nests {
		t.Run(x.name, func(t *testing.T) {
			parse := func(n int) error {
				sql := nest(i, n)
				s, _ := Scan(sql)
				_, err := Parse(sql, s.Literals)
				return err
			}
			refused := false
			for n := 2; n <= 300 && !refused; n = n*5/4 + 1 {
				err := parse(n)
				refused = errors.Is(err, errTooDeep) || errors.Is(err, errNotTokens)
			}
			switch {
			case testing.Short():
			case refused:
				parse(100_000)
			default:
				parse(20_000) // it does not nest, and takes its time
			}
		})
	}
}

// TestNestingAllowed parses texts that people and ORMs write.
func TestNestingAllowed(t *testing.T) {
	allowed := map[string]int{
		"brackets": 50, "sums": 150, "ors": 5_000, "ands": 5_000, "sub-selects": 20, "sub-selects in FROM": 20,
		"with": 15, "set operations": 150, "joins with conditions": 50, "conditions": 50, "else": 50, "calls": 60,
		"lists": 50_000, "values": 50_000, "targets": 50_000, "statements": 2_000, "quotes": 100_000, "comments": 30,
	}
	for i, x := range nests {
		if n := allowed[x.name]; n > 0 {
			sql := nest(i, n)
			s, _ := Scan(sql)
			if _, err := Parse(sql, s.Literals); err != nil {
				t.Errorf("%d %s: %v", n, x.name, err)
			}
		}
	}
}

// TestSmallStack runs TestNesting with the thread stacks that musl gives,
// because the default of this system hides what would crash there.
func TestSmallStack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs ulimit -s to set the stack size of threads")
	}
	// 112 KiB instead of 128 leave room for other builds of the C code.
	cmd := exec.Command("sh", "-c", `ulimit -s 112 && exec "$0" -test.short -test.run '^TestNesting$'`, os.Args[0])
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%.2000s", err, out)
	}
}

func TestRefused(t *testing.T) {
	for _, x := range []struct {
		name, sql string
		want      error
	}{
		{"too long", "SELECT '" + strings.Repeat("x", maxText) + "'", errTooLong},
		{"a NUL byte", "SELECT 1 \x00 ; DELETE FROM t", errNotText},
		{"not UTF-8", "SELECT '\xff'", errNotText},
		{"not SQL", "SELECT FROM WHERE", errNotParsed},
		{"not tokens", "SELECT 'open", errNotTokens},
	} {
		if s, ok := Scan(x.sql); ok && x.want == errNotText {
			t.Errorf("%s: scanned as %q", x.name, s.Text)
		}
		if _, err := Parse(x.sql, nil); !errors.Is(err, x.want) {
			t.Errorf("%s: got %v, want %v", x.name, err, x.want)
		}
	}
}
