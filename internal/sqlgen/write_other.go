package sqlgen

import (
	"fmt"
	"strings"
)

// cte is a statement with data-modifying CTEs.
func (w *write) cte() string {
	r, to := w.plainTarget(), w.plainTarget()
	s := source{r.name, r}
	w.Rows = true
	n := "1"
	if r.column("n") != nil {
		n = r.name + ".n"
	}
	first := ""
	if w.Percent(50) {
		first = fmt.Sprintf("DELETE FROM %s WHERE %s RETURNING %s AS n", r.name, w.keyCondition(s), n)
	} else {
		first = fmt.Sprintf("UPDATE %s SET %s WHERE %s RETURNING %s AS n", r.name, w.set("", r), w.keyCondition(s), n)
	}
	switch {
	case w.Percent(30):
		return fmt.Sprintf("WITH a AS (%s) INSERT INTO log (tab, n) SELECT 'cte', n FROM a RETURNING id", first)
	case w.Percent(30) && to.column("n") != nil && to != r:
		return fmt.Sprintf("WITH a AS (%s), b AS (UPDATE %s SET n = n + 1 WHERE %s RETURNING 1) SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)",
			first, to.name, w.keyCondition(source{to.name, to}))
	}
	return fmt.Sprintf("WITH a AS (%s) SELECT count(*), max(n) FROM a", first)
}

func (w *write) truncate() string {
	r := one(w.Gen, w.s.having(func(r *relation) bool { return r.kind < view })...)
	switch w.Below(4) {
	case 0:
		return "TRUNCATE log RESTART IDENTITY"
	case 1:
		return "TRUNCATE " + r.name
	case 2:
		return "TRUNCATE ONLY " + r.name + " CASCADE"
	}
	return "TRUNCATE " + r.name + " CASCADE"
}

// call calls a function or procedure that writes.
func (w *write) call() string {
	var writers []function
	for _, f := range w.s.functions {
		if f.kind >= writer {
			writers = append(writers, f)
		}
	}
	if writing := w.s.having(func(r *relation) bool { return r.writes }); len(writing) > 0 && w.Percent(20) {
		w.Rows = true
		return "SELECT * FROM " + writing[0].name
	}
	if len(writers) == 0 {
		w.Rows = true
		return "SELECT nextval('numbers')"
	}
	f := one(w.Gen, writers...)
	if f.name == "|+|" {
		w.Rows = true
		return "SELECT n |+| " + w.number() + " FROM stat"
	}
	values := make([]string, len(f.params))
	for i, t := range f.params {
		values[i] = w.value(t)
		if !strings.Contains(values[i], "::") {
			values[i] += "::" + bare(t)
		}
	}
	list := strings.Join(values, ", ")
	switch {
	case f.kind == committer:
		w.Alone = true
		fallthrough
	case f.kind == procedure:
		return "CALL " + f.name + "(" + list + ")"
	}
	w.Rows = true
	switch {
	case f.set:
		return "SELECT * FROM " + f.name + "(" + list + ") s"
	case w.Percent(20):
		return "SELECT * FROM stat WHERE " + f.name + "(" + list + ") IS NOT NULL"
	case w.Percent(10):
		return "WITH a AS (SELECT " + f.name + "(" + list + ") AS v) SELECT v::text FROM a"
	}
	return "SELECT " + f.name + "(" + list + ")"
}

func (w *write) do() string {
	w.literal = true
	inner := one(w.Gen, w.updateByKey, w.deleteByKey, w.insert)
	text := inner()
	w.Rows = false
	text, _, _ = strings.Cut(text, " RETURNING ")
	text = strings.ReplaceAll(text, "$q$", "$z$")
	switch w.Below(4) {
	case 0:
		return "DO $do$ BEGIN " + text + "; UPDATE stat SET n = n + 1 WHERE tab = 'b'; END $do$"
	case 1:
		return "DO $do$ BEGIN EXECUTE $x$ " + text + " $x$; END $do$"
	case 2:
		return "DO $do$ BEGIN IF EXISTS (SELECT FROM log WHERE n = 1) THEN " + text + "; ELSE DELETE FROM log WHERE n = 3; END IF; END $do$"
	}
	return "DO $do$ BEGIN " + text + "; EXCEPTION WHEN OTHERS THEN INSERT INTO log (tab) VALUES ('failed'); END $do$"
}

