package sqlgen

import (
	"fmt"
	"slices"
	"strings"
)

// views makes views over tables and over each other.
func (b *builder) views() {
	for i := range 2 + b.Below(4) {
		choose(b.Gen, []weighted[func(string)]{
			{5, "simple", b.simpleView},
			{3, "join", b.joinView},
			{2, "aggregate", b.aggregateView},
			{2, "union", b.unionView},
			{2, "materialised", b.materialisedView},
			{1, "writing", b.writingView},
			{1, "function", b.functionView},
		}).make(fmt.Sprintf("v%d", i))
	}
}

// base returns a table, or a view if there is one that can stand for a table.
func (b *builder) base() *relation {
	all := b.s.having(func(r *relation) bool {
		return !r.writes && r.column("n") != nil && r.kind != materialised && len(r.keys) > 0
	})
	return one(b.Gen, all...)
}

// simpleView is a part of one relation. PostgreSQL can write through it, if it
// is not given triggers or rules that do.
func (b *builder) simpleView(name string) {
	t := b.base()
	v := &relation{name: name, kind: view, part: t, writable: t.writable}
	keep := map[int]bool{}
	for _, c := range t.keys[0].columns {
		keep[c] = true
	}
	for i, c := range t.columns {
		if keep[i] || c.name == "n" || c.notNull && !c.defaulted || b.Percent(60) {
			if slices.Contains(t.keys[0].columns, i) {
				if v.keys == nil {
					v.keys = []key{{}}
				}
				v.keys[0].columns = append(v.keys[0].columns, len(v.columns))
			}
			v.columns = append(v.columns, c)
		}
	}
	where := func() string {
		return one(b.Gen, "", fmt.Sprintf(" WHERE n < %d", 3+b.Below(6)), " WHERE n IS NOT NULL", fmt.Sprintf(" WHERE n <> %d", b.Below(5)))
	}
	text := func(create string) string {
		return create + " VIEW " + name + " AS SELECT " + names(v.columns) + " FROM " + t.name + where()
	}
	check := ""
	if b.Percent(20) && t.kind != view {
		check = one(b.Gen, " WITH CHECK OPTION", " WITH LOCAL CHECK OPTION")
	}
	b.ddl(text("CREATE") + check)
	b.change(text("CREATE OR REPLACE"), text("CREATE OR REPLACE"))
	b.s.relations = append(b.s.relations, v)
	switch {
	case !v.writable || check != "":
	case b.Percent(15):
		b.insteadTrigger(v)
	case b.Percent(15):
		v.ruled = true
		b.ddl(fill(`CREATE RULE {t}_update AS ON UPDATE TO {t} DO INSTEAD UPDATE {o} SET n = NEW.n WHERE {k} = OLD.{k}`, v, "{o}", t.name))
		b.ddl(fill(`CREATE RULE {t}_delete AS ON DELETE TO {t} DO INSTEAD DELETE FROM {o} WHERE {k} = OLD.{k}`, v, "{o}", t.name))
	}
}

// insteadTrigger makes writes through a view something of its own.
func (b *builder) insteadTrigger(v *relation) {
	v.ruled = true // no ON CONFLICT DO UPDATE, no MERGE before PostgreSQL 17
	body := `BEGIN
			IF TG_OP = 'DELETE' THEN UPDATE {o} SET n = -2 WHERE n = OLD.n; RETURN OLD; END IF;
			UPDATE {o} SET n = NEW.n WHERE n = NEW.n - 1;
			INSERT INTO log (tab, op) VALUES (TG_TABLE_NAME, TG_OP);
			RETURN NEW;
		END`
	b.ddl(fill("CREATE FUNCTION run_{t}() RETURNS trigger LANGUAGE plpgsql AS $$ "+body+" $$", v, "{o}", one(b.Gen, b.tables()...).name),
		fill("CREATE TRIGGER {t}_instead INSTEAD OF INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION run_{t}()", v))
}

func (b *builder) joinView(name string) {
	x, y := b.base(), b.base()
	v := &relation{name: name, kind: view}
	var list []string
	for _, side := range []struct {
		alias string
		r     *relation
	}{{"x", x}, {"y", y}} {
		for _, c := range some(b.Gen, 1, side.r.columns) {
			c.name = side.alias + "_" + c.name
			v.columns = append(v.columns, c)
			list = append(list, side.alias+"."+strings.TrimPrefix(c.name, side.alias+"_")+" AS "+c.name)
		}
	}
	v.columns = append(v.columns, column{name: "n", typ: integer})
	b.ddlf("CREATE VIEW %s AS SELECT %s, x.n + y.n AS n FROM %s x %s JOIN %s y ON %s", name, strings.Join(list, ", "), x.name,
		one(b.Gen, "", "LEFT", "FULL"), y.name, b.on("x", x, "y", y))
	b.s.relations = append(b.s.relations, v)
}

// on is a condition to join two relations by that is an equality.
func (g *Gen) on(x string, xr *relation, y string, yr *relation) string {
	type pair struct{ a, b string }
	var pairs, better []pair
	for _, c := range xr.columns {
		for _, d := range yr.columns {
			p := pair{x + "." + c.name, y + "." + d.name}
			switch {
			case c.refers == yr && c.name == yr.name+"_"+d.name, d.refers == xr && d.name == xr.name+"_"+c.name:
				better = append(better, p)
			case c.typ == d.typ && c.typ != jsonb || c.typ.Family == Number && d.typ.Family == Number:
				pairs = append(pairs, p)
			}
		}
	}
	if len(better) > 0 && g.Percent(80) {
		pairs = better
	}
	p := one(g, pairs...) // every relation has an n
	return p.a + " = " + p.b
}

