package sqlgen

import "strings"

// function is a function or procedure that statements may call.
type function struct {
	name   string
	params []*Type
	kind   functionKind
	set    bool // returns rows

	touches *relation // what a writer writes to
}

type functionKind byte

const (
	pure      functionKind = iota // immutable
	reader                        // stable: reads tables
	writer                        // writes tables
	procedure                     // writes tables
	committer                     // a procedure that commits in its middle
)

// fill puts names into a template: {t} a table, {k} the first column of its
// key, {K} the type of that, {q} the condition that the key has the value of k
// and, for a key of two columns, any part.
func fill(template string, t *relation, more ...string) string {
	pairs := append([]string{}, more...)
	if t != nil {
		id := t.primary()[0]
		pairs = append(pairs, "{t}", t.name, "{k}", id.name, "{K}", bare(id.typ))
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// bare is the name of a type without its modifier, as parameters have it.
func bare(t *Type) string {
	name, _, _ := strings.Cut(t.SQL, "(")
	return name
}

// templates of functions that read or write a table {t}: {f} is their own name.
var functionTemplates = []weighted[functionTemplate]{
	{3, "bump", functionTemplate{writer, "k n", `CREATE FUNCTION {f}(k {K}, v int) RETURNS int LANGUAGE sql AS
		$$ UPDATE {t} SET n = n + v WHERE {k} = k RETURNING n $$`}},
	{3, "put", functionTemplate{writer, "k n", `CREATE FUNCTION {f}(wanted {K}, v int) RETURNS int LANGUAGE plpgsql AS $$
		DECLARE got int;
		BEGIN
			UPDATE {t} SET n = v WHERE {k} = wanted RETURNING n INTO got;
			IF NOT FOUND THEN
				INSERT INTO log (tab, op, k) VALUES ('{t}', 'none', wanted::text);
			END IF;
			RETURN got;
		END $$`}},
	{2, "sweep", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS int LANGUAGE plpgsql AS $$
		DECLARE r record; done int := 0;
		BEGIN
			FOR r IN SELECT {k} AS id FROM {t} WHERE n < v ORDER BY 1 LIMIT 3 LOOP
				UPDATE {t} SET n = n + 1 WHERE {k} = r.id;
				done := done + 1;
			END LOOP;
			RETURN done;
		END $$`}},
	{2, "try", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE {t} SET n = n + 1 WHERE n = v;
			PERFORM 1 / (v - 3);
			RETURN true;
		EXCEPTION WHEN division_by_zero THEN
			DELETE FROM log WHERE n = v;
			RETURN false;
		END $$`}},
	{2, "dynamic", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			EXECUTE format('UPDATE %I SET n = $1 WHERE n < $1', '{t}') USING v;
		END $$`}},
	{2, "rows", functionTemplate{writer, "n rows", `CREATE FUNCTION {f}(v int) RETURNS SETOF {t} LANGUAGE sql AS
		$$ UPDATE {t} SET n = n + 1 WHERE n = v RETURNING * $$`}},
	{2, "atomic", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS void LANGUAGE sql
		BEGIN ATOMIC
			DELETE FROM log WHERE n = v;
			UPDATE {t} SET n = v WHERE n = v + 1;
		END`}},
	{1, "chosen", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int, what text DEFAULT 'log') RETURNS void LANGUAGE plpgsql SET search_path = public AS $$
		BEGIN
			CASE what WHEN 'log' THEN INSERT INTO log (tab, n) VALUES ('{t}', v); ELSE DELETE FROM {t} WHERE n = v; END CASE;
		END $$`}},
	{1, "cursor", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE c CURSOR FOR SELECT n FROM {t} WHERE n = v FOR UPDATE; got int;
		BEGIN
			OPEN c;
			FETCH c INTO got;
			WHILE FOUND LOOP
				UPDATE {t} SET n = n + 1 WHERE CURRENT OF c;
				FETCH c INTO got;
			END LOOP;
			CLOSE c;
		END $$`}},
	{1, "quiet", functionTemplate{writer, "n", `CREATE FUNCTION {f}(v int) RETURNS int LANGUAGE sql SECURITY DEFINER AS
		$$ WITH gone AS (DELETE FROM {t} WHERE n = v RETURNING 1) SELECT count(*)::int FROM gone $$`}},
	{3, "count", functionTemplate{reader, "n", `CREATE FUNCTION {f}(v int) RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT count(*) FROM {t} WHERE n = v $$`}},
	{1, "list", functionTemplate{reader, "n rows", `CREATE FUNCTION {f}(v int) RETURNS TABLE (one int) STABLE LANGUAGE plpgsql AS $$
		BEGIN RETURN QUERY SELECT n FROM {t} WHERE n < v ORDER BY n; END $$`}},
	{2, "save", functionTemplate{procedure, "k n", `CREATE PROCEDURE {f}(wanted {K}, v int) LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE {t} SET n = v WHERE {k} = wanted;
			INSERT INTO log (tab, op, n) VALUES ('{t}', 'save', v);
		END $$`}},
	{1, "drop", functionTemplate{procedure, "n", `CREATE PROCEDURE {f}(v int) LANGUAGE sql AS $$ DELETE FROM {t} WHERE n = v; UPDATE stat SET n = n + 1 WHERE tab = 'a' $$`}},
	{1, "steps", functionTemplate{committer, "n", `CREATE PROCEDURE {f}(v int) LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE {t} SET n = n + 1 WHERE n = v;
			COMMIT;
			DELETE FROM log WHERE n = v;
			IF v > 8 THEN ROLLBACK; END IF;
			UPDATE stat SET n = v WHERE tab = 'b';
		END $$`}},
}

