package parser

import (
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Cast is one conversion of a value.
type Cast struct {
	Type Name // of an array type its element's
	From []Source
}

// Source is one place that a value may come from, as far as the text tells.
// Parameters, literals and truth values are none.
type Source struct {
	Kind SourceKind
	Name Name // of the function, operator or type; of a column without the qualifier

	// Relations are those of which one may have the column.
	Relations []Name

	// From are the sources of a function's arguments, and of a column where the
	// value comes from if none of Relations has such a column.
	From []Source

	weight int // of it and From
}

// SourceKind says what a Source is.
type SourceKind uint8

const (
	Elsewhere   SourceKind = iota // the text does not tell
	FromColumn                    // a column of a relation
	FromCall                      // the result of a function
	FromOperand                   // the result of an operator, beside what its operands are
	FromCast                      // of the type that something was cast to
	FromText                      // a parameter or literal, cast to this type
)

var elsewhere = []Source{{Kind: Elsewhere, weight: 1}}

// maxSources bounds what is remembered of a value: columns of queries within
// queries could make it grow without end.
const maxSources = 200

// gathered are sources that come one by one.
type gathered struct {
	from   []Source
	weight int
}

// add takes sources in, and reports whether more would say more.
func (g *gathered) add(from []Source) bool {
	if g.weight > maxSources {
		return false
	}
	for _, s := range from {
		g.weight += s.weight
	}
	if g.weight > maxSources {
		g.from = elsewhere
		return false
	}
	g.from = append(g.from, from...)
	return true
}

func bounded(from []Source) []Source {
	n := 0
	for _, s := range from {
		n += s.weight
	}
	if n > maxSources {
		return elsewhere
	}
	return from
}

// source makes a Source.
func source(kind SourceKind, name Name, relations []Name, from []Source) []Source {
	s := Source{Kind: kind, Name: name, Relations: relations, From: from, weight: 1}
	for _, f := range from {
		s.weight += f.weight
	}
	return bounded([]Source{s})
}

// cast notes a conversion, or what is one if the name is that of a type.
func (w *walker) cast(typ Name, from []Source) {
	if len(from) > 0 {
		w.st.Casts = append(w.st.Casts, Cast{Type: typ, From: from})
	}
}

// sources says where the value of an expression comes from. The expression was
// walked over before. What is in calls and casts is looked at once: there may be many
// of them around it.
func (w *walker) sources(sc *scope, n *pg.Node) []Source {
	if n.GetFuncCall() == nil && n.GetTypeCast() == nil {
		return w.sourcesOf(sc, n)
	}
	from, ok := w.known[n]
	if !ok {
		if from = w.sourcesOf(sc, n); w.known == nil {
			w.known = make(map[*pg.Node][]Source)
		}
		w.known[n] = from
	}
	return from
}

func (w *walker) sourcesOf(sc *scope, n *pg.Node) []Source {
	if n == nil || n.Node == nil {
		return nil
	}
	switch n := n.Node.(type) {
	case *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_SetToDefault, *pg.Node_BoolExpr, *pg.Node_NullTest,
		*pg.Node_BooleanTest, *pg.Node_GroupingFunc:
		return nil
	case *pg.Node_ColumnRef:
		return columnSources(sc, n.ColumnRef)
	case *pg.Node_TypeCast:
		return w.castSources(sc, n.TypeCast)
	case *pg.Node_FuncCall:
		name, ok := qualifiedName(n.FuncCall.Funcname)
		if !ok {
			return elsewhere
		}
		return source(FromCall, name, nil, w.all(sc, n.FuncCall.Args, n.FuncCall.AggOrder))
	case *pg.Node_AExpr:
		switch n.AExpr.Kind {
		case pg.A_Expr_Kind_AEXPR_NULLIF:
			return w.sources(sc, n.AExpr.Lexpr)
		case pg.A_Expr_Kind_AEXPR_OP:
			var g gathered
			w.operands(sc, n.AExpr, &g)
			return g.from
		}
		return nil
	case *pg.Node_CaseExpr:
		return w.all(sc, n.CaseExpr.Args, []*pg.Node{n.CaseExpr.Defresult})
	case *pg.Node_CaseWhen:
		return w.sources(sc, n.CaseWhen.Result)
	case *pg.Node_CoalesceExpr:
		return w.all(sc, n.CoalesceExpr.Args)
	case *pg.Node_MinMaxExpr:
		return w.all(sc, n.MinMaxExpr.Args)
	case *pg.Node_RowExpr:
		return w.all(sc, n.RowExpr.Args)
	case *pg.Node_AArrayExpr:
		return w.all(sc, n.AArrayExpr.Elements)
	case *pg.Node_List:
		return w.all(sc, n.List.Items)
	case *pg.Node_CollateClause:
		return w.sources(sc, n.CollateClause.Arg)
	case *pg.Node_NamedArgExpr:
		return w.sources(sc, n.NamedArgExpr.Arg)
	case *pg.Node_SortBy:
		return w.sources(sc, n.SortBy.Node)
	case *pg.Node_AIndirection:
		for _, i := range n.AIndirection.Indirection {
			if i.GetAIndices() == nil {
				return elsewhere
			}
		}
		return w.sources(sc, n.AIndirection.Arg)
	case *pg.Node_SubLink:
		switch n.SubLink.SubLinkType {
		case pg.SubLinkType_EXPR_SUBLINK, pg.SubLinkType_ARRAY_SUBLINK:
			if c := w.columnsOf(n.SubLink.Subselect.GetSelectStmt()); len(c.list) > 0 {
				return c.list[0].from
			}
			return elsewhere
		}
		return nil
	}
	return elsewhere
}

// all joins the sources of several expressions.
func (w *walker) all(sc *scope, lists ...[]*pg.Node) []Source {
	var g gathered
	for _, list := range lists {
		for _, n := range list {
			if !g.add(w.sources(sc, n)) {
				return g.from
			}
		}
	}
	return g.from
}

// operands gathers the sources of an operator's result. Operators in one another
// to the left, as in a || b || c, are taken in one go.
func (w *walker) operands(sc *scope, e *pg.A_Expr, g *gathered) {
	name, ok := qualifiedName(e.Name)
	if !ok {
		g.add(elsewhere)
		return
	}
	if l := e.Lexpr.GetAExpr(); l != nil && l.Kind == pg.A_Expr_Kind_AEXPR_OP {
		w.operands(sc, l, g)
	} else {
		g.add(w.sources(sc, e.Lexpr))
	}
	g.add(w.sources(sc, e.Rexpr))
	g.add(source(FromOperand, name, nil, nil))
}

// castSources: a text literal remains what it is if it is cast to text, which
// definitions of views do with every one.
func (w *walker) castSources(sc *scope, c *pg.TypeCast) []Source {
	name, ok := qualifiedName(c.TypeName.GetNames())
	if !ok {
		return elsewhere
	}
	kind := FromCast
	from := w.sources(sc, c.Arg)
	if len(c.TypeName.Typmods) == 0 && isConstant(c.Arg) {
		kind = FromText
	} else {
		from = nil
	}
	return bounded(slices.Concat(from, source(kind, name, nil, nil)))
}

// isConstant reports whether n is a parameter or literal behind nothing but
// casts that do not cut it.
func isConstant(n *pg.Node) bool {
	if c := n.GetTypeCast(); c != nil {
		return len(c.TypeName.GetTypmods()) == 0 && isConstant(c.Arg)
	}
	return n.GetAConst() != nil || n.GetParamRef() != nil
}

// columns are those of a query or of a function in FROM.
type columns struct {
	list      []output
	relations []Name // all columns of these are there, too
	open      bool   // and perhaps others
	unplaced  bool   // some of list may stand further right than there
}

// output is one column; its name is "" where the text does not tell.
type output struct {
	name string
	from []Source
}

// set gives an item its columns.
func (it *item) set(c columns) { it.columns, it.byName = c, nil }

// named gives the columns of an item that have a name.
func (it *item) named(name string) []output {
	if it.byName == nil {
		it.byName = make(map[string][]output, len(it.columns.list))
		for _, o := range it.columns.list {
			it.byName[o.name] = append(it.byName[o.name], o)
		}
	}
	return it.byName[name]
}

// and adds columns of which the name is known.
func (c columns) and(names ...string) columns {
	c.list = slices.Clip(c.list)
	for _, name := range names {
		c.list = append(c.list, output{name, elsewhere})
	}
	return c
}

// rename gives the first columns the names of an alias list.
func (c columns) rename(names []*pg.Node) columns {
	if len(names) == 0 {
		return c
	}
	list := slices.Clone(c.list)
	if c.unplaced { // which columns the names go to is not known
		list, c.relations, c.open = nil, nil, true
	}
	for i, n := range names {
		name := n.GetString_().GetSval()
		if i < len(list) {
			list[i].name = name
		} else {
			list = append(list, output{name, elsewhere})
		}
	}
	c.list = list
	return c
}

// columnsOf gives the columns of a query, at the least their names.
func (w *walker) columnsOf(s *pg.SelectStmt) columns {
	if c, ok := w.queries[s]; ok {
		return c
	}
	for s != nil && s.Larg != nil {
		s = s.Larg
	}
	c := columns{open: true}
	for _, n := range s.GetTargetList() {
		if c.unplaced = isStar(n.GetResTarget()); c.unplaced {
			return c
		}
		c.list = append(c.list, output{targetName(n.GetResTarget()), elsewhere})
	}
	return c
}

// outputs gives the columns of a query that was walked over. sc is nil if it
// was not understood.
func (w *walker) outputs(s *pg.SelectStmt, sc *scope) columns {
	switch {
	case sc == nil:
		return columns{open: true, unplaced: true}
	case s.Larg != nil:
		return union(w.columnsOf(s.Larg), w.columnsOf(s.Rarg))
	}
	var c columns
	var values []gathered // of each column
	for _, row := range s.ValuesLists {
		for i, n := range row.GetList().GetItems() {
			if i == len(values) {
				c.list = append(c.list, output{name: fmt.Sprint("column", i+1)})
				values = append(values, gathered{})
			}
			values[i].add(w.sources(sc, n))
		}
	}
	for i := range values {
		c.list[i].from = values[i].from
	}
	for _, n := range s.TargetList {
		t := n.GetResTarget()
		switch {
		case !isStar(t):
			name := targetName(t)
			c.open = c.open || name == ""
			c.list = append(c.list, output{name, w.sources(sc, t.GetVal())})
		case len(t.Val.GetColumnRef().Fields) == 1:
			for _, it := range sc.items {
				c = c.star(it)
			}
		default:
			names, _, _ := fieldNames(t.Val.GetColumnRef().Fields)
			if it, _, ok := sc.find(names); ok {
				c = c.star(it)
			} else {
				c.open, c.unplaced = true, true
			}
		}
	}
	return c
}

// star adds all columns of an item.
func (c columns) star(it *item) columns {
	switch {
	case it.rel != nil && it.renamed:
		c.open, c.unplaced = true, true
	case it.rel != nil:
		c.relations, c.unplaced = append(slices.Clip(c.relations), it.rel.Name), true
	default:
		c.list = slices.Concat(c.list, it.columns.list)
		c.relations = slices.Concat(c.relations, it.columns.relations)
		c.open = c.open || it.columns.open
		c.unplaced = c.unplaced || it.columns.unplaced || it.columns.open
	}
	if len(c.list)+len(c.relations) > maxSources {
		return columns{open: true, unplaced: true}
	}
	return c
}

// union gives the columns of a set operation. Its types are those of the left
// side, or in one category with them, unless that is an untyped literal.
func union(left, right columns) columns {
	list := slices.Clone(left.list)
	for i := range list {
		if slices.ContainsFunc(list[i].from, Source.typed) {
			continue
		}
		from := elsewhere
		if i < len(right.list) && !left.unplaced && !right.unplaced {
			from = right.list[i].from
		}
		list[i].from = bounded(slices.Concat(list[i].from, from))
	}
	left.list = list
	return left
}

// typed reports that a value is of the source's type whatever else is said of it.
func (s Source) typed() bool { return s.Kind != FromCall && s.Kind != FromOperand }

func isStar(t *pg.ResTarget) bool {
	fields := t.GetVal().GetColumnRef().GetFields()
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// targetName gives the name of a column of a query where it is certain.
func targetName(t *pg.ResTarget) string {
	if t.GetName() != "" {
		return t.Name
	}
	n := t.GetVal()
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	fields := n.GetColumnRef().GetFields()
	if f := n.GetFuncCall(); f != nil {
		fields = f.Funcname
	}
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1].GetString_().GetSval()
}

// columnSources says where the value of a column comes from.
func columnSources(sc *scope, c *pg.ColumnRef) []Source {
	names, star, ok := fieldNames(c.Fields)
	switch {
	case !ok || star:
		return elsewhere
	case len(names) == 1:
		return sc.bare(names[0])
	}
	it, _, ok := sc.find(names[:len(names)-1])
	if !ok {
		return elsewhere
	}
	name := names[len(names)-1]
	switch from, relations, found, _ := it.lookup(name); {
	case found:
		return from
	case len(relations) > 0:
		return source(FromColumn, Name{Name: name}, relations, elsewhere)
	}
	return elsewhere
}

// bare looks a column without a qualifier up, as PostgreSQL does: level by level.
func (s *scope) bare(name string) []Source {
	if s == nil {
		return elsewhere
	}
	if len(s.items) > maxSources {
		return elsewhere
	}
	var from []Source
	var relations []Name
	found, open := false, false
	for _, it := range s.items {
		f, r, fo, op := it.lookup(name)
		from, relations = append(slices.Clip(from), f...), append(relations, r...)
		found, open = found || fo, open || op
	}
	switch {
	case found && len(relations) > 0: // joined by USING, or ambiguous
		return bounded(append(from, source(FromColumn, Name{Name: name}, relations, nil)...))
	case found:
		return bounded(from)
	case open:
		from = elsewhere
	default:
		from = s.outer.bare(name)
	}
	if len(relations) == 0 {
		return from
	}
	return source(FromColumn, Name{Name: name}, relations, from)
}

// lookup looks a column up in one item: its sources where it is found, and the
// relations that may have it; open says that it may be there all the same.
func (it *item) lookup(name string) (from []Source, relations []Name, found, open bool) {
	switch {
	case it.rel != nil && it.renamed:
		return nil, nil, false, true
	case it.rel != nil:
		return nil, []Name{it.rel.Name}, false, false
	}
	for _, o := range it.named(name) {
		from, found = append(slices.Clip(from), o.from...), true
	}
	return bounded(from), it.columns.relations, found, it.columns.open
}
