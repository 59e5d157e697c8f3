// Package questions judges the texts that the driver sends under the caller's search_path: it must name every schema. Tests
// of several packages look with it at what went over the wire.
package questions

import (
	encodingjson "encoding/json"
	"fmt"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v5"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// App is in every text of an application in these tests.
const App = "/*app*/"

// Qualification is what is known of texts that were looked at. Most are sent again and again.
type Qualification struct {
	looked int          // how many
	alone  map[int]bool // connections on whose path is pg_catalog alone, in a transaction
	own    map[int]bool // those of which that is so for the whole session, which nobody else uses
	parsed map[string]*pg_query.ParseResult
	named  map[string][]string // what names says of a statement
}

// NewQualification returns what knows of no text.
func NewQualification() *Qualification {
	return &Qualification{alone: map[int]bool{}, own: map[int]bool{}, parsed: map[string]*pg_query.ParseResult{}, named: map[string][]string{}}
}

// Unqualified says of every name without a schema in the texts that are new what it is, but for
// those of the application.
func (q *Qualification) Unqualified(texts []pgtest.Text) (problems []string) {
	for _, text := range texts[q.looked:] {
		if slices.ContainsFunc([]string{"IDENTIFY_SYSTEM", "CREATE_REPLICATION_SLOT ", "START_REPLICATION "}, func(command string) bool {
			return strings.HasPrefix(text.SQL, command)
		}) {
			continue // no SQL
		}
		tree := q.parsed[text.SQL]
		if tree == nil {
			var err error
			if tree, err = pg_query.Parse(text.SQL); err != nil {
				problems = append(problems, fmt.Sprintf("%v\nin: %s", err, text.SQL))
				continue
			}
			q.parsed[text.SQL] = tree
		}
		for _, statement := range tree.Stmts {
			start, end := int(statement.StmtLocation), int(statement.StmtLocation+statement.StmtLen)
			if statement.StmtLen == 0 {
				end = len(text.SQL)
			}
			sql := text.SQL[start:end]
			if set := statement.Stmt.GetVariableSetStmt(); set != nil && set.Name == "search_path" && !set.IsLocal {
				q.own[text.Client] = sql == "SET search_path = pg_catalog, pg_temp"
			} else if set != nil && set.Name == "search_path" {
				q.alone[text.Client] = sql == "\nSET LOCAL search_path = pg_catalog, pg_temp" || sql == "SET LOCAL search_path = pg_catalog, pg_temp"
			}
			if statement.Stmt.GetTransactionStmt() != nil {
				delete(q.alone, text.Client)
			}
			if strings.Contains(sql, App) || q.alone[text.Client] || q.own[text.Client] {
				continue
			}
			if _, known := q.named[sql]; !known {
				q.named[sql] = names(sql)
			}
			for _, problem := range q.named[sql] {
				problems = append(problems, problem+"\nin: "+sql)
			}
		}
	}
	q.looked = len(texts)
	return problems
}

// names returns what the statement names without a schema.
func names(sql string) (problems []string) {
	text, err := pg_query.ParseToJSON(sql)
	if err != nil {
		return []string{err.Error()}
	}
	var tree any
	if err := encodingjson.Unmarshal([]byte(text), &tree); err != nil {
		return []string{err.Error()}
	}
	w := nameWalk{ctes: map[string]bool{}}
	w.collect(tree)
	w.walk(tree)
	return w.problems
}

type nameWalk struct {
	ctes     map[string]bool
	problems []string
}

func (w *nameWalk) collect(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.collect(child)
		}
	case map[string]any:
		if name, ok := node["ctename"].(string); ok {
			w.ctes[name] = true
		}
		for _, child := range node {
			w.collect(child)
		}
	}
}

// parts are the parts of a name.
func parts(list any) (parts []string) {
	items, _ := list.([]any)
	for _, item := range items {
		if s, ok := item.(map[string]any)["String"].(map[string]any); ok {
			part, _ := s["sval"].(string)
			parts = append(parts, part)
		}
	}
	return parts
}

