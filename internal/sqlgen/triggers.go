package sqlgen

import (
	"fmt"
	"strings"
)

// Templates of triggers on a table {t}: {o} is a table made before it, {ref} the
// column of {t} that refers to {o}, {ok} what that refers to. A template that
// names what there is not is left out. Triggers write to tables made before
// theirs and to logs, and so never in circles. {events} are some of INSERT,
// UPDATE and DELETE.
var triggerTemplates = []weighted[string]{
	{4, "touch", `BEFORE UPDATE ON {t} FOR EACH ROW|
		BEGIN NEW.touched := coalesce(NEW.touched, 0) + 1; RETURN NEW; END`},
	{1, "touch when changed", `BEFORE UPDATE ON {t} FOR EACH ROW WHEN (OLD.n IS DISTINCT FROM NEW.n)|
		BEGIN IF NEW.touched IS NOT NULL THEN NEW.touched = 0; END IF; RETURN NEW; END`},
	{4, "audit", `AFTER {events} ON {t} FOR EACH ROW|
		BEGIN
			INSERT INTO log (tab, op, k) VALUES (TG_TABLE_NAME, TG_OP, coalesce(NEW.{k}, OLD.{k})::text);
			RETURN NULL;
		END`},
	{1, "audit if", `AFTER {events} ON {t} FOR EACH ROW|
		DECLARE what text;
		BEGIN
			IF TG_OP = 'DELETE' THEN what := OLD.{k}::text; ELSE what := NEW.{k}::text; END IF;
			IF what IS NOT NULL THEN INSERT INTO log (op, k) SELECT TG_OP, what; END IF;
			RETURN NULL;
		END`},
	{4, "counter", `AFTER {events} ON {t} FOR EACH ROW|
		BEGIN
			IF TG_OP <> 'INSERT' THEN UPDATE {o} SET n = n - 1 WHERE {ok} = OLD.{ref}; END IF;
			IF TG_OP <> 'DELETE' THEN UPDATE {o} SET n = n + 1 WHERE {ok} = NEW.{ref}; END IF;
			RETURN NULL;
		END`},
	{2, "counter of updates", `AFTER UPDATE OF n ON {t} FOR EACH ROW|
		BEGIN UPDATE {o} SET n = NEW.n WHERE {ok} = NEW.{ref}; RETURN NULL; END`},
	{3, "change the key", `BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW|
		BEGIN IF NEW.n > 3 THEN NEW.{k} := {first}; END IF; RETURN NEW; END`},
	{2, "dynamic", `AFTER INSERT OR UPDATE ON {t} FOR EACH ROW|
		BEGIN EXECUTE format('UPDATE %I SET n = n + 1 WHERE n = $1', '{o}') USING NEW.n; RETURN NEW; END`},
	{2, "dynamic log", `AFTER UPDATE OR DELETE ON {t} FOR EACH ROW|
		BEGIN EXECUTE 'INSERT INTO ' || 'log' || ' (tab) VALUES ($1)' USING TG_TABLE_NAME; RETURN NULL; END`},
	{2, "late", `CONSTRAINT AFTER INSERT OR UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW|
		BEGIN UPDATE {o} SET n = (n + 1) % 9; RETURN NULL; END`},
	{2, "late log", `CONSTRAINT AFTER DELETE OR UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW|
		BEGIN INSERT INTO log (tab, k) VALUES ('late', OLD.{k}::text); RETURN NULL; END`},
	{2, "statement", `AFTER {events} ON {t} FOR EACH STATEMENT|
		BEGIN UPDATE stat SET n = n + 1 WHERE tab = 'c'; RETURN NULL; END`},
	{2, "rows of a statement", `AFTER UPDATE ON {t} REFERENCING OLD TABLE AS was NEW TABLE AS will FOR EACH STATEMENT|
		BEGIN
			INSERT INTO log (tab, n) SELECT '{t}', count(*) FROM was;
			UPDATE {o} SET n = {o}.n + 1 WHERE EXISTS (SELECT FROM will WHERE will.n = {o}.n);
			RETURN NULL;
		END`},
	{1, "truncate", `AFTER TRUNCATE ON {t} FOR EACH STATEMENT|
		BEGIN DELETE FROM log; RETURN NULL; END`},
	{1, "no rows", `BEFORE UPDATE OR DELETE ON {t} FOR EACH ROW|
		BEGIN IF OLD.n = 5 THEN RETURN NULL; ELSIF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END`},
	{1, "look up", `BEFORE INSERT ON {t} FOR EACH ROW|
		BEGIN SELECT max(n) + 1 INTO NEW.n FROM {o} WHERE n < 20; NEW.n := coalesce(NEW.n, 1); RETURN NEW; END`},
	{1, "called", `AFTER DELETE ON {t} FOR EACH ROW|
		BEGIN PERFORM {writer}(OLD.n); RETURN OLD; END`},
}

