package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Code of the schema's own (triggers, functions, procedures) may write what no
// statement names. Where its text is SQL or PL/pgSQL and makes no further texts
// itself, it is read, and its statements count like the program's. Everything
// else is left to PostgreSQL: before COMMIT the transaction is asked what it wrote
// (Plan.Asks). What not even the transaction knows, because a function may open a
// connection of its own, makes the plan Opaque.

// bodies remembers what texts say, up to about 8 MiB of texts and facts. It depends on
// nothing but the text.
var bodies = clock.New[string, *parser.Body](8 << 20)

// ask: the text runs code that is not understood.
func (a *analysis) ask() {
	a.plan.Commits = a.plan.Commits || a.calling
	a.askOf()
}

// askOf is ask for what is understood, but for what a name in it means.
func (a *analysis) askOf() {
	p := a.plan
	p.Writes, p.Asks = true, true
	if a.snapshot.Outward() {
		p.opaqueCode()
	}
}

// pathSettings decide what the names in a text mean.
var pathSettings = set("search_path role session_authorization standard_conforming_strings session_replication_role")

// astray: names in what follows may mean something else than the plan takes them for.
func (a *analysis) astray() {
	a.strayed = true
	if a.inside {
		a.ask()
	}
}

// runsCode: a statement that may run code, or write.
func runsCode(s *parser.Statement) bool {
	return len(s.Writes) > 0 || len(s.Reads) > 0 || len(s.Functions) > 0 || s.Kind == parser.Do || s.Kind == parser.Execute
}

// code takes the code that runs on commands on a relation. columns are those that
// an UPDATE assigns, nil when they are not known; rows are those for each of which a
// trigger may run, nil for any.
func (a *analysis) code(rel *catalog.Relation, ops catalog.Commands, columns []string, rows *written) {
	for _, c := range rel.Code {
		on := c.On & ops
		if on == 0 || on == catalog.OnUpdate && len(c.Columns) > 0 && !assigns(rel, columns, c.Columns) {
			continue
		}
		if c.Function == 0 {
			a.ask() // a rule
			continue
		}
		var from *firing
		if rows != nil && c.Trigger && a.firings < maxFirings {
			from = &firing{written: rows, before: c.Row}
		}
		if c.Deferrable {
			a.loosely(func() { a.callFor(c.Function, from) }) // until COMMIT the path may be set anew
		} else {
			a.callFor(c.Function, from)
		}
	}
}

// loosely calls f for code that runs as another role, or at another time: "$user"
// in the search_path, and schemas that a role may not use, make its path another
// one than the session's. Then a call may mean a function of any schema, and a table
// must be the only one of its name.
func (a *analysis) loosely(f func()) {
	path, loose := a.path, a.loose
	a.path, a.loose = catalog.AnySchema, true
	f()
	a.path, a.loose = path, loose
}

// alters returns the columns that triggers may give other values than an
// INSERT or UPDATE does, before the row is written; all if they are not known.
func (a *analysis) alters(rel *catalog.Relation, ops catalog.Commands) (columns []string, all bool) {
	for _, c := range rel.Code {
		if !c.Row || c.On&ops == 0 || c.Function < firstUserOID {
			continue
		}
		f, ok := a.snapshot.Function(c.Function)
		if !ok {
			return nil, true
		}
		body := bodyOf(f)
		if body == nil || body.Dynamic || body.AssignsAll || body.ReturnsOld && c.On&ops&catalog.OnUpdate != 0 {
			return nil, true
		}
		columns = append(columns, body.Assigns...)
	}
	return columns, false
}

// callAll calls the functions that may write of a type, an operator or a cast.
func (a *analysis) callAll(functions []uint32) {
	for _, f := range functions {
		a.call(f)
	}
}

// maxFirings bounds triggers and foreign keys that run each other, of which the rows are known.
const maxFirings = 2

func (a *analysis) call(function uint32) { a.callFor(function, nil) }

