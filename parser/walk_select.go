package parser

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// query walks over anything that can stand in WITH, COPY, EXPLAIN and the like.
func (w *walker) query(n *pg.Node, outer *scope, ctes *cte) {
	switch n := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		w.selectStmt(n.SelectStmt, outer, ctes)
	case *pg.Node_InsertStmt:
		w.insertStmt(n.InsertStmt, outer, ctes)
	case *pg.Node_UpdateStmt:
		w.updateStmt(n.UpdateStmt, outer, ctes)
	case *pg.Node_DeleteStmt:
		w.deleteStmt(n.DeleteStmt, outer, ctes)
	case *pg.Node_MergeStmt:
		w.mergeStmt(n.MergeStmt, outer, ctes)
	default:
		w.deny()
	}
}

func (w *walker) selectStmt(s *pg.SelectStmt, outer *scope, ctes *cte) {
	if w.queries == nil {
		w.queries = make(map[*pg.SelectStmt]columns)
	}
	sc := w.walkSelect(s, outer, ctes)
	w.queries[s] = w.outputs(s, sc)
}

func (w *walker) walkSelect(s *pg.SelectStmt, outer *scope, ctes *cte) *scope {
	w.depth++
	nullable := w.nullable
	w.nullable = false
	defer func() {
		w.depth--
		w.nullable = nullable
	}()
	ctes = w.with(s.WithClause, outer, ctes)
	if s.IntoClause != nil {
		w.into(s.IntoClause)
	}
	if s.Larg != nil || s.Rarg != nil {
		if s.Larg == nil || s.Rarg == nil {
			w.deny()
			return nil
		}
		w.selectStmt(s.Larg, outer, ctes)
		// The right side may be about the result so far, WITH RECURSIVE.
		w.queries[s] = union(w.columnsOf(s.Larg), columns{unplaced: true})
		w.selectStmt(s.Rarg, outer, ctes)
	}
	sc := &scope{outer: outer, ctes: ctes}
	w.from(sc, s.FromClause)
	w.targets(sc, s.TargetList)
	w.exprs(sc, s.DistinctClause)
	w.expr(sc, s.WhereClause)
	w.equalities(everyRow(sc), s.WhereClause)
	w.exprs(sc, s.GroupClause)
	w.expr(sc, s.HavingClause)
	w.exprs(sc, s.WindowClause)
	w.exprs(sc, s.ValuesLists)
	w.exprs(sc, s.SortClause)
	w.expr(sc, s.LimitOffset)
	w.expr(sc, s.LimitCount)
	for _, n := range s.LockingClause {
		if n.GetLockingClause() == nil {
			w.deny()
		}
		w.st.Locks = true
	}
	if w.depth == 1 {
		w.answer(s, sc)
	}
	return sc
}

// targets walks over the expressions of a select list or RETURNING.
func (w *walker) targets(sc *scope, list []*pg.Node) {
	for _, n := range list {
		t := n.GetResTarget()
		if t == nil {
			w.deny()
			return
		}
		w.indirection(sc, t.Indirection, elsewhere)
		w.expr(sc, t.Val)
	}
}

// with walks over a WITH list and gives the names that are visible behind it.
func (w *walker) with(c *pg.WithClause, outer *scope, ctes *cte) *cte {
	if c == nil {
		return ctes
	}
	list := make([]*pg.CommonTableExpr, 0, len(c.Ctes))
	for _, n := range c.Ctes {
		e := n.GetCommonTableExpr()
		if e == nil || e.Ctequery == nil {
			w.deny()
			return ctes
		}
		list = append(list, e)
	}
	ctes = &cte{next: ctes, names: make(map[string]*pg.CommonTableExpr, len(list))}
	if c.Recursive {
		// Every name is visible in every query of the list.
		for _, e := range list {
			ctes.names[e.Ctename] = e
		}
	}
	for _, e := range list {
		w.query(e.Ctequery, outer, ctes)
		if s := e.CycleClause; s != nil {
			w.expr(&scope{ctes: ctes}, s.CycleMarkValue)
			w.expr(&scope{ctes: ctes}, s.CycleMarkDefault)
			w.operator(Name{Name: "="})
			w.operator(Name{Name: "<>"})
		}
		if !c.Recursive {
			ctes.names[e.Ctename] = e // what was walked over before does not look it up any more
		}
	}
	return ctes
}

