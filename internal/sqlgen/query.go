package sqlgen

import (
	"fmt"
	"strings"
	"time"
)

// texts makes the parts of one statement.
type texts struct {
	*Gen
	s       *Schema
	args    []any
	literal bool // no parameters, because the statement allows none
}

// source is a relation in a FROM clause.
type source struct {
	alias string
	*relation
}

// Query makes a SELECT that has one right answer in every snapshot.
func (s *Schema) Query(g *Gen) Statement {
	q := &texts{Gen: g, s: s, literal: g.Percent(40)}
	w := choose(g, []weighted[func() (string, bool)]{
		{20, "by key", q.byKey},
		{15, "list", q.list},
		{14, "join", q.join},
		{8, "subquery", q.subquery},
		{6, "cte", q.cte},
		{3, "recursive", q.recursive},
		{10, "aggregate", q.aggregate},
		{5, "window", q.window},
		{5, "set operation", q.setOperation},
		{4, "distinct", q.distinct},
		{6, "expressions", q.expressions},
		{3, "whole row", q.wholeRow},
		{4, "function", q.functionCall},
		{2, "other", q.other},
	})
	text, ordered := w.make()
	if g.Percent(3) {
		text = "/* " + w.name + " */ " + text
	}
	return Statement{SQL: text, Args: q.args, Kind: w.name, Ordered: ordered}
}

// value is one of a type's values, as a literal or as an argument.
func (q *texts) value(t *Type) string {
	n := q.Below(domain)
	if q.Percent(60) {
		n = q.Below(begin)
	}
	v := t.Values[n]
	if q.literal || q.Percent(20) {
		if q.Percent(80) {
			return v.Literals[0]
		}
		return one(q.Gen, v.Literals...)
	}
	arg := v.Args[0]
	if q.Percent(15) {
		arg = one(q.Gen, v.Args...)
	}
	q.args = append(q.args, arg)
	return fmt.Sprintf("$%d", len(q.args))
}

// number is a small integer that is typed by itself.
func (q *texts) number() string {
	v := q.value(integer)
	if strings.HasPrefix(v, "$") {
		v += "::int"
	}
	return v
}

func (q *texts) readable() *relation {
	return one(q.Gen, q.s.having(func(r *relation) bool { return !r.writes })...)
}

func (q *texts) keyed() *relation {
	return one(q.Gen, q.s.having(func(r *relation) bool { return len(r.keys) > 0 })...)
}

// keyCondition fixes a key of r, or nearly.
func (q *texts) keyCondition(r source) string {
	columns := r.of(one(q.Gen, r.keys...))
	terms := make([]string, len(columns))
	several := q.Below(4 * len(columns)) // at most one column has several values
	for i, c := range columns {
		name := r.alias + "." + c.name
		switch {
		case i != several && q.Percent(95):
			terms[i] = name + " = " + q.value(c.typ)
		case q.Percent(5):
			terms[i] = q.value(c.typ) + " = " + name
		case q.Percent(50):
			terms[i] = fmt.Sprintf("%s IN (%s, %s, %s)", name, q.value(c.typ), q.value(c.typ), q.value(c.typ))
		case q.literal:
			terms[i] = fmt.Sprintf("%s = ANY (ARRAY[%s, %s]::%s[])", name, q.value(c.typ), q.value(c.typ), bare(c.typ))
		default:
			terms[i] = name + " = ANY (" + q.array(c.typ) + ")"
		}
	}
	return strings.Join(terms, " AND ")
}

// array is an argument with up to three values of a type.
func (q *texts) array(t *Type) string {
	var list []string
	for range 1 + q.Below(3) {
		switch v := t.Values[q.Below(domain)].Args[0].(type) {
		case []byte, time.Time:
			return "ARRAY[" + q.value(t) + "]::" + bare(t) + "[]"
		default:
			list = append(list, fmt.Sprint(v))
		}
	}
	q.args = append(q.args, list)
	return fmt.Sprintf("$%d::text[]::%s[]", len(q.args), bare(t))
}

// condition is a condition on one of r's columns.
func (q *texts) condition(r source) string {
	c := one(q.Gen, r.columns...)
	name := r.alias + "." + c.name
	if len(r.keys) > 0 && q.Percent(25) {
		return q.keyCondition(r)
	}
	switch q.Below(12) {
	case 0, 1, 2:
		return name + " = " + q.value(c.typ)
	case 3:
		return name + one(q.Gen, " < ", " >= ", " <> ") + q.value(c.typ)
	case 4:
		return name + one(q.Gen, " IS NULL", " IS NOT NULL")
	case 5:
		return fmt.Sprintf("%s BETWEEN %s AND %s", name, q.value(c.typ), q.value(c.typ))
	case 6:
		return name + " IS DISTINCT FROM " + q.value(c.typ)
	case 7:
		return fmt.Sprintf("%s::text %s", name, one(q.Gen, "LIKE '%a%'", "~ '^[a-d]'", "ILIKE 'A%'", "IN ('a', 'b', '1')"))
	case 8:
		return fmt.Sprintf("(%s OR %s)", q.condition(r), q.condition(r))
	case 9:
		return "NOT coalesce(" + q.condition(r) + ", false)"
	case 10:
		switch c.typ {
		case jsonb:
			return name + one(q.Gen, " @> '{\"k\": 1}'", " ? 'k'", "->>'k' = '2'", " @@ '$.k > 2'")
		case integerArray:
			return name + one(q.Gen, " @> '{1}'", " && ARRAY[0, 2]")
		case boolean:
			return name
		}
		return fmt.Sprintf("%s IN (%s, %s)", name, q.value(c.typ), q.value(c.typ))
	}
	return "true"
}

