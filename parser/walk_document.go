package parser

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// document walks over the constructs for XML and JSON that the grammar does
// not turn into function calls.
func (w *walker) document(sc *scope, node any) {
	switch n := node.(type) {
	case *pg.Node_XmlExpr:
		e := n.XmlExpr
		if e.Op == pg.XmlExprOp_IS_DOCUMENT {
			w.construct("is document")
		} else {
			w.construct(strings.ToLower(strings.TrimPrefix(e.Op.String(), "IS_")))
		}
		w.targetsOrExprs(sc, e.NamedArgs)
		w.targetsOrExprs(sc, e.Args)
		if len(e.ArgNames) > 0 {
			w.deny()
		}
	case *pg.Node_XmlSerialize:
		w.construct("xmlserialize")
		w.expr(sc, n.XmlSerialize.Expr)
		w.typeName(n.XmlSerialize.TypeName)
	case *pg.Node_JsonIsPredicate:
		w.construct("is json")
		w.expr(sc, n.JsonIsPredicate.Expr)
	case *pg.Node_JsonValueExpr:
		w.jsonValue(sc, n.JsonValueExpr)
	case *pg.Node_JsonKeyValue:
		w.jsonKeyValue(sc, n.JsonKeyValue)
	case *pg.Node_JsonObjectConstructor:
		w.construct("json_object")
		w.exprs(sc, n.JsonObjectConstructor.Exprs)
		w.jsonOutput(n.JsonObjectConstructor.Output)
	case *pg.Node_JsonArrayConstructor:
		w.construct("json_array")
		w.exprs(sc, n.JsonArrayConstructor.Exprs)
		w.jsonOutput(n.JsonArrayConstructor.Output)
	case *pg.Node_JsonArrayQueryConstructor:
		w.construct("json_array")
		w.jsonOutput(n.JsonArrayQueryConstructor.Output)
		sub := n.JsonArrayQueryConstructor.Query.GetSelectStmt()
		if sub == nil {
			w.deny()
			return
		}
		w.selectStmt(sub, sc, sc.ctes)
	case *pg.Node_JsonObjectAgg:
		w.construct("json_objectagg")
		w.jsonKeyValue(sc, n.JsonObjectAgg.Arg)
		w.jsonAggregate(sc, n.JsonObjectAgg.Constructor)
	case *pg.Node_JsonArrayAgg:
		w.construct("json_arrayagg")
		w.jsonValue(sc, n.JsonArrayAgg.Arg)
		w.jsonAggregate(sc, n.JsonArrayAgg.Constructor)
	default:
		w.deny()
	}
}

// targetsOrExprs walks over arguments, some of which have names.
func (w *walker) targetsOrExprs(sc *scope, list []*pg.Node) {
	for _, n := range list {
		if n.GetResTarget() != nil {
			w.targets(sc, []*pg.Node{n})
		} else {
			w.expr(sc, n)
		}
	}
}

func (w *walker) jsonValue(sc *scope, v *pg.JsonValueExpr) {
	if v == nil {
		w.deny()
		return
	}
	w.expr(sc, v.RawExpr)
	w.expr(sc, v.FormattedExpr)
}

func (w *walker) jsonKeyValue(sc *scope, kv *pg.JsonKeyValue) {
	if kv == nil {
		w.deny()
		return
	}
	w.expr(sc, kv.Key)
	w.jsonValue(sc, kv.Value)
}

func (w *walker) jsonOutput(o *pg.JsonOutput) {
	if o != nil && o.TypeName != nil {
		w.typeName(o.TypeName)
	}
}

func (w *walker) jsonAggregate(sc *scope, c *pg.JsonAggConstructor) {
	w.aggregates = true
	if c == nil {
		return
	}
	w.jsonOutput(c.Output)
	w.expr(sc, c.AggFilter)
	w.exprs(sc, c.AggOrder)
	if c.Over != nil {
		w.window(sc, c.Over)
	}
}
