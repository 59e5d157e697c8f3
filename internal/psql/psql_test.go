package psql_test

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/psql"
)

func TestAScriptIsCutAsPsqlCutsIt(t *testing.T) {
	t.Parallel()
	text := `
-- a comment; with a semicolon
SELECT 1;
-- expect: error 22012
-- run: alone
SELECT 'a;b', "c;d", $$e;f$$, $x$g;$$h$x$ /* ; /* ; */ */ , E'it\'s;' -- ;
  , (SELECT 2;);;
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
BEGIN; SELECT 'x' \; SELECT a[1:2]::text; END;
\set n 5
\pset null x
SELECT :n, :'n', :unset, x::n FROM t \gset p_
COPY t (a) FROM STDIN;
1	one
\N	;
\.
COPY t FROM STDIN; -- refused
SELECT 3;
CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);
last`
	var got []string
	s := psql.New(text)
	for {
		st, ok := s.Next()
		if !ok {
			break
		}
		if st.Command == `\set n 5` {
			s.Vars["n"] = "5"
		}
		line := st.SQL
		if st.Command != "" {
			line += " → " + st.Command
		}
		for _, d := range st.Data {
			line += " ← " + d
		}
		for _, n := range st.Notes {
			line = n + ": " + line
		}
		got = append(got, line)
	}
	want := []string{
		"SELECT 1",
		"run: alone: expect: error 22012: SELECT 'a;b', \"c;d\", $$e;f$$, $x$g;$$h$x$ /* ; /* ; */ */ , E'it\\'s;' -- ;\n  , (SELECT 2;)",
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
		"BEGIN", "SELECT 'x' ; SELECT a[1:2]::text", "END",
		` → \set n 5`, ` → \pset null x`,
		`SELECT 5, '5', :unset, x::n FROM t → \gset p_`,
		"COPY t (a) FROM STDIN ← 1\tone ← \\N\t;",
		"COPY t FROM STDIN", "SELECT 3",
		"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
		"last",
	}
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("step %d:\ngot  %q\nwant %q", i, g, w)
		}
	}
}
