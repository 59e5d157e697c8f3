package parser

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// answer notes what the rows of a statement's answer are made of. The statement
// is a query whose top level was walked over.
func (w *walker) answer(s *pg.SelectStmt, sc *scope) {
	w.st.Ordered, w.st.Grouping = len(s.SortClause) > 0, len(s.GroupClause) > 0 || s.Larg != nil || w.windows
	w.st.Grouped = len(s.GroupClause) > 0 || slices.ContainsFunc(s.TargetList, func(n *pg.Node) bool { return sc.column(n) })
	sets := slices.ContainsFunc(s.GroupClause, func(n *pg.Node) bool { return n.GetGroupingSet() != nil })
	w.st.Plain = s.Larg == nil && len(s.ValuesLists) == 0 && !sets &&
		(s.HavingClause == nil || len(s.GroupClause) > 0) && (!w.aggregates || w.st.Grouped)
	if w.st.Plain {
		w.st.Single = len(s.FromClause) == 1 && s.FromClause[0].GetRangeVar() != nil && sc.items[0].rel != nil
		w.st.Outputs = w.answerColumns(s, sc)
	}
}

// column reports whether a target is nothing but a column: what can stand
// beside an aggregate only if GROUP BY names it. Stars do not count, because a
// table may have no columns.
func (sc *scope) column(target *pg.Node) bool {
	names, star, ok := fieldNames(target.GetResTarget().GetVal().GetColumnRef().GetFields())
	return ok && !star && len(names) > 0
}

// answerColumns gives the columns of a plain query's answer. A condition on one of
// them may be asked of the rows that it comes from, before they are joined, if
// every row of the answer is made of one row of each relation, or of a group
// within which the column has one value: then rows that do not meet the
// condition have no part in any row that does. DISTINCT makes groups of equal
// answers; beside GROUP BY, PostgreSQL lets a column stand by itself only if it
// has one value in each group. LIMIT, DISTINCT ON and window functions let other
// rows decide.
func (w *walker) answerColumns(s *pg.SelectStmt, sc *scope) []Output {
	on := slices.ContainsFunc(s.DistinctClause, func(n *pg.Node) bool { return n.GetNode() != nil })
	free := !on && !w.windows && s.LimitCount == nil && s.LimitOffset == nil
	outputs := make([]Output, 0, len(s.TargetList))
	for _, n := range s.TargetList {
		t := n.GetResTarget()
		names, star, _ := fieldNames(t.GetVal().GetColumnRef().GetFields())
		if star || len(t.GetIndirection()) > 0 || t.GetVal().GetAIndirection() != nil {
			return nil // it may be any number of columns
		}
		o := Output{Name: t.GetName()}
		if o.Name == "" && len(names) > 0 {
			o.Name = names[len(names)-1]
		}
		rel, name := ownColumn(sc, t.GetVal())
		if rel != nil && free {
			o.Read, o.Column = 1+slices.Index(w.reads, rel), name
		}
		outputs = append(outputs, o)
	}
	return outputs
}
