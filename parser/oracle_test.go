package parser

import (
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// found is what a search of a parse tree that knows nothing of SQL's structure
// comes upon: every message of every field.
type found struct {
	count     map[string]int // messages by type
	relations []Name
	ctes      []string
	functions []Name
	operators []Name
	types     []Name
	columns   []string // the last names of column references
	params    int
	named     bool // a join with a name of its own, which hides columns
}

// search looks through a tree by reflection.
func search(m protoreflect.Message, f *found) {
	name := string(m.Descriptor().Name())
	f.count[name]++
	switch n := m.Interface().(type) {
	case *pg.LockingClause, *pg.IntoClause:
		return // the names in it are no relations that are read
	case *pg.MultiAssignRef:
		if n.Colno != 1 {
			return // its source is repeated for each column
		}
	case *pg.RangeVar:
		f.relations = append(f.relations, Name{n.Schemaname, n.Relname})
	case *pg.CommonTableExpr:
		f.ctes = append(f.ctes, n.Ctename)
	case *pg.FuncCall:
		f.functions = append(f.functions, lastTwo(n.Funcname))
	case *pg.TypeName:
		f.types = append(f.types, lastTwo(n.Names))
	case *pg.A_Expr:
		if op := lastTwo(n.Name); !strings.Contains(op.Name, "BETWEEN") {
			f.operators = append(f.operators, op)
		}
	case *pg.ColumnRef:
		if last := n.Fields[len(n.Fields)-1].GetString_(); last != nil {
			f.columns = append(f.columns, last.Sval)
		}
	case *pg.ParamRef:
		f.params = max(f.params, int(n.Number))
	case *pg.JoinExpr:
		f.named = f.named || n.Alias != nil || n.JoinUsingAlias != nil
	}
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.Kind() != protoreflect.MessageKind:
		case d.Name() == "typmods": // names in it are no columns
		case d.IsList():
			for i := range v.List().Len() {
				search(v.List().Get(i).Message(), f)
			}
		default:
			search(v.Message(), f)
		}
		return true
	})
}

func lastTwo(nodes []*pg.Node) (n Name) {
	for i, node := range nodes {
		switch i {
		case len(nodes) - 1:
			n.Name = node.GetString_().GetSval()
		case len(nodes) - 2:
			n.Schema = node.GetString_().GetSval()
		}
	}
	return n
}

// checkOracle compares the facts of a text with what the search finds.
func checkOracle(t testing.TB, sql string, statements []*Statement) {
	tree, err := pg.Parse(sql)
	if err != nil {
		t.Fatalf("%q: parsed once, and then: %v", sql, err)
	}
	if len(tree.Stmts) == 0 {
		if len(statements) != 1 || statements[0].Kind != Empty {
			t.Fatalf("%q: no command, but %v", sql, statements)
		}
		return
	}
	if len(tree.Stmts) != len(statements) {
		t.Fatalf("%q: got %d statements, want %d", sql, len(statements), len(tree.Stmts))
	}
	for i, raw := range tree.Stmts {
		f := &found{count: map[string]int{}}
		search(raw.Stmt.ProtoReflect(), f)
		checkFound(t, sql, statements[i], raw.Stmt, f)
	}
}

