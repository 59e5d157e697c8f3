package parser

import (
	"slices"
	"sort"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// condition is where conjuncts stand, and for which rows they hold.
type condition struct {
	scope *scope

	// of are the items of which every row that can influence the result meets the
	// conjuncts: those of the level for WHERE and for ON of an inner join, for ON of an
	// outer one those of the side that is filled with NULL.
	of []*item

	optional bool // see Equality.Optional
}

// everyRow is WHERE. Of the side of an outer join that is filled with NULL it
// holds as well, because no NULL equals anything.
func everyRow(sc *scope) condition { return condition{scope: sc, of: sc.items} }

// equalities notes the conjuncts of a condition that fix a column of an item
// of this level.
func (w *walker) equalities(c condition, n *pg.Node) {
	switch n := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		switch n.BoolExpr.Boolop {
		case pg.BoolExprType_AND_EXPR:
			for _, arg := range n.BoolExpr.Args {
				w.equalities(c, arg)
			}
		case pg.BoolExprType_OR_EXPR:
			w.alternatives(c, n.BoolExpr.Args)
		}
	case *pg.Node_AExpr:
		e := n.AExpr
		if !isEquality(e) {
			return
		}
		switch e.Kind {
		case pg.A_Expr_Kind_AEXPR_OP:
			w.equal(c, e.Lexpr, e.Rexpr)
		case pg.A_Expr_Kind_AEXPR_OP_ANY:
			w.equalAny(c, e.Lexpr, e.Rexpr)
		case pg.A_Expr_Kind_AEXPR_IN:
			w.equalList(c, e.Lexpr, e.Rexpr.GetList().GetItems(), Name{})
		}
	}
}

func isEquality(e *pg.A_Expr) bool {
	name, ok := qualifiedName(e.Name)
	return ok && name.Name == "=" && (name.Schema == "" || name.Schema == "pg_catalog")
}

// alternatives notes column = a OR column = b, which is column IN (a, b).
func (w *walker) alternatives(c condition, args []*pg.Node) {
	var rel *Relation
	var all Equality
	for _, n := range args {
		e := n.GetAExpr()
		if e == nil || e.Kind != pg.A_Expr_Kind_AEXPR_OP || !isEquality(e) {
			return
		}
		column, o := e.Lexpr, w.operand(c.scope, e.Rexpr)
		if o == nil {
			column, o = e.Rexpr, w.operand(c.scope, e.Lexpr)
		}
		r, name := c.column(column)
		if o == nil || r == nil || rel != nil && (r != rel || name != all.Column) {
			return
		}
		rel, all.Column, all.Values = r, name, append(all.Values, *o)
	}
	if rel != nil {
		all.Optional = c.optional
		rel.Equal = append(rel.Equal, all)
	}
}

// equal notes column = operand, operand = column, column = column, and rows of these.
func (w *walker) equal(c condition, l, r *pg.Node) {
	if lr, rr := l.GetRowExpr(), r.GetRowExpr(); lr != nil && rr != nil && len(lr.Args) == len(rr.Args) {
		for i := range lr.Args {
			w.equal(c, lr.Args[i], rr.Args[i])
		}
		return
	}
	if o := w.operand(c.scope, r); o != nil {
		c.note(l, Equality{Values: []Operand{*o}})
	} else if o := w.operand(c.scope, l); o != nil {
		c.note(r, Equality{Values: []Operand{*o}})
	} else {
		w.carry(c, l, r)
		w.carry(c, r, l)
	}
}

// equalAny notes column = ANY (array).
func (w *walker) equalAny(c condition, column, array *pg.Node) {
	cast := Name{}
	list := array.GetAArrayExpr()
	if t := array.GetTypeCast(); t != nil && t.Arg.GetAArrayExpr() != nil {
		// ARRAY[…]::int[] casts each element.
		name := castName(t.TypeName)
		elem, ok := strings.CutSuffix(name.Name, "[]")
		if !ok {
			return
		}
		list, cast = t.Arg.GetAArrayExpr(), Name{Schema: name.Schema, Name: elem}
	}
	if list != nil {
		w.equalList(c, column, list.Elements, cast)
	} else if o := w.operand(c.scope, array); o != nil {
		c.note(column, Equality{Values: []Operand{*o}, Array: true})
	}
}

// equalList notes column IN (operands). One value that is no operand leaves
// the column free.
func (w *walker) equalList(c condition, column *pg.Node, values []*pg.Node, cast Name) {
	e := Equality{Values: make([]Operand, 0, len(values))}
	for _, n := range values {
		o := w.operand(c.scope, n)
		if o == nil || cast != (Name{}) && o.Cast != (Name{}) {
			return
		}
		if cast != (Name{}) {
			o.Cast = cast
		}
		e.Values = append(e.Values, *o)
	}
	if len(e.Values) > 0 {
		c.note(column, e)
	}
}

