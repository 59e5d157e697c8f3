package sqlgen

import (
	"fmt"
	"strings"
)

// Write makes a statement that changes something, or may.
func (s *Schema) Write(g *Gen) Statement {
	if n := len(g.undo); n > 0 && g.Percent(25) {
		text := g.undo[n-1]
		g.undo = g.undo[:n-1]
		return Statement{SQL: text, Kind: "ddl", Schema: true}
	}
	w := &write{texts: texts{Gen: g, s: s, literal: g.Percent(40)}}
	c := choose(g, []weighted[func() string]{
		{16, "insert", w.insert},
		{4, "insert select", w.insertSelect},
		{1, "insert defaults", w.insertDefaults},
		{16, "update by key", w.updateByKey},
		{7, "update by condition", w.updateWhere},
		{5, "update of a key", w.updateKey},
		{4, "update from", w.updateFrom},
		{8, "delete by key", w.deleteByKey},
		{4, "delete by condition", w.deleteWhere},
		{2, "delete using", w.deleteUsing},
		{9, "upsert", w.upsert},
		{4, "merge", w.merge},
		{5, "writing cte", w.cte},
		{1, "truncate", w.truncate},
		{8, "function", w.call},
		{3, "do", w.do},
		{2, "copy", w.copyFrom},
		{4, "ddl", w.ddl},
		{2, "refresh", w.refresh},
		{2, "several", w.several},
		{4, "other", w.other},
	})
	text := c.make()
	statement := w.Statement
	statement.SQL, statement.Kind = text, c.name
	if statement.Copy == nil {
		statement.Args = w.args
	}
	return statement
}

// write makes one write.
type write struct {
	texts
	Statement // what is to be said of it
}

// target is a relation to write: mostly a table, now and then one that only
// code writes.
func (w *write) target() *relation {
	return one(w.Gen, w.s.having(func(r *relation) bool {
		return r.writable && (!r.log || w.Percent(20)) && (r.kind != partition || w.Percent(60))
	})...)
}

// plainTarget is a target for what rules and INSTEAD OF triggers cannot do.
func (w *write) plainTarget() *relation {
	return one(w.Gen, w.s.having(func(r *relation) bool {
		return r.writable && !r.ruled && (!r.log || w.Percent(20)) && (r.kind != partition || w.Percent(40))
	})...)
}

// returning ends a statement on r.
func (w *write) returning(r string, columns []column) string {
	if !w.Percent(25) {
		return ""
	}
	w.Rows = true
	out := one(w.Gen, "*", "1", r+"."+one(w.Gen, columns...).name)
	return " RETURNING " + out
}

// named are the columns that an INSERT names: those it must, and some.
func (w *write) named(r *relation) (named []column) {
	for _, c := range r.columns {
		if !c.generated && (c.notNull && !c.defaulted || w.Percent(45)) {
			named = append(named, c)
		}
	}
	if len(named) == 0 {
		named = append(named, r.columns[len(r.columns)-1])
	}
	return named
}

// row is a row for columns. New rows mostly get keys that those which the
// schema begins with do not have, and refer to these.
func (w *write) row(columns []column) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		switch {
		case !c.notNull && w.Percent(12):
			list[i] = "NULL"
		case c.defaulted && w.Percent(10):
			list[i] = "DEFAULT"
		case (c.name == "id" || c.name == "code") && w.Percent(75):
			list[i] = c.typ.Values[begin+w.Below(domain-begin)].Literals[0]
		case c.refers != nil && w.Percent(80):
			list[i] = c.typ.Values[w.Below(begin)].Literals[0]
		default:
			list[i] = w.value(c.typ)
		}
	}
	return "(" + strings.Join(list, ", ") + ")"
}

func (w *write) rows(columns []column) string {
	rows := []string{w.row(columns)}
	for w.Percent(25) {
		rows = append(rows, w.row(columns))
	}
	return strings.Join(rows, ", ")
}

// arbitrated reports that ON CONFLICT can be used: PostgreSQL refuses it with
// rules and with unique constraints that may be violated for a while.
func (r *relation) arbitrated() bool {
	for _, k := range r.keys {
		if !k.arbiter {
			return false
		}
	}
	return !r.ruled
}

