package sqlgen

import (
	"fmt"
	"slices"
	"strings"
)

// table makes a table with its keys, foreign keys, partitions or children.
func (b *builder) table(name string) {
	r := &relation{name: name, kind: table, writable: true}
	var constraints []string
	split := b.Percent(25) // into partitions
	b.primaryKey(r)
	primary := names(r.columns)
	r.keys = []key{{name: name + "_pkey", arbiter: true}}
	for i := range r.columns {
		r.keys[0].columns = append(r.keys[0].columns, i)
	}
	constraints = append(constraints, fmt.Sprintf("CONSTRAINT %s_pkey PRIMARY KEY (%s)", name, primary))

	r.columns = append(r.columns, column{name: "n", typ: integer, notNull: true, defaulted: true})
	if !split && b.Percent(50) {
		constraints = append(constraints, b.uniqueKey(r))
	}
	for range 1 + b.Below(2) {
		if c := b.foreignKey(r); c != "" {
			constraints = append(constraints, c)
		}
	}
	if b.Percent(50) {
		r.columns = append(r.columns, column{name: "note", typ: text})
	}
	if b.Percent(50) {
		r.columns = append(r.columns, column{name: "touched", typ: integer, defaulted: true})
	}
	if b.Percent(10) {
		r.columns = append(r.columns, column{name: "number", typ: integer, defaulted: true})
	}
	for i := range 1 + b.Below(3) {
		r.columns = append(r.columns, column{name: fmt.Sprintf("x%d", i), typ: one(b.Gen, otherTypes...), notNull: b.Percent(20)})
	}
	if b.Percent(25) {
		r.columns = append(r.columns, column{name: "twice", typ: integer, generated: true})
	}
	if !split && b.Percent(15) {
		constraints = append(constraints, fmt.Sprintf("CONSTRAINT %s_check CHECK (n < 40)", name))
	}
	body := make([]string, len(r.columns))
	for i, c := range r.columns {
		body[i] = b.definition(c)
	}
	b.s.relations = append(b.s.relations, r)
	if split {
		b.partitions(r, body, constraints)
	} else {
		b.ddlf("CREATE TABLE %s (%s)", name, strings.Join(append(body, constraints...), ", "))
		if b.Percent(25) {
			b.child(r)
		}
	}
	if b.Percent(40) {
		c := one(b.Gen, r.columns...)
		b.ddlf("CREATE INDEX ON %s (%s)", name, c.name)
	}
}

// primaryKey gives a table its first columns.
func (b *builder) primaryKey(r *relation) {
	r.columns = append(r.columns, column{name: "id", typ: one(b.Gen, keyTypes...), notNull: true})
	if b.Percent(25) {
		r.columns = append(r.columns, column{name: "part", typ: one(b.Gen, integer, text, date), notNull: true})
	}
}

func (b *builder) uniqueKey(r *relation) string {
	c := column{name: "code", typ: one(b.Gen, text, integer, uuid, varchar), notNull: b.Percent(50)}
	r.columns = append(r.columns, c)
	columns := []int{len(r.columns) - 1}
	if b.Percent(30) {
		columns = append(columns, 0)
	}
	k := key{name: r.name + "_code", columns: columns, arbiter: b.Percent(85)}
	r.keys = append(r.keys, k)
	late := ""
	if !k.arbiter {
		late = " DEFERRABLE INITIALLY " + one(b.Gen, "DEFERRED", "IMMEDIATE")
	}
	return fmt.Sprintf("CONSTRAINT %s UNIQUE (%s)%s", k.name, names(r.of(k)), late)
}