// where is nothing or a WHERE clause.
func (q *texts) where(sources ...source) string {
	var terms []string
	for _, s := range sources {
		for q.Percent(45) && len(terms) < 3 {
			terms = append(terms, q.condition(s))
		}
	}
	if len(terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(terms, " AND ")
}

// list of output columns of the sources.
func (q *texts) output(sources ...source) []string {
	var out []string
	for _, s := range sources {
		for _, c := range some(q.Gen, 1, s.columns) {
			name := s.alias + "." + c.name
			if q.Percent(15) {
				name = q.expression(s, c)
			}
			out = append(out, name)
		}
	}
	return out
}

// total orders by everything that is put out. Rows that are still equal then
// look the same.
func (q *texts) total(columns int) string {
	if columns == 0 {
		return ""
	}
	positions := make([]string, columns)
	for i := range positions {
		positions[i] = fmt.Sprint(i + 1)
		if q.Percent(15) {
			positions[i] += one(q.Gen, " DESC", " NULLS FIRST", " DESC NULLS LAST")
		}
	}
	return " ORDER BY " + strings.Join(positions, ", ")
}

// paged adds an order, and perhaps a limit, to a SELECT of so many columns.
func (q *texts) paged(text string, columns int) (string, bool) {
	if q.Percent(40) {
		return text, false
	}
	text += q.total(columns)
	switch q.Below(4) {
	case 0:
		text += fmt.Sprintf(" LIMIT %d", 1+q.Below(5))
	case 1:
		text += fmt.Sprintf(" LIMIT %d OFFSET %d", 1+q.Below(5), q.Below(4))
	case 2:
		if !q.literal {
			q.args = append(q.args, int64(1+q.Below(5)))
			text += fmt.Sprintf(" LIMIT $%d", len(q.args))
		}
	}
	return text, true
}

func (q *texts) byKey() (string, bool) {
	r := source{"r", q.keyed()}
	out := strings.Join(q.output(r), ", ")
	switch {
	case q.Percent(20):
		r.alias = r.name
		return fmt.Sprintf("SELECT * FROM %s WHERE %s", r.name, q.keyCondition(r)), false
	case q.Percent(10):
		out = "count(*), max(r.n)"
		if r.column("n") == nil {
			out = "count(*)"
		}
	case q.Percent(10):
		return fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM %s r WHERE %s)", r.name, q.keyCondition(r)), true
	}
	only := ""
	if r.kind == table && q.Percent(5) {
		only = "ONLY "
	}
	text := fmt.Sprintf("SELECT %s FROM %s%s r WHERE %s", out, only, r.name, q.keyCondition(r))
	if q.Percent(20) {
		text += " AND " + q.condition(r)
	}
	return text, false
}

func (q *texts) list() (string, bool) {
	r := source{"r", q.readable()}
	if q.Percent(25) {
		return fmt.Sprintf("SELECT * FROM %s r%s", r.name, q.where(r)), false
	}
	out := q.output(r)
	return q.paged(fmt.Sprintf("SELECT %s FROM %s r%s", strings.Join(out, ", "), r.name, q.where(r)), len(out))
}

func (q *texts) join() (string, bool) {
	x, y := source{"x", q.readable()}, source{"y", q.readable()}
	if q.Percent(40) { // one that refers to the other
		if refers := q.s.having(func(r *relation) bool { return r.referring() != nil }); len(refers) > 0 {
			x.relation = one(q.Gen, refers...)
			y.relation = x.referring()
		}
	}
	if x.column("n") == nil || y.column("n") == nil {
		return q.list()
	}
	sources := []source{x, y}
	out := q.output(sources...)
	text := fmt.Sprintf("SELECT %s FROM %s x ", strings.Join(out, ", "), x.name)
	switch q.Below(8) {
	case 0:
		text += fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s z WHERE %s%s LIMIT 1) y ON true", y.name, q.on("x", x.relation, "z", y.relation), q.exactly("z", y.relation))
	case 1:
		text = fmt.Sprintf("SELECT x.*, y.* FROM (SELECT n, %s AS a FROM %s) x NATURAL %s JOIN (SELECT n, %s AS b FROM %s) y",
			x.columns[0].name, x.name, one(q.Gen, "", "LEFT"), y.columns[0].name, y.name)
		return q.paged(text, 4)
	case 2:
		text += fmt.Sprintf("JOIN %s y USING (n)", y.name)
	case 3:
		text += fmt.Sprintf("%s JOIN %s y ON %s", one(q.Gen, "RIGHT", "FULL"), y.name, q.on("x", x.relation, "y", y.relation))
	case 4:
		text += fmt.Sprintf("LEFT JOIN %s y ON %s AND %s", y.name, q.on("x", x.relation, "y", y.relation), q.condition(y))
	case 5:
		text += fmt.Sprintf(", %s y WHERE %s", y.name, q.on("x", x.relation, "y", y.relation))
		if q.Percent(60) {
			text += " AND " + q.condition(x)
		}
		return q.paged(text, len(out))
	default:
		text += fmt.Sprintf("JOIN %s y ON %s", y.name, q.on("x", x.relation, "y", y.relation))
	}
	return q.paged(text+q.where(sources...), len(out))
}

// exactly ends a condition so that LIMIT 1 has one right answer.
func (q *texts) exactly(alias string, r *relation) string {
	all := make([]string, len(r.columns))
	for i, c := range r.columns {
		all[i] = alias + "." + c.name
	}
	return " ORDER BY " + strings.Join(all, ", ")
}

// referring returns a table that r refers to by a column, nil if there is none.
func (r *relation) referring() *relation {
	for _, c := range r.columns {
		if c.refers != nil {
			return c.refers
		}
	}
	return nil
}
