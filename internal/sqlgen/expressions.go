package sqlgen

import (
	"fmt"
	"slices"
	"strings"
)

// expression is something computed from a column.
func (q *texts) expression(r source, c column) string {
	name := r.alias + "." + c.name
	forms := []string{name + "::text", "length(" + name + "::text)", name + " IS NULL", "md5(" + name + "::text)",
		"coalesce(" + name + ", " + q.cast(c.typ) + ")", "loud(" + name + "::text)", "to_jsonb(" + name + ")",
		"ARRAY[" + name + "]", "nullif(" + name + ", " + q.cast(c.typ) + ")", "quote_literal(" + name + "::text)"}
	switch {
	case c.typ == jsonb:
		forms = append(forms, name+"->>'k'", name+"#>'{tags,0}'", "jsonb_array_length("+name+"->'tags')", "jsonb_path_query_first("+name+", '$.tags[1]')", name+" || '{\"z\": 1}'")
	case c.typ == integerArray:
		forms = append(forms, name+"[1]", "array_length("+name+", 1)", "cardinality("+name+")", name+" || 7", "array_position("+name+", 1)")
	case c.typ == date:
		forms = append(forms, name+" + 1", "extract(dow FROM "+name+")", "to_char("+name+", 'YYYY-MM')")
	case c.typ == timestamptz:
		forms = append(forms, name+" + interval '1 day'", "date_trunc('month', "+name+")", name+" AT TIME ZONE 'Europe/Oslo'", name+"::date")
	case c.typ.Family == Number:
		forms = append(forms, name+" + 1", "-"+name, "doubled("+name+"::int)", "CASE WHEN "+name+" > 3 THEN 'many' ELSE 'few' END", "to_char("+name+", '099')", name+"::numeric / 4")
	case c.typ.Family == Text:
		forms = append(forms, "upper("+name+")", name+" || '-'", "substring("+name+" FROM 1 FOR 1)", "to_tsvector('simple', "+name+") @@ to_tsquery('simple', 'a | b')",
			"to_tsvector('english', "+name+")::text", "regexp_replace("+name+", 'a', 'b')", "split_part("+name+", 'b', 1)")
	}
	return one(q.Gen, forms...)
}

// cast is a value whose type needs no context. It is a literal: forms that are
// not taken must not leave an argument behind.
func (q *texts) cast(t *Type) string {
	return t.Values[q.Below(begin)].Literals[0] + "::" + t.SQL
}

func (q *texts) subquery() (string, bool) {
	x, y := source{"x", q.readable()}, source{"y", q.readable()}
	if x.column("n") == nil || y.column("n") == nil {
		return q.list()
	}
	out := q.output(x)
	inner := func(what string) string {
		return fmt.Sprintf("SELECT %s FROM %s y WHERE %s", what, y.name, q.on("x", x.relation, "y", y.relation))
	}
	switch q.Below(6) {
	case 0:
		return q.paged(fmt.Sprintf("SELECT %s FROM %s x WHERE %sEXISTS (%s)", strings.Join(out, ", "), x.name, one(q.Gen, "", "NOT "), inner("")), len(out))
	case 1:
		return q.paged(fmt.Sprintf("SELECT %s FROM %s x WHERE x.n %s (SELECT y.n FROM %s y%s)", strings.Join(out, ", "), x.name,
			one(q.Gen, "IN", "NOT IN", "= ANY", "< ALL"), y.name, q.where(y)), len(out))
	case 2:
		out = append(out, "("+inner("max(y.n)")+")", "ARRAY("+inner("y.n")+" ORDER BY y.n)")
	case 3:
		out = append(out, fmt.Sprintf("(SELECT count(*) FROM %s y%s)", y.name, q.where(y)))
	case 4:
		return q.paged(fmt.Sprintf("SELECT s.a, s.b FROM (SELECT x.n AS a, count(*) AS b FROM %s x%s GROUP BY x.n) s WHERE s.b > 0", x.name, q.where(x)), 2)
	case 5:
		out = []string{"x.n", "z.v"}
		return q.paged(fmt.Sprintf("SELECT x.n, z.v FROM %s x, LATERAL (%s) z (v)%s", x.name, inner("sum(y.n)"), q.where(x)), len(out))
	}
	return q.paged(fmt.Sprintf("SELECT %s FROM %s x%s", strings.Join(out, ", "), x.name, q.where(x)), len(out))
}

