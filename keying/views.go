package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// viewPath resolves the names in a view's definition, which are qualified
// unless they are in pg_catalog.
var viewPath = []string{"pg_catalog"}

// maxViewDepth bounds views that stand on views. PostgreSQL has no cycles, but
// definitions read while they change may.
const maxViewDepth = 16

// view is what the definition of a view says.
type view struct {
	statement *parser.Statement // nil if it is not understood

	// base tells of each column of the view which column of which relation of
	// the statement it is; nil where that is sure of none.
	base []baseColumn
}

// baseColumn is a column of statement.Reads[read]; read is -1 if it is anything else.
type baseColumn struct {
	read int
	name string
}

// view takes a view apart that is read.
func (a *analysis) view(rel *catalog.Relation, name string) {
	ran := running{function: rel.OID, path: "view\x00" + strings.Join(a.path, "\x00")}
	if v := a.views[rel.OID]; v != nil {
		if v.statement != nil && !a.ran[ran] && a.depth < maxViewDepth { // what it calls may mean something else now
			a.ran[ran] = true
			a.depth++
			a.statement(v.statement, viewPath)
			a.depth--
		}
		return
	}
	a.ran[ran] = true
	v := &view{}
	a.views[rel.OID] = v
	s, scanned := a.definition(rel)
	if s == nil || a.depth == maxViewDepth {
		a.plan.deny(UnreadableView, name)
		a.plan.Unknown = a.plan.Unknown || s == nil
		a.ask() // it may call functions that write
		return
	}
	v.statement, v.base = s, a.baseColumns(rel, s)
	for _, l := range scanned.Literals {
		if l.Kind == parser.String && clockInput(l.Text) {
			a.plan.deny(ClockInput, name)
		}
	}
	a.depth++
	a.statement(s, viewPath)
	a.depth--
	a.clockCasts(s, viewPath, name)
}

// depend finds what the answer of a query depends on. conditions are, of each of
// its relations, what holds for every row that has a part in the answer, with
// operands of the program's text.
//
// A condition on a column of a view is one on the column that it stands for:
// parser.Output says when it may as well be asked there. And a row of the
// view proves rows of what is below, as a row of the answer proves one of the
// view (proves). So the view may be forgotten: what is known of its rows is
// known of the rows of its relations, and so on down to the tables.
//
// Conditions in the view's own text are not used: their literals are not the
// program's. They may hide a row from the answer; one without rows depends on
// the whole table anyway.
func (a *analysis) depend(s *parser.Statement, path []string, conditions [][]parser.Equality) {
	p := a.plan
	proves := a.proves(s, path)
	conditions = a.carry(s, path, conditions)
	a.unordered = a.unordered || !a.oneRow(s, path, conditions)
	a.single = a.single && proves && s.Single && !a.calls(s, path, func(f catalog.Function) bool { return f.SetReturning })
	for i, r := range s.Reads {
		rel := a.snapshot.Resolve(path, r.Schema, r.Name.Name)
		if rel.System {
			continue // nobody hears of its changes
		}
		if rel.Kind == 'v' {
			a.dependView(rel, conditions[i], proves && !r.Nested)
		} else if l, ok := a.lookup(rel, conditions[i], proves && !r.Nested); ok && len(p.lookups) < maxLookups {
			l.part = a.unused(s, r, rel)
			p.lookups = append(p.lookups, l)
		} else {
			t := store.Tag{Relation: rel.OID, Kind: store.TagTable, Part: a.unused(s, r, rel)}
			if a.referenced(s, path, i, rel) {
				t.Kind = store.TagChanged
			}
			a.tables = append(a.tables, t)
		}
	}
}

func (a *analysis) dependView(rel *catalog.Relation, equal []parser.Equality, proves bool) {
	v := a.views[rel.OID]
	below := make([][]parser.Equality, len(v.statement.Reads))
	some := false
	for _, e := range equal {
		if b, ok := v.find(rel, e.Column); ok {
			e.Column, e.Optional, some = b.name, e.Optional || !proves, true
			below[b.read] = append(below[b.read], e)
		}
	}
	if !some {
		if a.whole[rel.OID] {
			return
		}
		a.whole[rel.OID] = true
	}
	a.depend(v.statement, viewPath, below)
}

// baseColumns finds the columns of a view in its definition. PostgreSQL writes
// one for each column, under the names that they have in the view; a definition
// that does not look so was read while it changed.
func (a *analysis) baseColumns(rel *catalog.Relation, s *parser.Statement) []baseColumn {
	if len(s.Outputs) != len(rel.Columns) || !a.proves(s, viewPath) {
		return nil
	}
	base := make([]baseColumn, len(s.Outputs))
	for i, o := range s.Outputs {
		c := rel.Columns[i]
		if o.Name != c.Name {
			return nil
		}
		base[i].read = -1
		if o.Read == 0 {
			continue
		}
		from := s.Reads[o.Read-1]
		for _, b := range a.snapshot.Resolve(viewPath, from.Schema, from.Name.Name).Columns {
			if b.Name == o.Column && b.Type == c.Type && b.Deterministic == c.Deterministic {
				base[i] = baseColumn{o.Read - 1, b.Name}
			}
		}
	}
	return base
}

