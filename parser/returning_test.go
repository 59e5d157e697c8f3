package parser

import (
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
)

func TestAppendReturning(t *testing.T) {
	const list = "t.a"
	for sql, want := range map[string]string{
		"DELETE FROM t":                            "DELETE FROM t RETURNING t.a",
		"DELETE FROM t ;":                          "DELETE FROM t RETURNING t.a ;",
		"DELETE FROM t; -- all of it":              "DELETE FROM t RETURNING t.a; -- all of it",
		"DELETE FROM t -- all; of it":              "DELETE FROM t RETURNING t.a -- all; of it",
		"DELETE FROM t /* a /* b; */ */ ; ; ":      "DELETE FROM t RETURNING t.a /* a /* b; */ */ ; ; ",
		"/* cachedpg: x */ DELETE FROM t":          "/* cachedpg: x */ DELETE FROM t RETURNING t.a",
		"DELETE FROM t WHERE b = $1":               "DELETE FROM t WHERE b = $1 RETURNING t.a",
		"DELETE FROM t WHERE b = 1":                "DELETE FROM t WHERE b = 1 RETURNING t.a",
		"DELETE FROM t WHERE b = E'\\';--'":        "DELETE FROM t WHERE b = E'\\';--' RETURNING t.a",
		"DELETE FROM t WHERE b = $x$;--$x$":        "DELETE FROM t WHERE b = $x$;--$x$ RETURNING t.a",
		"DELETE FROM t WHERE b = 'c'\n'd' -- e\n;": "DELETE FROM t WHERE b = 'c'\n'd' RETURNING t.a -- e\n;",
		"DELETE FROM t WHERE b = 'c' -- e":         "DELETE FROM t WHERE b = 'c' RETURNING t.a -- e",
		"DELETE FROM t AS \"x;\"":                  "DELETE FROM t AS \"x;\" RETURNING t.a",
		"":                                         "",
		";":                                        "",
		"DELETE FROM t; DELETE FROM u":             "",
		"DELETE FROM t WHERE b = 'c":               "",
		"DELETE FROM t /* a":                       "",
	} {
		got, ok := AppendReturning(sql, list, false)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", sql, got, ok)
		}
	}
	got, ok := AppendReturning("DELETE FROM t RETURNING b AS c; -- d", list, true)
	if want := "DELETE FROM t RETURNING b AS c, t.a; -- d"; got != want || !ok {
		t.Errorf("got %q, %v; want %q", got, ok, want)
	}
}

// checkReturning holds the text with a list against PostgreSQL's grammar: nothing but the list may have been added.
func checkReturning(t *testing.T, sql string) {
	before, err := pg.Parse(sql)
	if err != nil || len(before.Stmts) != 1 {
		return
	}
	list := returningOf(before)
	if list == nil {
		return
	}
	own := len(*list)
	text, ok := AppendReturning(sql, `x."y z", x.b`, own > 0)
	if !ok {
		return
	}
	after, err := pg.Parse(text)
	if err != nil {
		t.Fatalf("%q became %q: %v", sql, text, err)
	}
	longer := returningOf(after)
	if longer == nil || len(*longer) != own+2 {
		t.Fatalf("%q became %q, whose list is not two longer", sql, text)
	}
	if *longer = (*longer)[:own:own]; own == 0 {
		*longer = nil
	}
	for _, tree := range []*pg.ParseResult{before, after} {
		tree.Stmts[0].StmtLen = 0
	}
	if before.String() != after.String() {
		t.Fatalf("%q became %q, which is another statement", sql, text)
	}
}

// returningOf is the list of the one statement, nil if it can have none.
func returningOf(tree *pg.ParseResult) *[]*pg.Node {
	switch node := tree.Stmts[0].Stmt; {
	case node.GetInsertStmt() != nil:
		return &node.GetInsertStmt().ReturningList
	case node.GetUpdateStmt() != nil:
		return &node.GetUpdateStmt().ReturningList
	case node.GetDeleteStmt() != nil:
		return &node.GetDeleteStmt().ReturningList
	}
	return nil
}

func FuzzAppendReturning(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	// What may come behind the last token, and what looks like it.
	f.Add("DELETE FROM t WHERE a = U&'!0041' UESCAPE '!' --;\r;;/* a -- */")
	// A list of its own whose last element may go on.
	f.Add("INSERT INTO t DEFAULT VALUES RETURNING a::float(3), b c")
	f.Add("UPDATE t SET a = 1 RETURNING a IS NULL, b COLLATE \"C\" --")
	// Strings and numbers that another token may be glued to.
	f.Add("DELETE FROM t WHERE a = 1.")
	f.Add("DELETE FROM t WHERE a = 'b' -- c\r\n'd'--e")
	f.Fuzz(func(t *testing.T, sql string) { checkReturning(t, sql) })
}