func (w *write) insert() string {
	r := w.target()
	for tries := 0; r.kind == partition && tries < 2; tries++ {
		r = w.target() // most rows do not belong into a given partition
	}
	columns := w.named(r)
	conflict := ""
	if r.arbitrated() && w.Percent(35) {
		conflict = " ON CONFLICT DO NOTHING"
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s%s", r.name, names(columns), w.rows(columns), conflict) + w.returning(r.name, r.columns)
}

func (w *write) insertSelect() string {
	r := w.target()
	columns := w.named(r)
	if w.Percent(30) {
		return fmt.Sprintf("INSERT INTO log (tab, n) SELECT '%s', n FROM %s x%s", r.name, r.name, w.where(source{"x", r}))
	}
	from := one(w.Gen, w.s.having(func(x *relation) bool { return !x.writes })...)
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.typ.Values[w.Below(domain)].Literals[0] + "::" + c.typ.SQL
		for _, d := range from.columns {
			if d.typ == c.typ && w.Percent(30) {
				list[i] = "x." + d.name
			}
		}
	}
	conflict := ""
	if r.arbitrated() && w.Percent(70) {
		conflict = " ON CONFLICT DO NOTHING"
	}
	return fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s x%s LIMIT %d%s", r.name, names(columns), strings.Join(list, ", "), from.name,
		w.where(source{"x", from}), 1+w.Below(2), conflict)
}

func (w *write) insertDefaults() string {
	return "INSERT INTO log DEFAULT VALUES"
}

// assignment sets a column of what prefix stands for to a value, or to
// something computed.
func (w *write) assignment(prefix string, c column) string {
	own := prefix + c.name
	switch {
	case c.name == "n" && w.Percent(50):
		return "n = " + one(w.Gen, own+" + 1", own+" + 1", own+" - 1", "("+own+" + 3) % 8", "doubled(1)",
			"CASE WHEN "+own+" > 5 THEN 0 ELSE "+own+" + 1 END", "(SELECT count(*) FROM log l WHERE l.n = 1)")
	case c.defaulted && w.Percent(5):
		return c.name + " = DEFAULT"
	case !c.notNull && w.Percent(10):
		return c.name + " = NULL"
	case c.typ == jsonb && w.Percent(50):
		return c.name + " = " + own + " || '{\"z\": 1}'"
	}
	return c.name + " = " + w.value(c.typ)
}

// set assigns some columns, keys left out.
func (w *write) set(prefix string, r *relation) string {
	var free []column
	for _, c := range r.columns {
		if !c.generated && !w.inKey(r, c) && (c.refers == nil || w.Percent(40)) {
			free = append(free, c)
		}
	}
	if len(free) == 0 {
		free = r.columns
	}
	if n := r.column("n"); n != nil && w.Percent(50) {
		free = []column{*n}
	}
	var list []string
	for i, c := range some(w.Gen, 1, free) {
		if i < 3 {
			list = append(list, w.assignment(prefix, c))
		}
	}
	return strings.Join(list, ", ")
}

func (w *write) inKey(r *relation, c column) bool {
	for _, k := range r.keys {
		for _, i := range k.columns {
			if r.columns[i].name == c.name {
				return true
			}
		}
	}
	return false
}

func (w *write) updateByKey() string {
	r := w.target()
	s := source{r.name, r}
	if w.Percent(20) {
		s.alias = "x"
		return fmt.Sprintf("UPDATE %s AS x SET %s WHERE %s", r.name, w.set("x.", r), w.keyCondition(s)) + w.returning("x", r.columns)
	}
	return fmt.Sprintf("UPDATE %s SET %s WHERE %s", r.name, w.set("", r), w.keyCondition(s)) + w.returning(r.name, r.columns)
}

func (w *write) updateWhere() string {
	r := w.target()
	only := ""
	if r.kind == table && w.Percent(10) {
		only = "ONLY "
	}
	return fmt.Sprintf("UPDATE %s%s x SET %s%s", only, r.name, w.set("", r), w.where(source{"x", r})) + w.returning("x", r.columns)
}