func checkFound(t testing.TB, sql string, st *Statement, node *pg.Node, f *found) {
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%q: "+format, append([]any{sql}, args...)...)
	}
	writes := f.count["InsertStmt"] + f.count["UpdateStmt"] + f.count["DeleteStmt"] + f.count["MergeStmt"]
	effects := writes + f.count["IntoClause"] + f.count["LockingClause"]
	if st.ReadOnly() && (effects > 0 || node.GetSelectStmt() == nil) {
		fail("called a read")
	}
	if st.Plain {
		checkPlain(fail, st, node.GetSelectStmt())
	}
	switch st.Kind {
	case Select, Insert, Update, Delete, Merge:
	default:
		return // it is not treated by its facts alone, or has none
	}
	if len(st.Writes) != writes {
		fail("got %d writes, want %d", len(st.Writes), writes)
	}
	if len(st.Functions) != len(f.functions) {
		fail("got functions %v, want %v", st.Functions, f.functions)
	}
	for _, fn := range st.Functions {
		if !slices.Contains(f.functions, fn.Name) {
			fail("function %v is not in the text", fn)
		}
	}
	for _, op := range f.operators {
		if !slices.Contains(st.Operators, op) {
			fail("operator %v is missing", op)
		}
	}
	for _, typ := range f.types {
		if !slices.Contains(st.Types, typ) {
			fail("type %v is missing", typ)
		}
	}
	if st.Params != f.params {
		fail("got %d parameters, want %d", st.Params, f.params)
	}
	if len(st.Keywords) == 0 && f.count["SQLValueFunction"]+f.count["XmlExpr"]+f.count["XmlSerialize"]+f.count["RangeTableFunc"]+
		f.count["JsonObjectConstructor"]+f.count["JsonArrayConstructor"]+f.count["JsonIsPredicate"] > 0 {
		fail("no keywords")
	}
	if st.Sample != (f.count["RangeTableSample"] > 0) {
		fail("sample is %v", st.Sample)
	}
	var known []Name
	for _, r := range st.Reads {
		known = append(known, r.Name)
	}
	for _, w := range st.Writes {
		known = append(known, w.Target.Name)
	}
	for _, r := range f.relations {
		if !slices.Contains(known, r) && !(r.Schema == "" && slices.Contains(f.ctes, r.Name)) {
			fail("relation %v is missing", r)
		}
	}
	if len(f.ctes) == 0 && len(known) != len(f.relations) {
		fail("got relations %v, want %v", known, f.relations)
	}
	if !st.Plain || len(st.Reads) == 0 || f.named || f.count["SelectStmt"] > 1 || f.count["RangeFunction"]+f.count["RangeTableFunc"] > 0 {
		return
	}
	for _, column := range f.columns {
		if !slices.ContainsFunc(st.Reads, func(r Relation) bool { return r.AllColumns || slices.Contains(r.Columns, column) }) {
			fail("column %s is missing", column)
		}
	}
}

// checkPlain checks what is said of the top level of a query.
func checkPlain(fail func(string, ...any), st *Statement, s *pg.SelectStmt) {
	sets := 0
	for _, n := range s.GetGroupClause() {
		if n.GetGroupingSet() != nil {
			sets++
		}
	}
	if s == nil || s.Op != pg.SetOperation_SETOP_NONE || len(s.ValuesLists) > 0 || sets > 0 ||
		s.HavingClause != nil && len(s.GroupClause) == 0 {
		fail("called plain")
	}
	// What stands in FROM without a query around it.
	top := map[Name]int{}
	var from func(nodes ...*pg.Node)
	from = func(nodes ...*pg.Node) {
		for _, n := range nodes {
			if j := n.GetJoinExpr(); j != nil {
				from(j.Larg, j.Rarg)
			}
			if t := n.GetRangeTableSample(); t != nil {
				from(t.Relation)
			}
			if r := n.GetRangeVar(); r != nil {
				top[Name{r.Schemaname, r.Relname}]++
			}
		}
	}
	from(s.GetFromClause()...)
	for _, r := range st.Reads {
		if !r.Nested {
			top[r.Name]--
		}
	}
	for name, n := range top {
		if n < 0 {
			fail("%v is not at the top level", name)
		}
	}
	if st.Single && (len(s.GetFromClause()) != 1 || len(top) != 1) {
		fail("called single")
	}
	if st.Outputs != nil && len(st.Outputs) != len(s.GetTargetList()) {
		fail("got %d outputs, want %d", len(st.Outputs), len(s.GetTargetList()))
	}
	for _, o := range st.Outputs {
		if o.Read > 0 && (st.Reads[o.Read-1].Nested || s.LimitCount != nil || s.LimitOffset != nil || len(s.WindowClause) > 0) {
			fail("output %+v", o)
		}
	}
}