// callFor takes what a function does, as far as it may write. Its path is the one
// around it, unless it sets its own. from are the rows for which it runs, if it is a
// trigger's.
func (a *analysis) callFor(function uint32, from *firing) {
	f, ok := a.snapshot.Function(function)
	switch {
	case !ok && function < firstUserOID:
		return // PostgreSQL's own functions for triggers change nothing but the row, and no key
	case !ok:
		a.plan.Unknown = true
		a.ask()
		return
	case len(f.Writers) == 0:
		return
	}
	if f.Definer && !f.SetsPath && !a.loose {
		a.loosely(func() { a.callFor(function, from) })
		return
	}
	path, ok := a.pathOf(f)
	key := running{function: function, path: strings.Join(path, "\x00")}
	if from != nil {
		key.rows = from.written
	}
	if a.ran[key] {
		return
	}
	a.ran[key] = true
	body := bodyOf(f)
	if !ok || body == nil {
		a.ask()
		return
	}
	a.plan.Commits = a.plan.Commits || f.Procedure && body.Ends
	for _, other := range f.Writers { // called by the defaults of its arguments
		if other != function {
			a.call(other)
		}
	}
	names := path
	if f.Deparsed {
		names = viewPath
	}
	loose := a.loose
	a.loose = a.loose || f.SetsPath
	if from != nil {
		from.except, from.exceptAll = body.Assigns, body.AssignsAll
		a.firings++
	}
	a.firing, from = from, a.firing
	a.body(body, path, names)
	a.firing, from = from, a.firing
	if from != nil {
		a.firings--
	}
	a.loose = loose
}

// running is a function, the search_path that it runs with, and the rows that it runs for.
type running struct {
	function uint32
	path     string
	rows     *written
}

// firstUserOID is the first that PostgreSQL gives to objects made after initdb.
const firstUserOID = 16384

// body takes the statements of a function, of whose operands nothing is known. What
// they call runs with path; they themselves are in the words of names.
func (a *analysis) body(body *parser.Body, path, names []string) {
	if body.Dynamic {
		a.ask()
	}
	inside, around, unknown := a.inside, a.path, a.plan.Unknown
	a.inside, a.path, a.userCode = true, path, true
	for _, s := range body.Statements {
		a.statement(s, names)
	}
	a.anyTypes() // of its variables, and how they are cast
	a.inside, a.path = inside, around
	a.plan.Unknown = unknown // what it has not found is asked for, or no table: a transition table
}

// bodyOf returns what the function's text says, nil if it is not understood.
func bodyOf(f catalog.Function) *parser.Body {
	if f.Source == "" {
		return nil
	}
	key := f.Language + "\x00" + f.Source
	if body, ok := bodies.Get(key); ok {
		return body
	}
	body, err := parser.ParseBody(f.Language, f.Source)
	if err != nil {
		body = nil
	}
	return bodies.Add(key, body, int64(1<<10+8*len(key)))
}

// pathOf returns the effective search_path of a function; false if it depends
// on more than is known.
func (a *analysis) pathOf(f catalog.Function) (path []string, ok bool) {
	if !f.SetsPath {
		return a.path, true
	}
	var temporary []string
	for _, schema := range a.path {
		if strings.HasPrefix(schema, "pg_temp_") {
			temporary = append(temporary, schema)
		}
	}
	for _, name := range strings.Split(f.SearchPath, ",") {
		name = strings.TrimSpace(name)
		quoted := len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"'
		if quoted {
			name = name[1 : len(name)-1]
		} else {
			name = strings.ToLower(name)
		}
		switch {
		case name == "$user" || strings.ContainsAny(name, `"`):
			return a.path, false
		case name == "pg_temp":
			path = append(path, temporary...)
			temporary = nil
		case name != "":
			path = append(path, name)
		}
	}
	if !slices.Contains(path, "pg_catalog") {
		path = append([]string{"pg_catalog"}, path...)
	}
	return append(temporary, path...), true
}

// WrittenTags appends the tags of everything about relations: those that a
// transaction with a plan that Asks has written, as PostgreSQL told. False means
// that one of them is not in the snapshot, or is a foreign table, which may be
// any other: then everything is to be invalidated.
func WrittenTags(dst []store.Tag, relations []uint32, snapshot *catalog.Snapshot) ([]store.Tag, bool) {
	from := len(dst)
	for _, oid := range relations {
		for _, oid := range append(snapshot.Ancestors(oid), oid) {
			rel := snapshot.ByOID(oid)
			if rel == nil || rel.System || rel.Kind == 'f' {
				return dst, false
			}
			dst = addTag(dst, from, store.Tag{Relation: oid, Kind: store.TagTable})
			if len(rel.References) > 0 {
				dst = addTag(dst, from, store.Tag{Relation: oid, Kind: store.TagChanged})
			}
			for _, k := range trackedOf(rel) {
				dst = addTag(dst, from, k.any(rel))
			}
			dst = inEveryPart(dst, from, rel)
		}
	}
	return dst, true
}