// updateKey gives rows another key, or moves them to another partition.
func (w *write) updateKey() string {
	r := w.target()
	columns := r.of(one(w.Gen, r.keys...))
	c := one(w.Gen, columns...)
	value := c.typ.Values[begin+w.Below(domain-begin)].Literals[0]
	if c.typ == integer && w.Percent(30) {
		value = c.name + " + 20"
	}
	return fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s", r.name, c.name, value, w.keyCondition(source{r.name, r})) + w.returning(r.name, r.columns)
}

func (w *write) updateFrom() string {
	r := w.target()
	from := one(w.Gen, w.s.having(func(x *relation) bool { return x.column("n") != nil && !x.writes })...)
	return fmt.Sprintf("UPDATE %s x SET %s FROM %s y WHERE %s AND %s", r.name, w.set("x.", r), from.name,
		w.on("x", r, "y", from), w.condition(source{"x", r}))
}

func (w *write) deleteByKey() string {
	r := w.target()
	return fmt.Sprintf("DELETE FROM %s WHERE %s", r.name, w.keyCondition(source{r.name, r})) + w.returning(r.name, r.columns)
}

func (w *write) deleteWhere() string {
	r := w.target()
	return fmt.Sprintf("DELETE FROM %s x WHERE %s AND %s", r.name, w.condition(source{"x", r}), w.condition(source{"x", r})) + w.returning("x", r.columns)
}

func (w *write) deleteUsing() string {
	r := w.target()
	from := one(w.Gen, w.s.having(func(x *relation) bool { return x.column("n") != nil && !x.writes })...)
	return fmt.Sprintf("DELETE FROM %s x USING %s y WHERE %s AND %s", r.name, from.name, w.on("x", r, "y", from), w.condition(source{"x", r}))
}

func (w *write) upsert() string {
	r := w.plainTarget()
	for tries := 0; !r.arbitrated() && tries < 3; tries++ {
		r = w.plainTarget()
	}
	columns := w.named(r)
	k := one(w.Gen, r.keys...)
	for _, c := range r.of(k) { // the key is named more often than not
		if !strings.Contains(", "+names(columns)+",", ", "+c.name+",") && w.Percent(80) {
			columns = append(columns, c)
		}
	}
	conflict := "(" + names(r.of(k)) + ")"
	if k.name != "" && w.Percent(15) {
		conflict = "ON CONSTRAINT " + k.name
	}
	c := one(w.Gen, columns...)
	update := c.name + " = excluded." + c.name
	if w.inKey(r, c) || w.Percent(50) {
		update = ""
	}
	text := fmt.Sprintf("INSERT INTO %s (%s) VALUES %s ON CONFLICT %s DO UPDATE SET ", r.name, names(columns), w.rows(columns), conflict)
	if update == "" {
		update = w.set(r.name+".", r)
	}
	where := ""
	if w.Percent(15) && r.column("n") != nil {
		where = " WHERE " + r.name + ".n < 6"
	}
	return text + update + where + w.returning(r.name, r.columns)
}

func (w *write) merge() string {
	all := w.s.having(func(r *relation) bool { return r.writable && !r.ruled && r.kind != view && r.column("n") != nil })
	r := one(w.Gen, all...)
	from := one(w.Gen, w.s.having(func(x *relation) bool { return x.column("n") != nil && !x.writes })...)
	id := one(w.Gen, r.primary()...)
	text := fmt.Sprintf("MERGE INTO %s x USING (SELECT %s::%s AS k, max(n) AS n FROM %s) y ON x.%s = y.k", r.name, w.cast(id.typ), bare(id.typ), from.name, id.name)
	for _, clause := range some(w.Gen, 1, []string{" WHEN MATCHED AND x.n > 5 THEN DELETE", " WHEN MATCHED THEN UPDATE SET n = x.n + 1", ""}) {
		text += clause
	}
	if columns := w.named(r); w.Percent(60) || !strings.Contains(text, "WHEN") {
		text += fmt.Sprintf(" WHEN NOT MATCHED THEN INSERT (%s) VALUES %s", names(columns), w.row(columns))
	}
	return text
}