type functionTemplate struct {
	kind functionKind
	like string // its parameters, k and n; and rows if it returns any
	text string
}

// code makes functions and procedures.
func (b *builder) code() {
	b.ddl(`CREATE FUNCTION doubled(v int) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT v * 2 $$`,
		`CREATE FUNCTION loud(s text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN upper(s) || '!'; END $$`)
	b.s.functions = append(b.s.functions, function{name: "doubled", params: []*Type{integer}}, function{name: "loud", params: []*Type{text}})
	for range 1 + b.Below(5) {
		w := choose(b.Gen, functionTemplates)
		b.function(one(b.Gen, b.tables()...), w.name, w.make)
	}
	writers := b.callable(func(f function) bool { return f.kind == writer && len(f.params) == 1 && !f.set })
	if len(writers) == 0 {
		return
	}
	f := one(b.Gen, writers...)
	if b.Percent(30) { // the same name, told apart by the type of its argument
		b.ddlf(`CREATE FUNCTION %s(s text) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT length(s) $$`, f.name)
	}
	if b.Percent(30) {
		b.ddlf(`CREATE FUNCTION outer_%s(v int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM %s(v + 1); RETURN 'done'; END $$`, f.name, f.name)
		b.s.functions = append(b.s.functions, function{name: "outer_" + f.name, params: f.params, kind: writer, touches: f.touches})
	}
	if b.Percent(20) { // stable only by its name: PostgreSQL lets it call what writes
		b.ddlf(`CREATE FUNCTION steady_%s(v int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM %s(v); RETURN v; END $$`, f.name, f.name)
		b.s.functions = append(b.s.functions, function{name: "steady_" + f.name, params: f.params, kind: writer, touches: f.touches})
	}
	if b.Percent(20) {
		b.ddlf(`CREATE FUNCTION summing_%s(sum int, v int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM %s(v); RETURN sum + 1; END $$`, f.name, f.name)
		b.ddlf(`CREATE AGGREGATE all_%s(int) (SFUNC = summing_%s, STYPE = int, INITCOND = '0')`, f.name, f.name)
		b.s.functions = append(b.s.functions, function{name: "all_" + f.name, params: f.params, kind: writer, touches: f.touches})
	}
	if b.Percent(20) {
		b.ddlf(`CREATE FUNCTION operated_%s(a int, b int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM %s(a); RETURN b; END $$`, f.name, f.name)
		b.ddlf(`CREATE OPERATOR |+| (LEFTARG = int, RIGHTARG = int, FUNCTION = operated_%s)`, f.name)
		b.s.functions = append(b.s.functions, function{name: "|+|", params: []*Type{integer, integer}, kind: writer, touches: f.touches})
	}
}

func (b *builder) callable(f func(function) bool) (found []function) {
	for _, c := range b.s.functions {
		if f(c) {
			found = append(found, c)
		}
	}
	return found
}

func (b *builder) function(t *relation, name string, f functionTemplate) {
	name += "_" + t.name
	for _, known := range b.s.functions {
		if known.name == name {
			return
		}
	}
	made := function{name: name, kind: f.kind, touches: t, set: strings.Contains(f.like, "rows")}
	for _, p := range strings.Fields(f.like) {
		switch p {
		case "k":
			made.params = append(made.params, t.primary()[0].typ)
		case "n":
			made.params = append(made.params, integer)
		}
	}
	b.ddl(fill(f.text, t, "{f}", name))
	b.s.functions = append(b.s.functions, made)
	if f.kind == writer && len(made.params) == 1 && !made.set && b.Percent(50) && strings.Contains(f.text, "RETURNS int") {
		// The same name may do something else one day.
		other := one(b.Gen, b.tables()...)
		b.change(fill(`CREATE OR REPLACE FUNCTION {f}(v int) RETURNS int LANGUAGE sql AS $$ UPDATE {t} SET n = 1 WHERE n = v RETURNING n $$`, other, "{f}", name),
			fill(f.text, t, "{f}", name, "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
	}
}