// cteColumns gives the columns of a common table expression. Before its query
// was walked over, little more than their names is known.
func (w *walker) cteColumns(e *pg.CommonTableExpr) columns {
	c := w.columnsOf(e.Ctequery.GetSelectStmt()).rename(e.Aliascolnames)
	if s := e.SearchClause; s != nil {
		c = c.and(s.SearchSeqColumn)
	}
	if s := e.CycleClause; s != nil {
		c = c.and(s.CycleMarkColumn, s.CyclePathColumn)
	}
	return c
}

// from declares the items of a FROM list, then walks over what refers to them.
func (w *walker) from(sc *scope, list []*pg.Node) {
	for _, n := range list {
		w.declare(sc, n)
	}
	for i := 0; i < len(sc.later); i++ {
		sc.later[i]()
	}
	sc.later = nil
}

// declare adds the items of one FROM item.
func (w *walker) declare(sc *scope, n *pg.Node) {
	switch n := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		w.declareRelation(sc, n.RangeVar)
	case *pg.Node_RangeSubselect:
		s := n.RangeSubselect
		name, columns := alias(s.Alias)
		it := &item{name: name, columns: w.columnsOf(s.Subquery.GetSelectStmt()).rename(columns)}
		sc.items = append(sc.items, it)
		query := func(visible *scope) {
			w.query(s.Subquery, visible, sc.ctes)
			it.set(w.columnsOf(s.Subquery.GetSelectStmt()).rename(columns))
		}
		if s.Lateral {
			sc.later = append(sc.later, func() { query(sc) })
		} else {
			query(sc.outer) // it does not see its neighbours
		}
	case *pg.Node_RangeFunction:
		w.declareFunction(sc, n.RangeFunction)
	case *pg.Node_RangeTableFunc:
		w.declareTable(sc, n.RangeTableFunc)
	case *pg.Node_RangeTableSample:
		s := n.RangeTableSample
		w.st.Sample = true
		if s.Relation.GetRangeVar() == nil {
			w.deny()
			return
		}
		w.declare(sc, s.Relation)
		sc.later = append(sc.later, func() {
			w.exprs(sc, s.Args)
			w.expr(sc, s.Repeatable)
		})
	case *pg.Node_JoinExpr:
		w.declareJoin(sc, n.JoinExpr)
	default:
		w.deny()
	}
}

func (w *walker) declareRelation(sc *scope, r *pg.RangeVar) {
	name, columns := alias(r.Alias)
	if c := sc.ctes.lookup(r.Relname); c != nil && r.Schemaname == "" {
		if name == "" {
			name = r.Relname
		}
		sc.items = append(sc.items, &item{name: name, columns: w.cteColumns(c).rename(columns)})
		return
	}
	rel := relation(r)
	rel.Nested = w.depth > 1
	w.reads = append(w.reads, &rel)
	sc.items = append(sc.items, newItem(&rel, len(columns) > 0))
}

func newItem(rel *Relation, renamed bool) *item {
	it := &item{name: rel.Alias, rel: rel, renamed: renamed}
	if it.name == "" {
		it.schema, it.name = rel.Schema, rel.Name.Name
	}
	if renamed {
		rel.AllColumns = true
	}
	return it
}

func relation(r *pg.RangeVar) Relation {
	name, _ := alias(r.Alias)
	return Relation{Name: Name{Schema: r.Schemaname, Name: r.Relname}, Alias: name}
}

func alias(a *pg.Alias) (name string, columns []*pg.Node) {
	if a == nil {
		return "", nil
	}
	return a.Aliasname, a.Colnames
}

