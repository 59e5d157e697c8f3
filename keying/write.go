package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// touched is a relation that is written, and how much is known about it.
type touched struct {
	rel    *catalog.Relation
	extent extent
	change change // for extentKeyed
}

type extent uint8

const (
	extentInsert extent = iota // rows appear; those that were there stay as they are
	extentKeyed                // rows of a key that may be fixed
	extentAll                  // any rows
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
	family := a.family(rel.OID)
	var altered []string // by triggers, before the row is written
	alteredAll := false
	for _, oid := range append(family, rel.OID) {
		if r := a.snapshot.ByOID(oid); r != nil {
			names, all := a.alters(r, ops)
			altered, alteredAll = append(altered, names...), alteredAll || all
		}
	}
	assigned := columns
	switch {
	case alteredAll:
		assigned = nil
	case columns != nil:
		assigned = slices.Concat(columns, altered)
	}
	if rel.Kind == 'p' && (w.Op == parser.OpUpdate || w.Op == parser.OpMerge) && a.moves(rel, assigned) {
		ops |= catalog.OnInsert | catalog.OnDelete
	}
	for _, oid := range append([]uint32{rel.OID}, family...) {
		first := len(a.touched)
		r := a.touch(oid, ops, columns, extentAll)
		if r == nil {
			continue
		}
		// A condition on a column holds for the column of the same name of a
		// parent or child.
		t := &a.touched[first]
		switch w.Op {
		case parser.OpInsert, parser.OpCopy:
			t.extent = extentInsert
		case parser.OpUpdate, parser.OpDelete:
			if c, ok := a.changeByKey(r, w); ok && !a.inside {
				t.extent, t.change = extentKeyed, c
			}
		case parser.OpUpsert:
			// A trigger that alters a key decides which row is found.
			if c, ok := a.changeByConflict(r, w, altered); ok && !a.inside && !alteredAll {
				t.extent, t.change = extentKeyed, c
			}
		}
	}
	if w.Op == parser.OpTruncate && !w.Cascade {
		return // refused if anyone refers to it
	}
	a.cascade(rel, ops, assigned)
}

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

// touch takes a relation that is written by way of another.
func (a *analysis) touch(oid uint32, ops catalog.Commands, columns []string, e extent) *catalog.Relation {
	rel := a.snapshot.ByOID(oid)
	if rel == nil {
		a.plan.Unknown = true
		a.plan.opaque()
		return nil
	}
	a.touched = append(a.touched, touched{rel: rel, extent: e})
	a.code(rel, ops, columns)
	a.foreign(rel)
	return rel
}

// cascade follows the foreign keys that point to rel. columns are those that an
// UPDATE assigns, nil when they are not known.
func (a *analysis) cascade(rel *catalog.Relation, ops catalog.Commands, columns []string) {
	for _, oid := range append(a.family(rel.OID), rel.OID) {
		r := a.snapshot.ByOID(oid)
		if r == nil {
			continue // opaque already
		}
		for _, ref := range r.References {
			var then catalog.Commands
			if ops&catalog.OnDelete != 0 && ref.OnDelete {
				then |= catalog.OnDelete | catalog.OnUpdate // CASCADE, or SET NULL
			}
			if ops&catalog.OnUpdate != 0 && ref.OnUpdate && assigns(r, columns, ref.Columns) {
				then |= catalog.OnUpdate
			}
			if ops&catalog.OnTruncate != 0 {
				then |= catalog.OnTruncate
			}
			a.spread(ref.Table, then)
		}
	}
}

// spread takes a table that a foreign key's action writes, and what follows.
func (a *analysis) spread(oid uint32, ops catalog.Commands) {
	if ops&^a.visited[oid] == 0 {
		return
	}
	a.visited[oid] |= ops
	a.loosely(func() { // the actions of foreign keys run as the table's owner
		rel := a.touch(oid, ops, nil, extentAll)
		if rel == nil {
			return
		}
		if rel.Kind == 'p' && ops&catalog.OnUpdate != 0 && ops&catalog.OnInsert == 0 {
			ops |= catalog.OnInsert | catalog.OnDelete // it may move the row
			a.code(rel, ops, nil)
		}
		for _, oid := range a.family(oid) {
			a.touch(oid, ops, nil, extentAll)
		}
		a.cascade(rel, ops, nil)
	})
}

// assigns reports whether an UPDATE of columns may change one of referenced.
func assigns(r *catalog.Relation, columns, referenced []string) bool {
	if columns == nil || len(referenced) == 0 {
		return true
	}
	for _, name := range referenced {
		if slices.Contains(columns, name) {
			return true
		}
		for i := range r.Columns {
			if r.Columns[i].Name == name && r.Columns[i].Generated != 0 {
				return true
			}
		}
	}
	return false
}

// writeView takes a write through a view: it reaches the tables below, if no
// rule or trigger does something else.
func (a *analysis) writeView(rel *catalog.Relation, ops catalog.Commands, columns []string, depth int) {
	a.code(rel, ops, columns)
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

// writePlan fixes the tags of the writes.
func (a *analysis) writePlan() {
	p := a.plan
	written := make(map[uint32]bool)
	for _, t := range a.touched {
		if !written[t.rel.OID] {
			written[t.rel.OID] = true
			p.writes = append(p.writes, t.rel.OID)
		}
	}
	if !p.Writes {
		return
	}
	if p.Opaque || a.schema {
		p.written = []store.Tag{{Kind: store.TagSchema}}
		return
	}
	all := make(map[uint32]bool)
	for _, t := range a.touched {
		if t.extent == extentAll && !all[t.rel.OID] {
			all[t.rel.OID] = true
			p.written = append(p.written, store.Tag{Relation: t.rel.OID, Kind: store.TagTable})
			for _, k := range t.rel.Keys {
				p.written = append(p.written, store.Tag{Relation: t.rel.OID, Kind: store.TagRows, Index: k.Index})
			}
		}
	}
	some := make(map[uint32]bool)
	for _, t := range a.touched {
		if all[t.rel.OID] {
			continue
		}
		if !some[t.rel.OID] {
			some[t.rel.OID] = true
			p.written = append(p.written, store.Tag{Relation: t.rel.OID, Kind: store.TagTable})
		}
		if t.extent == extentKeyed {
			p.changes = append(p.changes, t.change)
		}
	}
	p.written = slices.Clip(p.written)
}
