package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

const allCommands = catalog.OnInsert | catalog.OnUpdate | catalog.OnDelete | catalog.OnTruncate

// commands says what an operation is to triggers, rules and foreign keys.
func commands(op parser.Op) catalog.Commands {
	switch op {
	case parser.OpInsert, parser.OpCopy:
		return catalog.OnInsert
	case parser.OpUpsert:
		return catalog.OnInsert | catalog.OnUpdate
	case parser.OpUpdate:
		return catalog.OnUpdate
	case parser.OpDelete:
		return catalog.OnDelete
	case parser.OpMerge:
		return catalog.OnInsert | catalog.OnUpdate | catalog.OnDelete
	case parser.OpTruncate:
		return catalog.OnTruncate
	case parser.OpRefresh:
		return 0
	}
	return allCommands
}

// write takes one target into the plan.
func (a *analysis) write(w parser.Write, path []string) {
	p := a.plan
	p.Writes = true
	p.deny(NotRead, "")
	if a.untold {
		a.ask()
	}
	if o, own, _ := a.own(w.Target.Name, path); own {
		a.writesOwn(o)
		return
	}
	rel := a.snapshot.Resolve(path, w.Target.Schema, w.Target.Name.Name)
	if rel == nil || a.loose && w.Target.Schema == "" && a.snapshot.Ambiguous(w.Target.Name.Name) {
		p.Unknown = p.Unknown || rel == nil
		a.ask()
		return
	}
	if rel.System { // a superuser repairs the catalog by hand
		p.opaque()
		p.Catalog = true
		return
	}
	ops, columns := commands(w.Op), w.Columns
	switch rel.Kind {
	case 'r', 'p', 'f':
	case 'm':
		a.refresh(rel)
	case 'v':
		if base, ok := a.through(rel, ops, w); ok {
			a.depth++
			a.write(base, viewPath)
			a.depth--
			return
		}
		a.writeView(rel, ops, columns, 0)
		return
	default:
		a.ask()
		return
	}

	// An UPDATE through a partitioned table may move a row from one partition
	// to another, which is DELETE and INSERT to their triggers, and before
	// PostgreSQL 15 to foreign keys.
	if a.extended(rel) {
		a.ask() // triggers of the session's own child
	}
	rows := a.rowsOf(rel, w)
	family := a.family(rel.OID)
	for _, oid := range append(family, rel.OID) {
		if r := a.snapshot.ByOID(oid); r != nil {
			names, all := a.alters(r, ops)
			rows.altered, rows.alteredAll = append(rows.altered, names...), rows.alteredAll || all
		}
	}
	assigned := columns
	switch {
	case rows.alteredAll:
		assigned = nil
	case columns != nil:
		assigned = slices.Concat(columns, rows.altered)
	}
	if rel.Kind == 'p' && (w.Op == parser.OpUpdate || w.Op == parser.OpMerge) && a.moves(rel, assigned) {
		ops |= catalog.OnInsert | catalog.OnDelete
	}
	// A condition on a column holds for the column of the same name of a
	// parent or child.
	a.touch(rel.OID, ops, columns, rows)
	for _, oid := range family {
		if len(family) > maxFamily && !slices.Contains(a.snapshot.Ancestors(rel.OID), oid) {
			a.touch(oid, ops, columns, nil)
		} else {
			a.touch(oid, ops, columns, rows)
		}
	}
	if w.Op == parser.OpTruncate && !w.Cascade {
		return // refused if anyone refers to it
	}
	a.cascade(rel, ops, assigned, rows)
}

// maxFamily bounds the children of which a write through their parent names single rows.
const maxFamily = 8

// moves reports whether an UPDATE of columns, nil when they are not known, may
// move rows between the partitions of rel.
func (a *analysis) moves(rel *catalog.Relation, columns []string) bool {
	for _, oid := range append(a.snapshot.Descendants(rel.OID), rel.OID) {
		r := a.snapshot.ByOID(oid)
		if r == nil || r.Kind == 'p' && assigns(r, columns, r.Partitioned) {
			return true
		}
	}
	return false
}

// foreign: what a foreign server does with a write is not known; it may be this
// very database.
func (a *analysis) foreign(rel *catalog.Relation) {
	if rel.Kind == 'f' {
		a.plan.opaque()
	}
}

// refresh runs the query of a materialised view.
func (a *analysis) refresh(rel *catalog.Relation) {
	s, _ := a.definition(rel)
	if s == nil || a.snapshot.EventTriggers() {
		a.plan.Unknown = a.plan.Unknown || s == nil
		a.ask()
		return
	}
	a.loosely(func() { a.statement(s, viewPath) }) // it runs as the view's owner
}

// family returns the descendants of a relation, and the ancestors of all of them: a
// row of a child is one of its parents' too, and it may have several.
func (a *analysis) family(oid uint32) []uint32 {
	family := a.snapshot.Descendants(oid)
	for _, child := range append(slices.Clone(family), oid) {
		for _, parent := range a.snapshot.Ancestors(child) {
			if parent != oid && !slices.Contains(family, parent) {
				family = append(family, parent)
			}
		}
	}
	return family
}

// touch takes a relation of which a command changes rows; all of them if rows is nil.
func (a *analysis) touch(oid uint32, ops catalog.Commands, columns []string, rows *written) *catalog.Relation {
	rel := a.snapshot.ByOID(oid)
	if rel == nil {
		a.plan.Unknown = true
		a.plan.opaque()
		return nil
	}
	own := &written{a: a, op: parser.OpTruncate}
	if rows != nil {
		copied := *rows
		own = &copied
	}
	own.rel = rel
	a.touched = append(a.touched, own)
	a.name(own)
	a.code(rel, ops, columns, own)
	a.foreign(rel)
	return rel
}

// writeView takes a write through a view: it reaches the tables below, if no
// rule or trigger does something else.
func (a *analysis) writeView(rel *catalog.Relation, ops catalog.Commands, columns []string, depth int) {
	a.code(rel, ops, columns, nil)
	s, _ := a.definition(rel)
	if s == nil || depth == maxViewDepth {
		a.plan.Unknown = a.plan.Unknown || s == nil
		a.ask()
		return
	}
	for _, f := range s.Functions {
		a.function(f, viewPath)
	}
	for _, r := range s.Reads {
		base := a.snapshot.Resolve(viewPath, r.Schema, r.Name.Name)
		switch {
		case base.System:
			a.plan.opaque()
		case base.Kind == 'v':
			a.writeView(base, ops, nil, depth+1)
		default:
			a.spread(base.OID, ops)
		}
	}
}
