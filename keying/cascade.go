package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// cascade follows the foreign keys that point to rel. columns are those that an
// UPDATE assigns, nil when they are not known; rows is what is known of the rows, nil
// for nothing.
func (a *analysis) cascade(rel *catalog.Relation, ops catalog.Commands, columns []string, rows *written) {
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
			if then == 0 || a.follow(r, ref, then, rows) {
				continue
			}
			a.spread(ref.Table, then)
		}
	}
}

// follow is spread for a deletion of rows that are known: the foreign key's action finds
// the rows that refer to them by the very columns. It reports whether it was done.
func (a *analysis) follow(r *catalog.Relation, ref catalog.Reference, then catalog.Commands, rows *written) bool {
	if rows == nil || rows.op != parser.OpDelete || len(ref.Columns) == 0 || len(ref.Columns) != len(ref.Referencing) || a.firings == maxFirings {
		return false
	}
	rel := a.snapshot.ByOID(ref.Table)
	if rel == nil || len(a.family(rel.OID)) > 0 {
		return false
	}
	from := *rows
	from.rel = r
	next := &written{a: a, from: &firing{written: &from}, op: parser.OpUpdate, set: ref.Referencing}
	for i, name := range ref.Columns {
		next.equal = append(next.equal, parser.Equality{Column: ref.Referencing[i],
			Values: []parser.Operand{{Row: parser.OldRow, Column: name}}})
	}
	switch ref.Deletes {
	case catalog.Cascade:
		next.op, next.set, then = parser.OpDelete, nil, catalog.OnDelete
	case catalog.SetNull:
		next.nulls, then = true, catalog.OnUpdate
	case catalog.SetDefault:
		then = catalog.OnUpdate
	default:
		return false
	}
	a.firings++
	a.loosely(func() { // the actions of foreign keys run as the table's owner
		next.path = a.path
		next.altered, next.alteredAll = a.alters(rel, then)
		a.touch(rel.OID, then, next.set, next)
		a.cascade(rel, then, next.set, next)
	})
	a.firings--
	return true
}

// spread takes a table that a foreign key's action writes, and what follows.
func (a *analysis) spread(oid uint32, ops catalog.Commands) {
	if ops&^a.visited[oid] == 0 {
		return
	}
	a.visited[oid] |= ops
	a.loosely(func() { // the actions of foreign keys run as the table's owner
		rel := a.touch(oid, ops, nil, nil)
		if rel == nil {
			return
		}
		if rel.Kind == 'p' && ops&catalog.OnUpdate != 0 && ops&catalog.OnInsert == 0 {
			ops |= catalog.OnInsert | catalog.OnDelete // it may move the row
			a.code(rel, ops, nil, nil)
		}
		for _, oid := range a.family(oid) {
			a.touch(oid, ops, nil, nil)
		}
		a.cascade(rel, ops, nil, nil)
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