func (b *builder) aggregateView(name string) {
	t := b.base()
	by := one(b.Gen, t.columns...)
	v := &relation{name: name, kind: view, columns: []column{{name: "g", typ: by.typ}, {name: "n", typ: integer}, {name: "high", typ: integer}}}
	having := one(b.Gen, "", " HAVING count(*) > 1")
	b.ddlf("CREATE VIEW %s AS SELECT %s AS g, count(*)::int AS n, max(n) AS high FROM %s GROUP BY %s%s", name, by.name, t.name, by.name, having)
	b.s.relations = append(b.s.relations, v)
}

func (b *builder) unionView(name string) {
	x, y := b.base(), b.base()
	v := &relation{name: name, kind: view, columns: []column{{name: "k", typ: text}, {name: "n", typ: integer}}}
	side := func(r *relation) string {
		return fmt.Sprintf("SELECT %s::text AS k, n FROM %s", r.primary()[0].name, r.name)
	}
	b.ddlf("CREATE VIEW %s AS %s %s %s", name, side(x), one(b.Gen, "UNION", "UNION ALL", "EXCEPT", "INTERSECT"), side(y))
	b.s.relations = append(b.s.relations, v)
}

func (b *builder) materialisedView(name string) {
	t := b.base()
	columns := t.primary()
	for r := t; r != nil; r = r.part {
		if r.kind == table && len(r.children) > 0 {
			return // the key does not hold across children
		}
	}
	v := &relation{name: name, kind: materialised, columns: append(columns, *t.column("n"))}
	for i := range columns {
		if v.keys == nil {
			v.keys = []key{{name: name + "_key"}}
		}
		v.keys[0].columns = append(v.keys[0].columns, i)
	}
	b.ddlf("CREATE MATERIALIZED VIEW %s AS SELECT %s FROM %s", name, names(v.columns), t.name)
	if t.kind == view && len(t.keys[0].columns) == 0 {
		v.keys = nil
	} else {
		b.ddlf("CREATE UNIQUE INDEX %s_key ON %s (%s)", name, name, names(columns))
	}
	b.s.relations = append(b.s.relations, v)
}

// writingView writes when it is read.
func (b *builder) writingView(name string) {
	f := b.callable(func(f function) bool {
		return f.kind == writer && len(f.params) == 1 && !f.set && f.name != "|+|" && !strings.HasPrefix(f.name, "all_")
	})
	if len(f) == 0 {
		return
	}
	b.ddlf("CREATE VIEW %s AS SELECT id, tab, %s(n)::text AS n FROM log WHERE n IS NOT NULL ORDER BY id LIMIT 3", name, one(b.Gen, f...).name)
	b.s.relations = append(b.s.relations, &relation{name: name, kind: view, writes: true, columns: []column{{name: "tab", typ: text}}})
}

// functionView calls a function for each row.
func (b *builder) functionView(name string) {
	t := b.base()
	f := one(b.Gen, b.callable(func(f function) bool { return f.kind == pure && f.params[0] == integer || f.kind == reader && !f.set })...)
	b.ddlf("CREATE VIEW %s AS SELECT n, %s(n) AS y FROM %s", name, f.name, t.name)
	b.s.relations = append(b.s.relations, &relation{name: name, kind: view, columns: []column{{name: "n", typ: integer}, {name: "y", typ: bigint}}})
}

// later lists DDL that statements may run once there is data.
func (b *builder) later() {
	for _, t := range b.tables() {
		at := func(template string) string { return fill(template, t, "{c}", one(b.Gen, t.columns...).name) }
		b.change(at("ALTER TABLE {t} ADD COLUMN IF NOT EXISTS added int DEFAULT 7"), at("ALTER TABLE {t} DROP COLUMN IF EXISTS added"))
		b.change(at("CREATE INDEX IF NOT EXISTS {t}_added ON {t} ({c})"), at("DROP INDEX IF EXISTS {t}_added"))
		b.change(at("ALTER TABLE {t} ALTER COLUMN n SET DEFAULT 1"), at("ALTER TABLE {t} ALTER COLUMN n SET DEFAULT 0"))
		if b.Percent(30) {
			b.change(at("ALTER TABLE {t} RENAME COLUMN n TO m"), at("ALTER TABLE {t} RENAME COLUMN m TO n"))
		}
		if b.Percent(30) {
			b.change(at("ALTER TABLE {t} RENAME TO {t}_away"), at("ALTER TABLE IF EXISTS {t}_away RENAME TO {t}"))
		}
		b.change(at("COMMENT ON TABLE {t} IS 'changed'"), at("ANALYZE {t}"))
		if t.column("touched") != nil {
			b.change(at("ALTER TABLE {t} ALTER COLUMN touched TYPE bigint"), at("ALTER TABLE {t} ALTER COLUMN touched TYPE int"))
		}
	}
	for _, r := range b.s.having(func(r *relation) bool { return r.kind == view }) {
		b.change(fill("ALTER VIEW {v} RENAME TO {v}_away", nil, "{v}", r.name), fill("ALTER VIEW IF EXISTS {v}_away RENAME TO {v}", nil, "{v}", r.name))
	}
	b.change("CREATE TABLE IF NOT EXISTS made AS SELECT n, tab FROM stat", "DROP TABLE IF EXISTS made")
	b.change("CREATE SCHEMA IF NOT EXISTS other", "DROP SCHEMA IF EXISTS other")
	b.change("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'odd'", "COMMENT ON TYPE mood IS 'odd'")
}