// foreignKey adds columns that refer to a table made before, or to the table
// itself; "" if it has them already.
func (b *builder) foreignKey(r *relation) string {
	to := r
	if all := b.tables(); len(all) > 0 && b.Percent(85) {
		to = one(b.Gen, all...)
	}
	if to == r && b.Percent(50) {
		return ""
	}
	k := one(b.Gen, to.keys...)
	if !k.arbiter {
		k = to.keys[0]
	}
	nullable := b.Percent(70)
	var columns []string
	for _, c := range to.of(k) {
		name := to.name + "_" + c.name
		if r.column(name) != nil {
			return ""
		}
		columns = append(columns, name)
		r.columns = append(r.columns, column{name: name, typ: c.typ, notNull: !nullable, refers: to})
	}
	actions := []string{"", "", "NO ACTION", "RESTRICT", "CASCADE", "CASCADE", "CASCADE", "CASCADE"}
	if nullable {
		actions = append(actions, "SET NULL", "SET NULL", "SET DEFAULT")
	}
	text := fmt.Sprintf("FOREIGN KEY (%s) REFERENCES %s (%s)", strings.Join(columns, ", "), to.name, names(to.of(k)))
	for _, event := range []string{"DELETE", "UPDATE"} {
		if action := one(b.Gen, actions...); action != "" {
			text += " ON " + event + " " + action
		}
	}
	if b.Percent(20) {
		text += one(b.Gen, " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED")
	}
	return text
}

func (b *builder) definition(c column) string {
	text := c.name + " " + c.typ.SQL
	if c.notNull {
		text += " NOT NULL"
	}
	switch {
	case c.generated:
		text += " GENERATED ALWAYS AS (n * 2) STORED"
	case c.name == "n" || c.name == "touched":
		text += " DEFAULT 0"
	case c.name == "number":
		text += " DEFAULT next_number()"
	case c.refers != nil && b.Percent(40): // what SET DEFAULT sets
		text += " DEFAULT " + c.typ.Values[1].Literals[0]
	}
	return text
}

// partitions makes r a partitioned table with all its partitions.
func (b *builder) partitions(r *relation, body, constraints []string) {
	r.kind = partitioned
	by := len(r.keys[0].columns) - 1
	how, bounds := b.split(r.columns[by])
	b.ddlf("CREATE TABLE %s (%s) PARTITION BY %s", r.name, strings.Join(append(body, constraints...), ", "), how)
	for i, bound := range bounds {
		b.partition(r, fmt.Sprintf("%s_%c", r.name, 'a'+i), bound, body)
	}
}

// split chooses how to split a table by one of its columns.
func (b *builder) split(c column) (how string, bounds []string) {
	at := func(n int) string { return c.typ.Values[n].Literals[0] }
	method := one(b.Gen, "LIST", "RANGE", "HASH")
	if c.typ == character || c.typ == numeric || c.typ == bytea {
		method = "HASH" // their bounds would be a matter of spelling
	}
	switch method {
	case "LIST":
		var lists [2][]string
		for n := range 8 {
			lists[n%2] = append(lists[n%2], at(n))
		}
		for _, list := range lists {
			bounds = append(bounds, "FOR VALUES IN ("+strings.Join(list, ", ")+")")
		}
	case "RANGE":
		bounds = []string{"FOR VALUES FROM (MINVALUE) TO (" + at(2) + ")", "FOR VALUES FROM (" + at(2) + ") TO (" + at(7) + ")"}
	case "HASH":
		bounds = []string{"FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)"}
	}
	if method != "HASH" && b.Percent(85) {
		bounds = append(bounds, "DEFAULT")
	}
	return method + " (" + c.name + ")", bounds
}

// partition makes one partition: in place, or by itself with its columns in
// another order and attached then, or split once more.
func (b *builder) partition(r *relation, name, bound string, body []string) {
	p := &relation{name: name, kind: partition, columns: r.columns, parent: r, writable: true,
		keys: []key{{name: name + "_pkey", columns: r.keys[0].columns, arbiter: true}}}
	b.s.relations = append(b.s.relations, p)
	r.children = append(r.children, p)
	switch depth := strings.Count(name, "_"); {
	case depth == 1 && b.Percent(25):
		how, bounds := b.split(r.columns[0])
		b.ddlf("CREATE TABLE %s PARTITION OF %s %s PARTITION BY %s", name, r.name, bound, how)
		for i, bound := range bounds {
			b.partition(p, fmt.Sprintf("%s_%c", name, 'a'+i), bound, body)
		}
	case bound != "DEFAULT" && depth == 1 && b.Percent(30):
		p.columns = slices.Clone(r.columns)
		slices.Reverse(p.columns)
		body = slices.Clone(body)
		slices.Reverse(body)
		p.keys = []key{{name: name + "_own", arbiter: true}}
		for _, c := range r.keys[0].columns {
			p.keys[0].columns = append(p.keys[0].columns, len(p.columns)-1-c)
		}
		b.ddlf("CREATE TABLE %s (%s, CONSTRAINT %s_own PRIMARY KEY (%s))", name, strings.Join(body, ", "), name, names(p.primary()))
		b.ddlf("ALTER TABLE %s ATTACH PARTITION %s %s", r.name, name, bound)
		b.change("ALTER TABLE "+r.name+" DETACH PARTITION "+name, "ALTER TABLE "+r.name+" ATTACH PARTITION "+name+" "+bound)
	default:
		b.ddlf("CREATE TABLE %s PARTITION OF %s %s", name, r.name, bound)
		if bound != "DEFAULT" {
			b.change("ALTER TABLE "+r.name+" DETACH PARTITION "+name, "ALTER TABLE "+r.name+" ATTACH PARTITION "+name+" "+bound)
		}
	}
}