func (w *nameWalk) name(what string, list any) {
	if p := parts(list); len(p) < 2 || !slices.Contains([]string{"pg_catalog", config.OwnSchema}, p[0]) {
		w.problems = append(w.problems, fmt.Sprintf("the %s %q is found by the search_path", what, strings.Join(p, ".")))
	}
}

func (w *nameWalk) walk(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.walk(child)
		}
	case map[string]any:
		w.look(node)
		for _, child := range node {
			w.walk(child)
		}
	}
}

func (w *nameWalk) look(node map[string]any) {
	if list, ok := node["funcname"]; ok {
		w.name("function", list)
	}
	_, typmod := node["typemod"]
	if list, ok := node["names"]; ok && typmod {
		w.name("type", list)
	}
	if name, ok := node["relname"].(string); ok {
		schema, _ := node["schemaname"].(string)
		if schema != "pg_catalog" && schema != config.OwnSchema && !(schema == "" && w.ctes[name]) {
			w.problems = append(w.problems, fmt.Sprintf("the relation %q is found by the search_path", name))
		}
	}
	if e, ok := node["A_Expr"].(map[string]any); ok {
		switch kind := e["kind"]; kind {
		case "AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_OP_ALL":
			w.name("operator", e["name"])
		default:
			w.problems = append(w.problems, fmt.Sprintf("the operators of %v are found by the search_path", kind))
		}
	}
	if s, ok := node["SubLink"].(map[string]any); ok && s["testexpr"] != nil {
		w.name("operator before a SELECT", s["operName"])
	}
	if e, ok := node["CaseExpr"].(map[string]any); ok && e["arg"] != nil {
		w.problems = append(w.problems, "the = of CASE x WHEN is found by the search_path")
	}
	if j, ok := node["JoinExpr"].(map[string]any); ok && (j["usingClause"] != nil || j["isNatural"] == true) {
		w.problems = append(w.problems, "the = of USING is found by the search_path")
	}
	if s, ok := node["SortBy"].(map[string]any); ok && s["useOp"] != nil {
		w.name("operator of ORDER BY", s["useOp"])
	}
	if f, ok := node["CreateFunctionStmt"].(map[string]any); ok {
		if options, _ := encodingjson.Marshal(f["options"]); !strings.Contains(string(options), `"name":"search_path"`) {
			w.problems = append(w.problems, fmt.Sprintf("the body of %q has the search_path of whoever calls it", strings.Join(parts(f["funcname"]), ".")))
		}
	}
	if d, ok := node["DoStmt"].(map[string]any); ok {
		w.body(d)
	}
}

// body looks into the SQL of a DO.
func (w *nameWalk) body(do map[string]any) {
	args, _ := do["args"].([]any)
	for _, arg := range args {
		option, _ := arg.(map[string]any)["DefElem"].(map[string]any)
		if option["defname"] != "as" {
			continue
		}
		source := option["arg"].(map[string]any)["String"].(map[string]any)["sval"].(string)
		text, err := pg_query.ParsePlPgSqlToJSON("CREATE FUNCTION cachedpg.do() RETURNS pg_catalog.void LANGUAGE plpgsql AS $do$" + source + "$do$")
		if err != nil {
			w.problems = append(w.problems, err.Error())
			continue
		}
		var tree any
		if err := encodingjson.Unmarshal([]byte(text), &tree); err != nil {
			w.problems = append(w.problems, err.Error())
			continue
		}
		w.expressions(tree)
	}
}

func (w *nameWalk) expressions(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.expressions(child)
		}
	case map[string]any:
		if e, ok := node["PLpgSQL_expr"].(map[string]any); ok {
			query, _ := e["query"].(string)
			if _, err := pg_query.Parse(query); err != nil {
				query = "SELECT " + query
			}
			w.problems = append(w.problems, names(query)...)
		}
		for _, child := range node {
			w.expressions(child)
		}
	}
}
