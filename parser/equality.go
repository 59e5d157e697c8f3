package parser

import (
	"sort"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// equalities notes the conjuncts of a condition that fix a column of an item
// of this level. The condition must be one that every row in the result meets:
// WHERE, or ON of an inner join. That also holds for the side of an outer join
// that is filled with NULL, because no NULL equals anything.
func (w *walker) equalities(sc *scope, n *pg.Node) {
	switch n := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		switch n.BoolExpr.Boolop {
		case pg.BoolExprType_AND_EXPR:
			for _, arg := range n.BoolExpr.Args {
				w.equalities(sc, arg)
			}
		case pg.BoolExprType_OR_EXPR:
			w.alternatives(sc, n.BoolExpr.Args)
		}
	case *pg.Node_AExpr:
		e := n.AExpr
		if !isEquality(e) {
			return
		}
		switch e.Kind {
		case pg.A_Expr_Kind_AEXPR_OP:
			w.equal(sc, e.Lexpr, e.Rexpr)
		case pg.A_Expr_Kind_AEXPR_OP_ANY:
			w.equalAny(sc, e.Lexpr, e.Rexpr)
		case pg.A_Expr_Kind_AEXPR_IN:
			w.equalList(sc, e.Lexpr, e.Rexpr.GetList().GetItems(), Name{})
		}
	}
}

func isEquality(e *pg.A_Expr) bool {
	name, ok := qualifiedName(e.Name)
	return ok && name.Name == "=" && (name.Schema == "" || name.Schema == "pg_catalog")
}

// alternatives notes column = a OR column = b, which is column IN (a, b).
func (w *walker) alternatives(sc *scope, args []*pg.Node) {
	var rel *Relation
	var all Equality
	for _, n := range args {
		e := n.GetAExpr()
		if e == nil || e.Kind != pg.A_Expr_Kind_AEXPR_OP || !isEquality(e) {
			return
		}
		column, o := e.Lexpr, w.operand(e.Rexpr)
		if o == nil {
			column, o = e.Rexpr, w.operand(e.Lexpr)
		}
		r, name := ownColumn(sc, column)
		if o == nil || r == nil || rel != nil && (r != rel || name != all.Column) {
			return
		}
		rel, all.Column, all.Values = r, name, append(all.Values, *o)
	}
	if rel != nil {
		rel.Equal = append(rel.Equal, all)
	}
}

// equal notes column = operand, operand = column, and rows of these.
func (w *walker) equal(sc *scope, l, r *pg.Node) {
	if lr, rr := l.GetRowExpr(), r.GetRowExpr(); lr != nil && rr != nil && len(lr.Args) == len(rr.Args) {
		for i := range lr.Args {
			w.equal(sc, lr.Args[i], rr.Args[i])
		}
		return
	}
	if o := w.operand(r); o != nil {
		w.note(sc, l, Equality{Values: []Operand{*o}})
	} else if o := w.operand(l); o != nil {
		w.note(sc, r, Equality{Values: []Operand{*o}})
	}
}

// equalAny notes column = ANY (array).
func (w *walker) equalAny(sc *scope, column, array *pg.Node) {
	cast := Name{}
	list := array.GetAArrayExpr()
	if c := array.GetTypeCast(); c != nil && c.Arg.GetAArrayExpr() != nil {
		// ARRAY[…]::int[] casts each element.
		name := castName(c.TypeName)
		elem, ok := strings.CutSuffix(name.Name, "[]")
		if !ok {
			return
		}
		list, cast = c.Arg.GetAArrayExpr(), Name{Schema: name.Schema, Name: elem}
	}
	if list != nil {
		w.equalList(sc, column, list.Elements, cast)
	} else if o := w.operand(array); o != nil {
		w.note(sc, column, Equality{Values: []Operand{*o}, Array: true})
	}
}

// equalList notes column IN (operands). One value that is no operand leaves
// the column free.
func (w *walker) equalList(sc *scope, column *pg.Node, values []*pg.Node, cast Name) {
	e := Equality{Values: make([]Operand, 0, len(values))}
	for _, n := range values {
		o := w.operand(n)
		if o == nil || cast != (Name{}) && o.Cast != (Name{}) {
			return
		}
		if cast != (Name{}) {
			o.Cast = cast
		}
		e.Values = append(e.Values, *o)
	}
	if len(e.Values) > 0 {
		w.note(sc, column, e)
	}
}

// note adds an equality to the relation whose column is given, if that can be
// told from the text.
func (w *walker) note(sc *scope, column *pg.Node, e Equality) {
	if rel, name := ownColumn(sc, column); rel != nil {
		e.Column = name
		rel.Equal = append(rel.Equal, e)
	}
}

// ownColumn gives the relation of this level, and its column, that an expression
// is; nil if it is anything else, or if the text does not tell. There may be no
// such column.
func ownColumn(sc *scope, n *pg.Node) (*Relation, string) {
	names, star, ok := fieldNames(n.GetColumnRef().GetFields())
	if !ok || star {
		return nil, ""
	}
	var it *item
	if len(names) == 1 {
		if len(sc.items) == 1 {
			it = sc.items[0]
		}
	} else if found, own, ok := sc.find(names[:len(names)-1]); ok && own {
		it = found
	}
	if it == nil || it.rel == nil || it.renamed {
		return nil, ""
	}
	return it.rel, names[len(names)-1]
}

// operand gives a parameter or literal, possibly with one cast; nil for
// anything else.
func (w *walker) operand(n *pg.Node) *Operand {
	switch n := n.GetNode().(type) {
	case *pg.Node_ParamRef:
		return &Operand{Param: int(n.ParamRef.Number)}
	case *pg.Node_AConst:
		return w.literal(n.AConst)
	case *pg.Node_TypeCast:
		if n.TypeCast.Arg.GetTypeCast() != nil {
			return nil
		}
		o := w.operand(n.TypeCast.Arg)
		cast := castName(n.TypeCast.TypeName)
		if o == nil || cast == (Name{}) {
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
		return w.operand(t.GetVal())
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
