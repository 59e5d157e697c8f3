package parser

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
)

func TestParseBody(t *testing.T) {
	for _, tc := range []struct {
		name, source string
		want         string // kinds of the statements, and flags
	}{
		{"updated_at", "BEGIN NEW.updated_at := now(); RETURN NEW; END", "select; assigns updated_at"},
		{"quoted column", `BEGIN NEW."updatedAt" = now(); RETURN NEW; END;`, "select; assigns updatedAt"},
		{"another row", "BEGIN NEW := OLD; RETURN NEW; END", "select; assigns all"},
		{"the row as it was", "BEGIN IF NEW.a = 1 THEN RETURN OLD; END IF; RETURN NEW; END", "select; returns old"},
		{"returned row", "DECLARE r record; BEGIN r := NEW; RETURN r; END", "select select; assigns all"},
		{"alias of the row", "DECLARE n ALIAS FOR new; BEGIN n.id := 1; RETURN NEW; END", "select; assigns all"},
		{"alias of a parameter", "DECLARE n ALIAS FOR $1; BEGIN RETURN NULL; END", ""},
		{"into the row", "BEGIN SELECT 1, 2 INTO NEW.a, NEW.b FROM t; RETURN NEW; END", "select; assigns a b"},
		{"audit", "BEGIN INSERT INTO audit VALUES (TG_OP, OLD.id); RETURN NULL; END", "insert"},
		{"into a variable", "DECLARE n int; BEGIN INSERT INTO t VALUES (1) RETURNING id INTO STRICT n; UPDATE u SET n = n; END", "insert update"},
		{"branches", "BEGIN IF a > 1 THEN DELETE FROM t; ELSIF f(a) THEN NULL; ELSE TRUNCATE u; END IF; END", "select delete select truncate"},
		{"case", "BEGIN CASE x WHEN 1, 2 THEN DELETE FROM t; ELSE NULL; END CASE; CASE WHEN f() THEN PERFORM g(); END CASE; END", "select select delete select select"},
		{"loops", "<<l>> DECLARE c CURSOR (k int) FOR SELECT k FROM t; BEGIN FOR i IN REVERSE 10..1 BY 2 LOOP EXIT l WHEN f(); END LOOP;" +
			" FOR r IN SELECT * FROM t LOOP CONTINUE; END LOOP; FOR r IN c(f()) LOOP END LOOP; WHILE g() LOOP NULL; END LOOP;" +
			" FOREACH x SLICE 1 IN ARRAY a LOOP END LOOP; LOOP RETURN; END LOOP; END l", "select select select select select select select select select"},
		{"handler", "BEGIN DELETE FROM t; EXCEPTION WHEN unique_violation OR others THEN INSERT INTO e VALUES (SQLERRM); END", "delete insert"},
		{"raise", "BEGIN RAISE NOTICE 'a % %', f(1), 2 USING HINT = g(), ERRCODE = '22012'; RAISE; END", "select select select"},
		{"set-returning", "BEGIN RETURN QUERY SELECT 1; RETURN NEXT f(); RETURN NEXT; RETURN QUERY DELETE FROM t RETURNING *; END", "select select delete"},
		{"cursors", "BEGIN OPEN c FOR SELECT f(); FETCH NEXT FROM c INTO r; MOVE c; CLOSE c; GET DIAGNOSTICS n = ROW_COUNT; END", "select"},
		{"dynamic", "BEGIN EXECUTE 'DELETE FROM ' || t USING a; END", "; dynamic"},
		{"dynamic loop", "BEGIN FOR r IN EXECUTE q LOOP RETURN QUERY EXECUTE q; END LOOP; OPEN c FOR EXECUTE q; END", "; dynamic"},
		{"ends", "BEGIN DELETE FROM t; COMMIT; ROLLBACK AND CHAIN; END", "delete; ends"},
		{"call", "BEGIN CALL p(1); PERFORM f(); END", "call select"},
		{"subscripts", "BEGIN a[f(1):2] := g(); b.c[3] := 1; END", "select select select select select"},
		{"with", "BEGIN WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d; END", "insert"},
		{"merge", "BEGIN MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE; END", "merge"},
		{"comments", "/* BEGIN */ BEGIN -- END\n NULL; END /* ; */", ""},
		{"options", "#variable_conflict use_column\n#option dump\nBEGIN NULL; END", ""},
		{"block in a block", "BEGIN <<b>> DECLARE x int := f(); BEGIN NULL; END b; END", "select"},
		{"assert", "BEGIN ASSERT f(1), 'no'; END", "select"},
		{"text with words", "BEGIN x := 'COMMIT; EXECUTE'; y := $q$ BEGIN $q$; END", "select select"},

		{"no block", "SELECT 1", "error"},
		{"no end", "BEGIN DELETE FROM t;", "error"},
		{"behind the end", "BEGIN NULL; END; DELETE FROM t", "error"},
		{"several in one", "BEGIN PERFORM 1; DELETE FROM t WHERE; END", "error"},
		{"fetch by an expression", "BEGIN FETCH RELATIVE f() FROM c INTO r; END", "error"},
		{"not closed", "BEGIN x := 'a; END", "error"},
		{"two targets", "BEGIN SELECT 1 INTO a INTO b; END", "error"},
	} {
		body, err := ParseBody("plpgsql", tc.source)
		got := "error"
		if err == nil {
			got = describeBody(body)
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q\n%s", tc.name, got, tc.want, tc.source)
		}
	}
	if body, err := ParseBody("sql", "INSERT INTO t VALUES ($1); SELECT f($1)"); err != nil || describeBody(body) != "insert select" {
		t.Errorf("SQL: %v, %v", body, err)
	}
	for _, tc := range [][2]string{{"plpython3u", "pass"}, {"sql", "SELEC"}, {"plpgsql", "BEGIN \x00 END"}, {"plpgsql", strings.Repeat("x", maxBody+1)},
		{"plpgsql", strings.Repeat("BEGIN ", maxBlocks+1) + strings.Repeat("END; ", maxBlocks+1)}} {
		if _, err := ParseBody(tc[0], tc[1]); err == nil {
			t.Errorf("%s %.20q: no error", tc[0], tc[1])
		}
	}
}