// note adds an equality to the relation whose column is given, if that can be
// told from the text and the condition holds for it.
func (c condition) note(column *pg.Node, e Equality) {
	if rel, name := c.column(column); rel != nil {
		e.Column, e.Optional = name, c.optional
		rel.Equal = append(rel.Equal, e)
	}
}

// column is ownColumn of a relation for which the condition holds.
func (c condition) column(n *pg.Node) (*Relation, string) {
	rel, name := ownColumn(c.scope, n)
	if rel == nil || !slices.ContainsFunc(c.of, func(it *item) bool { return it.rel == rel }) {
		return nil, ""
	}
	return rel, name
}

// ownColumn gives the relation of this level, and its column, that an expression
// is; nil if it is anything else, or if the text does not tell. There may be no
// such column.
func ownColumn(sc *scope, n *pg.Node) (*Relation, string) {
	rel, name, own := columnOf(sc, n)
	if !own {
		return nil, ""
	}
	return rel, name
}

// columnOf is ownColumn of this level or one around it.
func columnOf(sc *scope, n *pg.Node) (rel *Relation, name string, own bool) {
	names, star, ok := fieldNames(n.GetColumnRef().GetFields())
	if !ok || star {
		return nil, "", false
	}
	var it *item
	if len(names) == 1 {
		if len(sc.items) == 1 {
			it, own = sc.items[0], true
		}
	} else if it, own, ok = sc.find(names[:len(names)-1]); !ok {
		return nil, "", false
	}
	if it == nil || it.rel == nil || it.renamed {
		return nil, "", false
	}
	return it.rel, names[len(names)-1], own
}

// operand gives a parameter, a literal or a column of a trigger's row, possibly with
// one cast; nil for anything else. sc is the level at which it stands, nil if it sees
// no relations.
func (w *walker) operand(sc *scope, n *pg.Node) *Operand {
	switch n := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return w.rowColumn(sc, n.ColumnRef)
	case *pg.Node_ParamRef:
		return &Operand{Param: int(n.ParamRef.Number)}
	case *pg.Node_AConst:
		return w.literal(n.AConst)
	case *pg.Node_TypeCast:
		if n.TypeCast.Arg.GetTypeCast() != nil {
			return nil
		}
		o := w.operand(sc, n.TypeCast.Arg)
		cast := castName(n.TypeCast.TypeName)
		if o == nil || o.Row != NoRow || cast == (Name{}) {
			return nil
		}
		o.Cast = cast
		return o
	case *pg.Node_SubLink:
		// (SELECT $1::int), by which some keep a condition from being planned anew.
		s := n.SubLink.Subselect.GetSelectStmt()
		if n.SubLink.SubLinkType != pg.SubLinkType_EXPR_SUBLINK || len(s.GetTargetList()) != 1 {
			return nil
		}
		t := s.TargetList[0].GetResTarget()
		if only := (&pg.SelectStmt{TargetList: s.TargetList, LimitOption: s.LimitOption, Op: s.Op}); !proto.Equal(s, only) || len(t.GetIndirection()) > 0 {
			return nil
		}
		return w.operand(nil, t.GetVal())
	}
	return nil
}

// literal finds the scanned literal that a constant was made of. The grammar
// folds a minus sign into a number and moves the location to the sign.
func (w *walker) literal(c *pg.A_Const) *Operand {
	pos := int(c.Location)
	if pos < 0 || pos >= len(w.sql) {
		return nil
	}
	i := sort.Search(len(w.literals), func(i int) bool { return w.literals[i].Pos >= pos })
	if i == len(w.literals) {
		return nil
	}
	l := w.literals[i]
	o := &Operand{Literal: i + 1}
	if l.Pos != pos {
		lex := lexer{sql: w.sql, pos: pos + 1}
		if w.sql[pos] != '-' || lex.next() != tokenLiteral || lex.start != l.Pos {
			return nil
		}
		o.Negated = true
	}
	// The tree must agree. It lacks the value of a negative integer, which is
	// a fault of the library's output.
	ok := false
	switch v := c.Val.(type) {
	case *pg.A_Const_Ival:
		ok = l.Kind == Integer && (o.Negated || strconv.Itoa(int(v.Ival.Ival)) == l.Text)
	case *pg.A_Const_Fval:
		ok = l.Kind == Number && strings.TrimPrefix(v.Fval.Fval, "-") == l.Text
	case *pg.A_Const_Sval:
		ok = l.Kind == String && !o.Negated && v.Sval.Sval == l.Text
	case *pg.A_Const_Bsval:
		ok = l.Kind == BitString && !o.Negated && v.Bsval.Bsval == l.Text
	}
	if !ok {
		return nil
	}
	return o
}