func (w *walker) declareFunction(sc *scope, f *pg.RangeFunction) {
	name, names := alias(f.Alias)
	it := &item{name: name, columns: columns{open: true}.rename(names), scalar: true}
	for _, n := range f.Coldeflist {
		it.columns.list = append(it.columns.list, output{n.GetColumnDef().GetColname(), elsewhere})
	}
	sc.items = append(sc.items, it)
	for _, n := range f.Functions {
		// A pair: the call, and the column definitions that go with it.
		pair := n.GetList().GetItems()
		if len(pair) != 2 {
			w.deny()
			return
		}
		if call := pair[0].GetFuncCall(); call != nil && name == "" && len(call.Funcname) > 0 {
			it.name = call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
		}
		sc.later = append(sc.later, func() {
			w.expr(sc, pair[0])
			w.columnDefs(pair[1].GetList().GetItems())
			if len(f.Functions) == 1 && len(f.Coldeflist) == 0 {
				// A function that gives no row has one column, of the same name.
				it.set(columns{list: []output{{it.name, w.sources(sc, pair[0])}}, open: true}.rename(names))
			}
		})
	}
	w.columnDefs(f.Coldeflist)
}

// columnDefs walks over the column definitions of a function's result.
func (w *walker) columnDefs(list []*pg.Node) {
	for _, n := range list {
		d := n.GetColumnDef()
		if d == nil || d.RawDefault != nil || d.CookedDefault != nil || len(d.Constraints) > 0 {
			w.deny()
			return
		}
		w.typeName(d.TypeName)
	}
}

// declareTable walks over XMLTABLE.
func (w *walker) declareTable(sc *scope, t *pg.RangeTableFunc) {
	w.construct("xmltable")
	name, _ := alias(t.Alias)
	sc.items = append(sc.items, &item{name: name, columns: columns{open: true}})
	sc.later = append(sc.later, func() {
		w.expr(sc, t.Docexpr)
		w.expr(sc, t.Rowexpr)
		w.targets(sc, t.Namespaces)
		for _, n := range t.Columns {
			c := n.GetRangeTableFuncCol()
			if c == nil {
				w.deny()
				return
			}
			if c.TypeName != nil {
				w.typeName(c.TypeName)
			}
			w.expr(sc, c.Colexpr)
			w.expr(sc, c.Coldefexpr)
		}
	})
}

func (w *walker) declareJoin(sc *scope, j *pg.JoinExpr) {
	begin := len(sc.items)
	nullable := w.nullable
	w.nullable = nullable || j.Jointype == pg.JoinType_JOIN_RIGHT || j.Jointype == pg.JoinType_JOIN_FULL
	w.declare(sc, j.Larg)
	middle := len(sc.items)
	w.nullable = nullable || j.Jointype == pg.JoinType_JOIN_LEFT || j.Jointype == pg.JoinType_JOIN_FULL
	w.declare(sc, j.Rarg)
	w.nullable = nullable
	inside := slices.Clone(sc.items[begin:])
	left, right := inside[:middle-begin], inside[middle-begin:]
	holds := condition{optional: nullable || j.Jointype != pg.JoinType_JOIN_INNER}
	switch j.Jointype {
	case pg.JoinType_JOIN_INNER:
		holds.of = inside
	case pg.JoinType_JOIN_LEFT:
		holds.of = right
	case pg.JoinType_JOIN_RIGHT:
		holds.of = left
	}
	// The names inside of (a JOIN b ON …) AS j are seen by ON but not outside.
	on := sc
	if j.Alias != nil || j.IsNatural || len(j.UsingClause) > 0 {
		on = &scope{outer: sc.outer, ctes: sc.ctes, items: inside}
	}
	if j.IsNatural || len(j.UsingClause) > 0 {
		w.operator(Name{Name: "="})
	}
	for _, it := range inside {
		if j.IsNatural || j.Alias != nil {
			it.all()
		}
		for _, n := range j.UsingClause {
			it.column(n.GetString_().GetSval())
		}
	}
	w.using(holds, left, right, j.UsingClause)
	if a := j.JoinUsingAlias; a != nil {
		sc.items = append(sc.items, &item{name: a.Aliasname, columns: columns{open: true}.rename(j.UsingClause)})
	}
	if j.Alias != nil {
		for i := begin; i < len(sc.items); i++ {
			it := *sc.items[i]
			it.name, it.schema, it.renamed = "", "", true
			sc.items[i] = &it
		}
		sc.items = append(sc.items, &item{name: j.Alias.Aliasname, columns: columns{open: true}.rename(j.Alias.Colnames)})
	}
	if j.Quals != nil {
		sc.later = append(sc.later, func() {
			w.expr(on, j.Quals)
			holds.scope = on
			w.equalities(holds, j.Quals)
		})
	}
}