// child makes a table that inherits from r, with a key of its own, and perhaps
// from another table as well.
func (b *builder) child(r *relation) {
	c := &relation{name: r.name + "_sub", kind: table, parent: r, writable: true,
		keys: []key{{name: r.name + "_sub_pkey", columns: r.keys[0].columns, arbiter: true}}}
	c.columns = append(slices.Clone(r.columns), column{name: "more", typ: integer})
	for i := range c.columns {
		c.columns[i].refers = nil // foreign keys are not inherited
	}
	parents := r.name
	if b.Percent(40) {
		parents += ", stat"
		for _, stat := range b.s.relations {
			if stat.name == "stat" {
				stat.children = append(stat.children, c)
			}
		}
		c.columns = append(c.columns, column{name: "tab", typ: text, notNull: true})
	}
	r.children = append(r.children, c)
	b.s.relations = append(b.s.relations, c)
	b.ddlf("CREATE TABLE %s (more int, CONSTRAINT %s_sub_pkey PRIMARY KEY (%s)) INHERITS (%s)", c.name, r.name, names(r.primary()), parents)
}

// logs makes the tables that only code writes.
func (b *builder) logs() {
	b.s.relations = append(b.s.relations, &relation{name: "log", kind: table, log: true, writable: true,
		columns: []column{{name: "id", typ: bigint, notNull: true, defaulted: true}, {name: "tab", typ: text, defaulted: true},
			{name: "op", typ: text, defaulted: true}, {name: "k", typ: text, defaulted: true}, {name: "n", typ: integer, defaulted: true}},
		keys: []key{{name: "log_pkey", columns: []int{0}, arbiter: true}}},
		&relation{name: "stat", kind: table, log: true, writable: true,
			columns: []column{{name: "tab", typ: text, notNull: true}, {name: "n", typ: integer, notNull: true, defaulted: true}},
			keys:    []key{{name: "stat_pkey", columns: []int{0}, arbiter: true}}})
	b.ddl("CREATE TABLE log (id bigserial PRIMARY KEY, tab text, op text, k text, n int)",
		"CREATE TABLE stat (tab text PRIMARY KEY, n int NOT NULL DEFAULT 0)",
		"CREATE SEQUENCE numbers START 100")
	b.s.sequences = append(b.s.sequences, "numbers")
}

// rows gives every table the rows that it begins with: the i-th has the i-th
// value in each of its keys and refers to i-th rows.
func (b *builder) rows() {
	for _, t := range b.tables() {
		var columns []column
		for _, c := range t.columns {
			if !c.generated && !c.defaulted {
				columns = append(columns, c)
			}
		}
		var rows []string
		for i := range begin {
			values := make([]string, len(columns))
			for j, c := range columns {
				v := i
				if !c.notNull && c.refers == nil && c.name != "code" && b.Percent(20) {
					values[j] = "NULL"
					continue
				}
				if c.refers == nil && c.name != "id" && c.name != "part" && c.name != "code" {
					v = b.Below(domain - 1)
				}
				values[j] = c.typ.Values[v].Literals[0]
			}
			rows = append(rows, "("+strings.Join(values, ", ")+")")
		}
		if len(rows) > 0 {
			b.ddlf("INSERT INTO %s (%s) VALUES %s", t.name, names(columns), strings.Join(rows, ", "))
		}
	}
	b.ddl("INSERT INTO stat (tab) VALUES ('a'), ('b'), ('c')")
}