func (q *texts) cte() (string, bool) {
	x, y := source{"x", q.readable()}, source{"y", q.readable()}
	if x.column("n") == nil || y.column("n") == nil {
		return q.list()
	}
	if q.Percent(30) { // a CTE may have the name of a table
		return q.paged(fmt.Sprintf("WITH %s AS (SELECT 1 AS n UNION ALL SELECT y.n FROM %s y%s) SELECT n FROM %s", x.name, y.name, q.where(y), x.name), 1)
	}
	how := one(q.Gen, "", " MATERIALIZED", " NOT MATERIALIZED")
	first := fmt.Sprintf("WITH a AS%s (SELECT x.n, count(*) AS c FROM %s x%s GROUP BY x.n)", how, x.name, q.where(x))
	if q.Percent(50) {
		return q.paged(fmt.Sprintf("%s SELECT a.n, a.c, y.n FROM a JOIN %s y ON y.n = a.n%s", first, y.name, q.where(y)), 3)
	}
	return q.paged(fmt.Sprintf("%s, b AS (SELECT n FROM a WHERE c > 1 UNION ALL SELECT y.n FROM %s y%s) SELECT b.n, (SELECT count(*) FROM a) FROM b", first, y.name, q.where(y)), 2)
}

func (q *texts) recursive() (string, bool) {
	own := q.s.having(func(r *relation) bool {
		return slices.ContainsFunc(r.columns, func(c column) bool { return c.refers == r && c.name == r.name+"_id" })
	})
	if len(own) == 0 || q.Percent(30) {
		r := source{"r", q.readable()}
		if r.column("n") == nil {
			return q.list()
		}
		return q.paged(fmt.Sprintf("WITH RECURSIVE up AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM up WHERE i < 5) SELECT up.i, count(r.n) FROM up LEFT JOIN %s r ON r.n = up.i GROUP BY up.i", r.name), 2)
	}
	r := source{"r", one(q.Gen, own...)}
	return q.paged(fmt.Sprintf("WITH RECURSIVE up AS (SELECT r.id, 0 AS depth FROM %s r WHERE %s UNION ALL SELECT c.id, depth + 1 FROM up JOIN %s c ON c.%s_id = up.id WHERE depth < 3) SELECT id, depth FROM up",
		r.name, q.condition(r), r.name, r.name), 2)
}

func (q *texts) aggregate() (string, bool) {
	r := source{"r", q.readable()}
	if r.column("n") == nil {
		return q.list()
	}
	by, c := one(q.Gen, r.columns...), one(q.Gen, r.columns...)
	all := []string{"count(*)", "count(r." + c.name + ")", "count(DISTINCT r." + c.name + ")", "sum(r.n)", "min(r.n)", "max(r." + c.name + "::text)", "avg(r.n)",
		"array_agg(r.n ORDER BY r.n)", "string_agg(r." + c.name + "::text, ',' ORDER BY r." + c.name + "::text)", "bool_or(r.n > 2)", "jsonb_agg(r.n ORDER BY r.n)",
		"count(*) FILTER (WHERE r.n > 1)", "percentile_disc(0.5) WITHIN GROUP (ORDER BY r.n)", "mode() WITHIN GROUP (ORDER BY r.n)", "sum(doubled(r.n))"}
	out := some(q.Gen, 1, all)
	switch {
	case q.Percent(35):
		return fmt.Sprintf("SELECT %s FROM %s r%s", strings.Join(out, ", "), r.name, q.where(r)), true
	case q.Percent(30):
		other := one(q.Gen, r.columns...)
		group := one(q.Gen, "GROUPING SETS ((r.%s), (r.%s), ())", "ROLLUP (r.%s, r.%s)", "CUBE (r.%s, r.%s)")
		text := fmt.Sprintf("SELECT r.%s, r.%s, grouping(r.%s), %s FROM %s r%s GROUP BY "+group, by.name, other.name, by.name, strings.Join(out, ", "), r.name, q.where(r), by.name, other.name)
		return q.paged(text, len(out)+3)
	}
	text := fmt.Sprintf("SELECT r.%s, %s FROM %s r%s GROUP BY r.%s", by.name, strings.Join(out, ", "), r.name, q.where(r), by.name)
	if q.Percent(25) {
		text += " HAVING count(*) > 1"
	}
	return q.paged(text, len(out)+1)
}