// copyFrom copies rows in, of types that pgx can encode without being told.
func (w *write) copyFrom() string {
	r := one(w.Gen, w.s.having(func(r *relation) bool { return r.writable && r.kind < view })...)
	c := &Copy{Table: r.name}
	columns := w.named(r)
	for _, col := range columns {
		c.Columns = append(c.Columns, col.name)
	}
	for range 1 + w.Below(2) {
		row := make([]any, len(columns))
		for i, col := range columns {
			n := w.Below(domain)
			switch {
			case col.refers != nil:
				n = w.Below(begin)
			case col.name == "id" || col.name == "code":
				n = begin + w.Below(domain-1-begin)
			}
			if row[i] = col.typ.Values[n].Args[0]; !col.notNull && w.Percent(20) {
				row[i] = nil
			}
		}
		c.Rows = append(c.Rows, row)
	}
	w.Copy = c
	return ""
}

// ddl changes the schema, and mostly changes it back soon after.
func (w *write) ddl() string {
	w.literal, w.Schema = true, true
	c := one(w.Gen, w.s.changes...)
	if w.Percent(40) { // what took it back before may have been rolled back
		return c.undo
	}
	if w.Percent(90) && len(w.undo) < 5 {
		w.undo = append(w.undo, c.undo)
	}
	return c.do
}

func (w *write) refresh() string {
	all := w.s.having(func(r *relation) bool { return r.kind == materialised })
	if len(all) == 0 {
		return w.updateByKey()
	}
	return "REFRESH MATERIALIZED VIEW " + one(w.Gen, "", "", "CONCURRENTLY ") + one(w.Gen, all...).name
}

// several is one text with two statements.
func (w *write) several() string {
	w.literal = true
	text := one(w.Gen, w.updateByKey, w.deleteByKey, w.insert)() + "; " + one(w.Gen, w.updateByKey, w.updateWhere, w.insert)()
	w.Rows = false
	return text
}

// other is what is rare, or only touches the session: tables of its own that
// hide others, settings, statements prepared in SQL, cursors, locks.
func (w *write) other() string {
	r := w.target()
	w.Rows = w.Percent(50)
	return one(w.Gen,
		"SELECT nextval('numbers')",
		"SELECT setval('numbers', 200)",
		fmt.Sprintf("SELECT * FROM %s FOR UPDATE SKIP LOCKED", r.name),
		fmt.Sprintf("EXPLAIN ANALYZE UPDATE %s SET %s", r.name, w.constant(r)),
		fmt.Sprintf("EXPLAIN DELETE FROM %s", r.name),
		fmt.Sprintf("LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE", r.name),
		"SET CONSTRAINTS ALL DEFERRED",
		"SET CONSTRAINTS ALL IMMEDIATE",
		"SELECT set_config('application_name', 'changed', true)",
		"NOTIFY something",
		fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM %s FOR SHARE) x", r.name),
		"SELECT pg_catalog.pg_advisory_xact_lock(1)",
		"CREATE TEMP TABLE stat AS SELECT tab, n + 100 AS n FROM public.stat",
		"CREATE TEMP TABLE IF NOT EXISTS log (LIKE public.log INCLUDING ALL) ON COMMIT DROP",
		"DROP TABLE IF EXISTS pg_temp.stat",
		"DISCARD TEMP",
		"CREATE TABLE IF NOT EXISTS other.stat (LIKE public.stat INCLUDING ALL)",
		"SET LOCAL search_path = other, public",
		"SET LOCAL TimeZone = 'Asia/Tokyo'",
		"SET LOCAL DateStyle = 'German'",
		"SET TimeZone = 'Europe/Oslo'",
		"RESET TimeZone",
		"RESET ALL",
		fmt.Sprintf("PREPARE ready AS UPDATE %s SET %s", r.name, w.constant(r)),
		"EXECUTE ready",
		"EXECUTE ready",
		"DEALLOCATE ready",
		fmt.Sprintf("SELECT * INTO made FROM %s", r.name),
		fmt.Sprintf("DECLARE held CURSOR WITH HOLD FOR SELECT * FROM %s", r.name),
		"FETCH 2 FROM held",
		"CLOSE held",
	)
}

// constant assigns something without arguments.
func (w *write) constant(r *relation) string {
	if r.column("n") != nil {
		return "n = n + 1"
	}
	return r.columns[0].name + " = " + r.columns[0].name
}
