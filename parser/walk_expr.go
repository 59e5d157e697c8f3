package parser

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

func (w *walker) exprs(sc *scope, list []*pg.Node) {
	for _, n := range list {
		w.expr(sc, n)
	}
}

// expr walks over an expression, or over one of the lists and clauses that
// hold expressions. A kind of node that it does not know makes the statement
// Opaque; a missing node is nothing.
func (w *walker) expr(sc *scope, n *pg.Node) {
	if n == nil || n.Node == nil {
		return
	}
	switch n := n.Node.(type) {
	case *pg.Node_AConst, *pg.Node_SetToDefault:
	case *pg.Node_CurrentOfExpr:
	case *pg.Node_ColumnRef:
		w.column(sc, n.ColumnRef)
	case *pg.Node_ParamRef:
		w.param(n.ParamRef)
	case *pg.Node_AExpr:
		w.aExpr(sc, n.AExpr)
	case *pg.Node_BoolExpr:
		w.exprs(sc, n.BoolExpr.Args)
	case *pg.Node_NullTest:
		w.expr(sc, n.NullTest.Arg)
	case *pg.Node_BooleanTest:
		w.expr(sc, n.BooleanTest.Arg)
	case *pg.Node_FuncCall:
		w.funcCall(sc, n.FuncCall)
	case *pg.Node_NamedArgExpr:
		w.expr(sc, n.NamedArgExpr.Arg)
	case *pg.Node_TypeCast:
		w.expr(sc, n.TypeCast.Arg)
		w.typeName(n.TypeCast.TypeName)
		if name, ok := qualifiedName(n.TypeCast.TypeName.GetNames()); ok {
			w.cast(name, w.sources(sc, n.TypeCast.Arg))
		}
	case *pg.Node_CollateClause:
		w.expr(sc, n.CollateClause.Arg)
	case *pg.Node_SubLink:
		w.subLink(sc, n.SubLink)
	case *pg.Node_CaseExpr:
		if n.CaseExpr.Arg != nil {
			w.operator(Name{Name: "="})
		}
		w.expr(sc, n.CaseExpr.Arg)
		w.exprs(sc, n.CaseExpr.Args)
		w.expr(sc, n.CaseExpr.Defresult)
	case *pg.Node_CaseWhen:
		w.expr(sc, n.CaseWhen.Expr)
		w.expr(sc, n.CaseWhen.Result)
	case *pg.Node_CoalesceExpr:
		w.exprs(sc, n.CoalesceExpr.Args)
	case *pg.Node_MinMaxExpr:
		w.exprs(sc, n.MinMaxExpr.Args)
	case *pg.Node_RowExpr:
		w.exprs(sc, n.RowExpr.Args)
	case *pg.Node_AArrayExpr:
		w.exprs(sc, n.AArrayExpr.Elements)
	case *pg.Node_AIndirection:
		w.expr(sc, n.AIndirection.Arg)
		w.indirection(sc, n.AIndirection.Indirection, w.sources(sc, n.AIndirection.Arg))
	case *pg.Node_List:
		w.exprs(sc, n.List.Items)
	case *pg.Node_SortBy:
		w.expr(sc, n.SortBy.Node)
		w.operatorName(n.SortBy.UseOp)
	case *pg.Node_WindowDef:
		w.window(sc, n.WindowDef)
	case *pg.Node_GroupingSet:
		w.exprs(sc, n.GroupingSet.Content)
	case *pg.Node_GroupingFunc:
		w.exprs(sc, n.GroupingFunc.Args)
	case *pg.Node_SqlvalueFunction:
		w.valueFunction(n.SqlvalueFunction)
	case *pg.Node_MultiAssignRef:
		// (a, b) = (…) repeats its source for each column.
		if n.MultiAssignRef.Colno == 1 {
			w.expr(sc, n.MultiAssignRef.Source)
		}
	case *pg.Node_XmlExpr, *pg.Node_XmlSerialize, *pg.Node_JsonIsPredicate, *pg.Node_JsonValueExpr,
		*pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor,
		*pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg, *pg.Node_JsonKeyValue:
		w.document(sc, n)
	default:
		w.deny()
	}
}

func (w *walker) param(p *pg.ParamRef) {
	if p.Number < 1 || p.Number > maxParam {
		w.deny()
	}
	w.st.Params = max(w.st.Params, int(p.Number))
}

func (w *walker) operator(n Name) {
	w.st.Operators = w.operators.add(w.st.Operators, n)
}

// operatorName notes an operator that is given as it was written, if at all.
func (w *walker) operatorName(nodes []*pg.Node) {
	if len(nodes) == 0 {
		return
	}
	name, ok := qualifiedName(nodes)
	if !ok {
		w.deny()
	}
	w.operator(name)
}