// triggers gives tables triggers.
func (b *builder) triggers() {
	for _, t := range b.s.having(func(r *relation) bool { return r.writable && !r.log && (r.kind < view) }) {
		chance := 60
		if t.parent != nil {
			chance = 15
		}
		for i := 0; i < 3 && b.Percent(chance); i++ {
			w := choose(b.Gen, triggerTemplates)
			b.trigger(t, fmt.Sprintf("%s_%c", t.name, 'p'+i), w.make)
		}
	}
}

func (b *builder) trigger(t *relation, name, template string) {
	pairs := []string{"{first}", t.primary()[0].typ.Values[0].Literals[0],
		"{events}", strings.Join(some(b.Gen, 1, []string{"INSERT", "UPDATE", "DELETE"}), " OR ")}
	if before := b.before(t); len(before) > 0 {
		pairs = append(pairs, "{o}", one(b.Gen, before...).name)
	}
	for _, c := range t.columns {
		if c.refers == nil || c.refers == t || t.parent != nil {
			continue
		}
		to := c.refers
		pairs = append([]string{"{ref}", c.name, "{ok}", strings.TrimPrefix(c.name, to.name+"_"), "{o}", to.name}, pairs...)
		break
	}
	if called := b.callable(func(f function) bool {
		return f.kind == writer && len(f.params) == 1 && !f.set && len(b.before(t)) > 0 && f.touches == b.before(t)[0]
	}); len(called) > 0 && !strings.ContainsAny(called[0].name, "|") && !strings.HasPrefix(called[0].name, "all_") {
		pairs = append(pairs, "{writer}", called[0].name)
	}
	text := fill(template, t, pairs...)
	if strings.Contains(text, "{") || strings.Contains(text, ".touched") && t.column("touched") == nil ||
		strings.Contains(text, "OF twice") && t.column("twice") == nil {
		return
	}
	when, body, _ := strings.Cut(text, "|")
	constraint := ""
	if rest, ok := strings.CutPrefix(when, "CONSTRAINT "); ok {
		constraint, when = "CONSTRAINT ", rest
	}
	b.ddlf("CREATE FUNCTION run_%s() RETURNS trigger LANGUAGE plpgsql AS $$ %s $$", name, strings.TrimSpace(body))
	create := fmt.Sprintf("TRIGGER %s %s EXECUTE FUNCTION run_%s()", name, when, name)
	drop := fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", name, t.name)
	if b.Percent(70) {
		b.ddl("CREATE " + constraint + create)
		b.change(drop, "CREATE "+constraint+create)
		b.change(fmt.Sprintf("ALTER TABLE %s DISABLE TRIGGER %s", t.name, name), fmt.Sprintf("ALTER TABLE %s ENABLE TRIGGER %s", t.name, name))
	} else {
		b.change("CREATE "+constraint+create, drop)
	}
}

// rules gives some tables rules.
func (b *builder) rules() {
	for _, t := range b.tables() {
		if !b.Percent(12) || len(t.children) > 0 {
			continue
		}
		t.ruled = true
		b.ddl(fill(one(b.Gen,
			`CREATE RULE {t}_also AS ON INSERT TO {t} DO ALSO INSERT INTO log (tab, op) VALUES ('{t}', 'rule')`,
			`CREATE RULE {t}_also AS ON UPDATE TO {t} DO ALSO UPDATE stat SET n = n + 1 WHERE tab = 'a'`,
			`CREATE RULE {t}_soft AS ON DELETE TO {t} DO INSTEAD UPDATE {t} SET n = -1 WHERE {k} = OLD.{k}`,
			`CREATE RULE {t}_some AS ON UPDATE TO {t} WHERE NEW.n = 3 DO INSTEAD INSERT INTO log (tab, n) VALUES ('{t}', OLD.n)`,
			`CREATE RULE {t}_none AS ON DELETE TO {t} WHERE OLD.n = 2 DO INSTEAD NOTHING`,
		), t))
	}
}