func describeBody(b *Body) string {
	var kinds []string
	for _, s := range b.Statements {
		kinds = append(kinds, s.Kind.String())
	}
	text := strings.Join(kinds, " ")
	if b.Dynamic {
		text += "; dynamic"
	}
	if b.Ends {
		text += "; ends"
	}
	switch {
	case b.AssignsAll:
		text += "; assigns all"
	case b.Assigns != nil:
		text += "; assigns " + strings.Join(b.Assigns, " ")
	}
	if b.ReturnsOld {
		text += "; returns old"
	}
	return text
}

// CREATE FUNCTION of a psql script, with its body.
var plpgsqlFunction = regexp.MustCompile(`(?is)create\s+(?:or\s+replace\s+)?(function|procedure)\s+[^;$']*?\sas\s+(\$\w*\$)(.*?)\$\w*\$[^;]*;`)

// PostgreSQL's own reader of PL/pgSQL, from its library, finds the same SQL in
// every function that ParseBody understands.
func TestBodiesAsPostgreSQLReadsThem(t *testing.T) {
	files, err := filepath.Glob("testdata/plpgsql/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if more := os.Getenv("CACHEDPG_PLPGSQL"); more != "" {
		files = append(files, strings.Fields(more)...)
	}
	understood, total := 0, 0
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range plpgsqlFunction.FindAllStringSubmatch(string(script), -1) {
			if !regexp.MustCompile(`(?i)language\s+'?plpgsql`).MatchString(m[0]) {
				continue
			}
			total++
			body, err := ParseBody("plpgsql", m[3])
			if err != nil {
				if strings.HasPrefix(file, "testdata") {
					t.Errorf("%s: not understood:\n%s", file, m[0])
				} else {
					t.Logf("not understood:\n%s", m[0])
				}
				continue
			}
			understood++
			want, dynamic, ok := queriesOf(t, m[0])
			if !ok || body.Dynamic && dynamic {
				continue
			}
			if got, want := bodyFacts(body.Statements), bodyFacts(want); !slices.Equal(got, want) || body.Dynamic != dynamic {
				t.Errorf("%s:\n%s\ngot  %q dynamic %v\nwant %q dynamic %v", file, m[0], got, body.Dynamic, want, dynamic)
			}
		}
	}
	t.Logf("%d of %d functions understood", understood, total)
	if total == 0 {
		t.Error("no functions")
	}
}

var assignment = regexp.MustCompile(`^[^:=]*?:?=`)

// queriesOf gives the facts of what PostgreSQL's reader takes for SQL.
func queriesOf(t *testing.T, create string) (statements []*Statement, dynamic, ok bool) {
	t.Helper()
	text, err := pg.ParsePlPgSqlToJSON(create)
	if err != nil {
		return nil, false, false
	}
	var tree any
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		return nil, false, false
	}
	ok = true
	var walk func(n any, key string)
	walk = func(n any, key string) {
		switch n := n.(type) {
		case []any:
			for _, e := range n {
				walk(e, key)
			}
		case map[string]any:
			if key == "PLpgSQL_stmt_dynexecute" || key == "PLpgSQL_stmt_dynfors" || n["dynquery"] != nil {
				dynamic = true
				return // what it runs is not known anyway
			}
			if query, is := n["query"].(string); is && key == "PLpgSQL_expr" {
				mode, _ := n["parseMode"].(float64)
				switch mode {
				case 2:
					query = "SELECT " + query
				case 3, 4, 5:
					query = "SELECT " + assignment.ReplaceAllString(query, "")
				}
				parsed, err := Parse(query, nil)
				if err != nil {
					ok = false
					return
				}
				statements = append(statements, parsed...)
				return
			}
			for k, e := range n {
				walk(e, k)
			}
		}
	}
	walk(tree, "")
	return statements, dynamic, ok
}

// bodyFacts lists what statements call, read and write.
func bodyFacts(statements []*Statement) []string {
	var facts []string
	for _, s := range statements {
		for _, f := range s.Functions {
			facts = append(facts, "call "+f.Name.Name)
		}
		for _, r := range s.Reads {
			facts = append(facts, "read "+r.Name.Name)
		}
		for _, w := range s.Writes {
			facts = append(facts, w.Op.String()+" "+w.Target.Name.Name)
		}
	}
	slices.Sort(facts)
	return slices.Compact(facts)
}

func FuzzParseBody(f *testing.F) {
	f.Add("BEGIN NEW.updated_at := now(); RETURN NEW; END")                                  // the most frequent trigger
	f.Add("DECLARE n int := 1; BEGIN FOR i IN 1..10 LOOP UPDATE t SET a = i; END LOOP; END") // dots
	f.Add("BEGIN IF a THEN DELETE FROM t; ELSE EXECUTE 'x'; END IF; EXCEPTION WHEN others THEN RAISE; END")
	f.Add("BEGIN SELECT a INTO STRICT b, c.d FROM e; RETURN QUERY SELECT 1; END")
	f.Fuzz(func(t *testing.T, source string) {
		body, err := ParseBody("plpgsql", source)
		if err != nil {
			return
		}
		for _, s := range body.Statements {
			if s == nil {
				t.Fatal("a nil statement")
			}
		}
	})
}
