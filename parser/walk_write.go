package parser

import (
	pg "github.com/pganalyze/pg_query_go/v5"
)

// write begins a write to a relation.
func (w *walker) write(op Op, r *pg.RangeVar) *Write {
	wr := &Write{Op: op}
	if r == nil {
		w.deny()
	} else {
		wr.Target = relation(r)
	}
	w.writes = append(w.writes, wr)
	return wr
}

func (w *walker) insertStmt(s *pg.InsertStmt, outer *scope, ctes *cte) {
	ctes = w.with(s.WithClause, outer, ctes)
	wr := w.write(OpInsert, s.Relation)
	sc := &scope{outer: outer, ctes: ctes, items: []*item{newItem(&wr.Target, false)}}
	var columns []string
	wr.Returning = len(s.ReturningList) > 0
	plain := true
	for _, n := range s.Cols {
		t := n.GetResTarget()
		if t == nil {
			w.deny()
			return
		}
		columns = append(columns, t.Name)
		plain = plain && len(t.Indirection) == 0
		w.assignment(sc, t)
	}
	if s.SelectStmt != nil && s.SelectStmt.Node != nil {
		sub := s.SelectStmt.GetSelectStmt()
		if sub == nil {
			w.deny()
			return
		}
		w.selectStmt(sub, outer, ctes)
		if plain && s.Override != pg.OverridingKind_OVERRIDING_USER_VALUE {
			wr.Rows = w.rows(sub)
		}
	}
	if wr.Rows != nil {
		wr.InsertColumns = columns
	}
	if c := s.OnConflictClause; c != nil {
		w.onConflict(wr, c, outer, ctes)
	}
	w.targets(sc, s.ReturningList)
}

// rows gives the operands of a VALUES list.
func (w *walker) rows(s *pg.SelectStmt) [][]*Operand {
	var rows [][]*Operand
	for _, n := range s.ValuesLists {
		items := n.GetList().GetItems()
		row := make([]*Operand, len(items))
		for i, v := range items {
			row[i] = w.operand(nil, v)
		}
		rows = append(rows, row)
	}
	return rows
}

func (w *walker) onConflict(wr *Write, c *pg.OnConflictClause, outer *scope, ctes *cte) {
	target := newItem(&wr.Target, false)
	excluded := &item{name: "excluded", rel: &wr.Target}
	if target.name == "excluded" {
		w.deny()
	}
	if i := c.Infer; i != nil {
		sc := &scope{outer: outer, ctes: ctes, items: []*item{target}}
		plain := i.Conname == "" && i.WhereClause == nil
		var columns []string
		for _, n := range i.IndexElems {
			e := n.GetIndexElem()
			if e == nil {
				w.deny()
				return
			}
			w.expr(sc, e.Expr)
			// With another collation or operator class other values are equal.
			plain = plain && e.Expr == nil && e.Name != "" && len(e.Collation) == 0 && len(e.Opclass) == 0
			columns = append(columns, e.Name)
		}
		w.expr(sc, i.WhereClause)
		if plain {
			wr.ConflictColumns = columns
		}
	}
	switch c.Action {
	case pg.OnConflictAction_ONCONFLICT_NOTHING:
	case pg.OnConflictAction_ONCONFLICT_UPDATE:
		wr.Op = OpUpsert
	default:
		w.deny()
	}
	sc := &scope{outer: outer, ctes: ctes, items: []*item{target, excluded}}
	wr.Columns = w.assignments(sc, c.TargetList)
	w.expr(sc, c.WhereClause)
}

// assignments walks over SET and gives the columns that it names.
func (w *walker) assignments(sc *scope, list []*pg.Node) []string {
	var columns []string
	var names noted[string]
	for _, n := range list {
		t := n.GetResTarget()
		if t == nil || t.Name == "" {
			w.deny()
			return nil
		}
		w.assignment(sc, t)
		columns = names.add(columns, t.Name)
	}
	return columns
}

// assignment walks over one assigned column: its subscripts and its value. The
// fields of a composite column are no attributes, because an assignment calls
// no function.
func (w *walker) assignment(sc *scope, t *pg.ResTarget) {
	for _, n := range t.Indirection {
		switch n := n.GetNode().(type) {
		case *pg.Node_String_, *pg.Node_AStar:
		case *pg.Node_AIndices:
			w.expr(sc, n.AIndices.Lidx)
			w.expr(sc, n.AIndices.Uidx)
		default:
			w.deny()
		}
	}
	w.expr(sc, t.Val)
}

func (w *walker) updateStmt(s *pg.UpdateStmt, outer *scope, ctes *cte) {
	ctes = w.with(s.WithClause, outer, ctes)
	wr := w.write(OpUpdate, s.Relation)
	sc := w.target(wr, s.Relation, outer, ctes)
	w.from(sc, s.FromClause)
	wr.Columns = w.assignments(sc, s.TargetList)
	wr.Assigned = w.assigned(sc, s.TargetList, wr.Columns)
	wr.Returning = len(s.ReturningList) > 0
	w.expr(sc, s.WhereClause)
	w.equalities(everyRow(sc), s.WhereClause)
	w.targets(sc, s.ReturningList)
}

// assigned gives the values that are assigned to columns.
func (w *walker) assigned(sc *scope, list []*pg.Node, columns []string) []*Operand {
	if len(list) != len(columns) { // not understood
		return nil
	}
	values := make([]*Operand, len(list))
	for i, n := range list {
		if t := n.GetResTarget(); len(t.Indirection) == 0 {
			values[i] = w.operand(sc, t.Val)
		}
	}
	return values
}

func (w *walker) deleteStmt(s *pg.DeleteStmt, outer *scope, ctes *cte) {
	ctes = w.with(s.WithClause, outer, ctes)
	wr := w.write(OpDelete, s.Relation)
	sc := w.target(wr, s.Relation, outer, ctes)
	w.from(sc, s.UsingClause)
	wr.Returning = len(s.ReturningList) > 0
	w.expr(sc, s.WhereClause)
	w.equalities(everyRow(sc), s.WhereClause)
	w.targets(sc, s.ReturningList)
}

// target is the level of a command whose first item is its target.
func (w *walker) target(wr *Write, r *pg.RangeVar, outer *scope, ctes *cte) *scope {
	_, columns := alias(r.GetAlias())
	return &scope{outer: outer, ctes: ctes, items: []*item{newItem(&wr.Target, len(columns) > 0)}}
}

func (w *walker) mergeStmt(s *pg.MergeStmt, outer *scope, ctes *cte) {
	ctes = w.with(s.WithClause, outer, ctes)
	wr := w.write(OpMerge, s.Relation)
	sc := w.target(wr, s.Relation, outer, ctes)
	if s.SourceRelation != nil {
		w.from(sc, []*pg.Node{s.SourceRelation})
	}
	w.expr(sc, s.JoinCondition)
	var names noted[string]
	for _, n := range s.MergeWhenClauses {
		c := n.GetMergeWhenClause()
		if c == nil {
			w.deny()
			return
		}
		w.expr(sc, c.Condition)
		w.exprs(sc, c.Values)
		switch c.CommandType {
		case pg.CmdType_CMD_UPDATE:
			for _, name := range w.assignments(sc, c.TargetList) {
				wr.Columns = names.add(wr.Columns, name)
			}
		case pg.CmdType_CMD_INSERT:
			w.assignments(sc, c.TargetList)
		case pg.CmdType_CMD_DELETE, pg.CmdType_CMD_NOTHING:
		default:
			w.deny()
		}
	}
}