func (w *walker) aExpr(sc *scope, e *pg.A_Expr) {
	w.expr(sc, e.Lexpr)
	w.expr(sc, e.Rexpr)
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:
		w.operator(Name{Name: ">="})
		w.operator(Name{Name: "<="})
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		w.operator(Name{Name: "<"})
		w.operator(Name{Name: ">"})
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL,
		pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT, pg.A_Expr_Kind_AEXPR_NULLIF,
		pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
		if len(e.Name) == 0 {
			w.deny()
		}
		w.operatorName(e.Name)
	default:
		w.deny()
	}
}

func (w *walker) subLink(sc *scope, s *pg.SubLink) {
	w.expr(sc, s.Testexpr)
	switch s.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK, pg.SubLinkType_EXPR_SUBLINK, pg.SubLinkType_ARRAY_SUBLINK:
	case pg.SubLinkType_ANY_SUBLINK, pg.SubLinkType_ALL_SUBLINK:
		if len(s.OperName) == 0 {
			w.operator(Name{Name: "="}) // IN
		}
	default:
		w.deny()
	}
	w.operatorName(s.OperName)
	sub := s.Subselect.GetSelectStmt()
	if sub == nil {
		w.deny()
		return
	}
	w.selectStmt(sub, sc, sc.ctes)
}

func (w *walker) funcCall(sc *scope, f *pg.FuncCall) {
	name, ok := qualifiedName(f.Funcname)
	if !ok {
		w.deny()
	}
	args := len(f.Args)
	if f.AggWithinGroup {
		args += len(f.AggOrder)
	}
	call := Function{Name: name, Args: args}
	if name.Name == "set_config" && args == 3 {
		if c := f.Args[0].GetAConst(); c != nil && w.literal(c) == nil {
			call.Setting = strings.ToLower(c.GetSval().GetSval())
		}
		if b, ok := f.Args[2].GetAConst().GetVal().(*pg.A_Const_Boolval); ok {
			call.Local, call.Lasting = b.Boolval.Boolval, !b.Boolval.Boolval
		}
	}
	w.st.Functions = append(w.st.Functions, call)
	w.exprs(sc, f.Args)
	if len(f.Args) == 1 || len(f.Args) == 2 && name.Name == "timezone" {
		w.cast(name, w.sources(sc, f.Args[len(f.Args)-1]))
	}
	w.exprs(sc, f.AggOrder)
	w.expr(sc, f.AggFilter)
	if f.Over != nil {
		w.window(sc, f.Over)
	}
}

func (w *walker) window(sc *scope, d *pg.WindowDef) {
	w.windows = w.windows || w.depth == 1
	w.exprs(sc, d.PartitionClause)
	w.exprs(sc, d.OrderClause)
	w.expr(sc, d.StartOffset)
	w.expr(sc, d.EndOffset)
}

// indirection walks over what follows a value, of which from are the sources:
// [1], .field, .*
func (w *walker) indirection(sc *scope, list []*pg.Node, from []Source) {
	for _, n := range list {
		switch n := n.GetNode().(type) {
		case *pg.Node_String_:
			w.attribute(Name{}, n.String_.Sval)
			w.cast(Name{Name: n.String_.Sval}, from)
			from = elsewhere
		case *pg.Node_AStar:
		case *pg.Node_AIndices:
			w.expr(sc, n.AIndices.Lidx)
			w.expr(sc, n.AIndices.Uidx)
		default:
			w.deny()
		}
	}
}

// typeName notes a type, and gives the name that an operand cast to it carries:
// the zero Name when the cast does more than choose the type.
func (w *walker) typeName(t *pg.TypeName) Name {
	name, ok := qualifiedName(t.GetNames())
	if !ok || t.Setof || t.PctType || t.TypeOid != 0 {
		w.deny()
		return Name{}
	}
	w.st.Types = w.types.add(w.st.Types, name)
	for _, n := range t.Typmods {
		// Names as in geometry(Point) are no columns.
		if c := n.GetColumnRef(); n.GetAConst() == nil && (c == nil || len(c.Fields) != 1) {
			w.deny()
		}
	}
	return castName(t)
}

func castName(t *pg.TypeName) Name {
	name, ok := qualifiedName(t.GetNames())
	if !ok || len(t.Typmods) > 0 || t.Setof || t.PctType {
		return Name{}
	}
	if name.Schema == "pg_catalog" {
		name.Schema = ""
	}
	if len(t.ArrayBounds) > 0 {
		name.Name += "[]"
	}
	return name
}

func (w *walker) valueFunction(f *pg.SQLValueFunction) {
	name, ok := strings.CutPrefix(f.Op.String(), "SVFOP_")
	if !ok {
		w.deny()
		return
	}
	// The forms with a precision have a suffix of their own.
	w.construct(strings.ToLower(strings.TrimSuffix(name, "_N")))
}

// construct notes a keyword or construct.
func (w *walker) construct(name string) {
	w.st.Keywords = w.keywords.add(w.st.Keywords, name)
}