func (q *texts) window() (string, bool) {
	r := source{"r", q.readable()}
	if r.column("n") == nil {
		return q.list()
	}
	c := one(q.Gen, r.columns...).name
	// Only functions that give equal rows equal answers.
	out := append(q.output(r), some(q.Gen, 1, []string{"rank() OVER (ORDER BY r.n)", "dense_rank() OVER (PARTITION BY r." + c + " ORDER BY r.n DESC)", "count(*) OVER ()",
		"sum(r.n) OVER (PARTITION BY r." + c + ")", "sum(r.n) OVER (ORDER BY r.n)", "max(r.n) OVER w", "cume_dist() OVER w"})...)
	return q.paged(fmt.Sprintf("SELECT %s FROM %s r%s WINDOW w AS (PARTITION BY r.%s ORDER BY r.n)", strings.Join(out, ", "), r.name, q.where(r), c), len(out))
}

func (q *texts) setOperation() (string, bool) {
	side := func() string {
		r := source{"r", q.readable()}
		return fmt.Sprintf("SELECT r.%s::text FROM %s r%s", one(q.Gen, r.columns...).name, r.name, q.where(r))
	}
	text := side() + one(q.Gen, " UNION ", " UNION ALL ", " INTERSECT ", " EXCEPT ", " EXCEPT ALL ") + side()
	if q.Percent(25) {
		text += " UNION (" + side() + ")"
	}
	return q.paged(text, 1)
}

func (q *texts) distinct() (string, bool) {
	r := source{"r", q.readable()}
	out := q.output(r)
	if q.Percent(50) {
		return q.paged(fmt.Sprintf("SELECT DISTINCT %s FROM %s r%s", strings.Join(out, ", "), r.name, q.where(r)), len(out))
	}
	return fmt.Sprintf("SELECT DISTINCT ON (%s) %s FROM %s r%s ORDER BY %s", out[0], strings.Join(out, ", "), r.name, q.where(r), strings.Join(out, ", ")), true
}

func (q *texts) expressions() (string, bool) {
	r := source{"r", q.readable()}
	var out []string
	for range 1 + q.Below(3) {
		out = append(out, q.expression(r, one(q.Gen, r.columns...)))
	}
	if q.Percent(30) {
		out = append(out, q.number()+" + 1")
	}
	return q.paged(fmt.Sprintf("SELECT %s FROM %s r%s", strings.Join(out, ", "), r.name, q.where(r)), len(out))
}

func (q *texts) wholeRow() (string, bool) {
	r := source{"r", q.readable()}
	return fmt.Sprintf("SELECT %s FROM %s r%s", one(q.Gen, "r", "r.*, 1", "to_jsonb(r)", "r::text", "count(r)", "ROW(r.*)"), r.name, q.where(r)), false
}

func (q *texts) functionCall() (string, bool) {
	var known []function
	for _, f := range q.s.functions {
		if f.kind == pure || f.kind == reader {
			known = append(known, f)
		}
	}
	f := one(q.Gen, known...)
	value := q.cast(f.params[0])
	switch {
	case f.set:
		return q.paged(fmt.Sprintf("SELECT * FROM %s(%s)", f.name, value), 1)
	case q.Percent(40):
		return fmt.Sprintf("SELECT %s(%s)", f.name, value), true
	}
	r := source{"r", q.readable()}
	c := one(q.Gen, r.columns...)
	if c.typ == f.params[0] {
		value = "r." + c.name
	}
	return q.paged(fmt.Sprintf("SELECT %s(%s), r.%s FROM %s r%s", f.name, value, c.name, r.name, q.where(r)), 2)
}

func (q *texts) other() (string, bool) {
	r := source{"r", q.readable()}
	c := one(q.Gen, r.columns...)
	return one(q.Gen,
		"TABLE "+r.name,
		"VALUES (1, 'a'), (2, NULL)",
		"SELECT FROM "+r.name,
		"SELECT i, (SELECT count(*) FROM "+r.name+") FROM generate_series(1, 3) i ORDER BY i",
		"SELECT r."+c.name+" FROM "+r.name+" r TABLESAMPLE BERNOULLI (100)",
		"SELECT current_user, current_schema(), count(*) FROM "+r.name,
		"SELECT count(*) FROM "+r.name+" WHERE now() > '2000-01-01'",
		"SELECT 1 / (count(*) - count(*)) FROM "+r.name,
		"SELECT no_such_column FROM "+r.name,
		"SELECT u FROM unnest(ARRAY[3, 1, 2]) u ORDER BY u",
		"SELECT tableoid::regclass::text, count(*) FROM "+r.name+" GROUP BY 1 ORDER BY 1",
	), false
}