// find returns what a column of the view is.
func (v *view) find(rel *catalog.Relation, column string) (baseColumn, bool) {
	for i, b := range v.base {
		if rel.Columns[i].Name == column && b.read >= 0 {
			return b, true
		}
	}
	return baseColumn{}, false
}

// proves reports whether a row of the query's answer proves that its relations
// had rows: no aggregate made it of nothing.
func (a *analysis) proves(s *parser.Statement, path []string) bool {
	if !s.Plain {
		return false
	}
	isAggregate := func(f catalog.Function) bool { return f.Aggregate }
	return !a.callsAttribute(s, path, isAggregate) && (s.Grouped || !a.calls(s, path, isAggregate))
}

// calls reports whether a statement may call a function of some kind.
func (a *analysis) calls(s *parser.Statement, path []string, kind func(catalog.Function) bool) bool {
	for _, f := range s.Functions {
		if slices.ContainsFunc(a.snapshot.Functions(path, f.Schema, f.Name.Name, f.Args), kind) {
			return true
		}
	}
	return a.callsAttribute(s, path, kind)
}

// callsAttribute reports whether value.name in a statement may be such a call.
func (a *analysis) callsAttribute(s *parser.Statement, path []string, kind func(catalog.Function) bool) bool {
	for _, t := range s.Attributes {
		rel := a.snapshot.Resolve(path, t.Relation.Schema, t.Relation.Name)
		if (rel == nil || !isColumn(rel, t.Name)) &&
			slices.ContainsFunc(a.snapshot.Functions(path, "", t.Name, 1), kind) {
			return true
		}
	}
	return false
}

// through turns a write through a view into the one that PostgreSQL makes of
// it: where no rule and no trigger of the view's own does something else, it
// writes the rows of the one relation below that meet the conditions of both.
// False if the view may be of another kind.
func (a *analysis) through(rel *catalog.Relation, ops catalog.Commands, w parser.Write) (parser.Write, bool) {
	for _, c := range rel.Code {
		if c.On&ops != 0 && (c.Trigger || c.Function == 0) {
			return w, false
		}
	}
	s, _ := a.definition(rel)
	if s == nil || a.depth == maxViewDepth {
		return w, false
	}
	v := view{statement: s, base: a.baseColumns(rel, s)}
	below := -1
	for i, r := range s.Reads {
		switch {
		case r.Nested:
		case below >= 0:
			return w, false
		default:
			below = i
		}
	}
	if v.base == nil || below < 0 {
		return w, false
	}
	a.code(rel, ops, w.Columns, nil) // of defaults
	a.statement(s, viewPath)
	target := parser.Relation{Name: s.Reads[below].Name}
	for _, e := range w.Target.Equal {
		if b, ok := v.find(rel, e.Column); ok {
			e.Column = b.name
			target.Equal = append(target.Equal, e)
		}
	}
	w.Target = target
	w.Columns, w.ConflictColumns = v.names(rel, w.Columns), v.names(rel, w.ConflictColumns)
	defaults := slices.ContainsFunc(rel.Columns, func(c catalog.Column) bool { return c.Default && !slices.Contains(w.InsertColumns, c.Name) })
	if w.InsertColumns = v.names(rel, w.InsertColumns); w.InsertColumns == nil || defaults {
		w.Rows = nil
	}
	return w, true
}

// names returns the columns that columns of the view are; nil if one of them is
// not known.
func (v *view) names(rel *catalog.Relation, columns []string) []string {
	var names []string
	for _, c := range columns {
		b, ok := v.find(rel, c)
		if !ok {
			return nil
		}
		names = append(names, b.name)
	}
	return names
}

// definition parses a view. It is nil unless the definition is a plain query of
// exactly the relations that PostgreSQL recorded for the view.
func (a *analysis) definition(rel *catalog.Relation) (*parser.Statement, parser.Scanned) {
	scanned, ok := parser.Scan(rel.View)
	if rel.View == "" || !ok {
		return nil, scanned
	}
	statements, err := parser.Parse(rel.View, scanned.Literals)
	if err != nil || len(statements) != 1 || !statements[0].ReadOnly() {
		return nil, scanned
	}
	s := statements[0]
	var sources []uint32
	for _, r := range s.Reads {
		base := a.snapshot.Resolve(viewPath, r.Schema, r.Name.Name)
		if base == nil {
			return nil, scanned
		}
		if base.System {
			continue
		}
		sources = append(sources, base.OID)
	}
	slices.Sort(sources)
	if !slices.Equal(slices.Compact(sources), rel.Sources) {
		return nil, scanned
	}
	return s, scanned
}
