package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// rowsOf is what a statement's own text says of the rows that it changes.
func (a *analysis) rowsOf(rel *catalog.Relation, w parser.Write) *written {
	rows := &written{a: a, rel: rel, target: rel, op: w.Op, equal: w.Target.Equal, set: w.Columns, values: w.Assigned, setAll: w.Columns == nil,
		columns: insertColumns(rel, w), rows: w.Rows, conflict: w.ConflictColumns, from: a.firing, path: a.path, inside: a.inside}
	if a.rooted && !a.inside && a.depth == 0 && a.root == nil && (rel.Kind == 'r' || rel.Kind == 'p') && !rel.RowSecurity && !rel.Temporary {
		a.root, rows.returning = rows, rel
	}
	return rows
}

// insertColumns are the columns that the values of INSERT go to.
func insertColumns(rel *catalog.Relation, w parser.Write) []string {
	if w.InsertColumns != nil || w.Rows == nil {
		return w.InsertColumns
	}
	names := make([]string, len(rel.Columns))
	for i := range names {
		names[i] = rel.Columns[i].Name
	}
	return names
}

// name adds, for each tracked key, what tells of the rows.
func (a *analysis) name(w *written) {
	own := a.ownEquality()
	w.inParts = w.parts()
	for _, k := range a.tracked(w.rel) {
		anything := k.any(w.rel)
		if own || !a.nameBefore(w, k, anything) {
			a.add(w, anything)
			continue
		}
		a.nameAfter(w, k)
	}
}

// add adds what is changed by every execution.
func (a *analysis) add(w *written, t store.Tag) {
	for _, t.Part = range w.inParts {
		a.certain = addTag(a.certain, 0, t)
	}
}

// nameBefore names the rows by the values that they had; false if that cannot be.
func (a *analysis) nameBefore(w *written, k tracked, anything store.Tag) bool {
	if w.op == parser.OpUpsert {
		if rows, ok := w.conflicts(k); ok {
			a.named = append(a.named, namedRows{keyParts{index: k.index, list: -1, rows: rows}, w.rel.OID, k.unique, w.inParts, anything})
			return true
		}
	} else if parts, none, ok := w.together(k, w.before); ok {
		if !none {
			a.named = append(a.named, namedRows{parts, w.rel.OID, k.unique, w.inParts, anything})
		}
		return true
	}
	return a.tell(w, k, w.returnedBefore, anything)
}

// nameAfter names the rows by the values that they get, if those are others.
func (a *analysis) nameAfter(w *written, k tracked) {
	if (w.op == parser.OpUpdate || w.op == parser.OpUpsert) &&
		!slices.ContainsFunc(k.columns, func(c int) bool { return w.changes(w.rel.Columns[c].Name) }) {
		return
	}
	appeared := k.appeared(w.rel)
	if parts, none, ok := w.together(k, w.after); ok {
		if !none {
			a.named = append(a.named, namedRows{parts, w.rel.OID, k.unique, w.inParts, appeared})
		}
		return
	}
	if !a.tell(w, k, w.returnedAfter, appeared) {
		a.add(w, appeared)
	}
}

// together puts the values of a key's columns together. none: one of them is NULL in all
// rows, or there are no rows.
func (w *written) together(k tracked, of func(string) (value, bool)) (kp keyParts, none, ok bool) {
	kp = keyParts{index: k.index, list: -1}
	values, known, rows := make([]value, len(k.columns)), true, 0
	for i, c := range k.columns {
		v, ok := of(w.rel.Columns[c].Name)
		switch {
		case !ok:
			known = false
		case v.none:
			return kp, true, true
		case v.rows != nil && rows > 0 && rows != len(v.rows):
			known = false
		case v.rows != nil:
			rows = len(v.rows)
		}
		values[i] = v
	}
	switch {
	case !known:
		return kp, false, false
	case rows == 0:
		for i, v := range values {
			if !kp.add(i, *v.list) {
				return kp, false, false
			}
		}
		return kp, false, true
	}
	kp.rows = make([][]part, 0, rows)
	for i := range rows {
		row := make([]part, 0, len(values))
		for _, v := range values {
			switch {
			case v.rows != nil && v.rows[i] != nil:
				row = append(row, *v.rows[i])
			case v.list != nil && !v.list.array && len(v.list.values) == 1:
				row = append(row, *v.list)
			case v.list != nil:
				return kp, false, false
			}
		}
		if len(row) == len(values) { // else one is NULL
			kp.rows = append(kp.rows, row)
		}
	}
	return kp, len(kp.rows) == 0, true
}

// tell has the statement's own rows tell the values of a key; false if they cannot.
func (a *analysis) tell(w *written, k tracked, of func(string) (output, bool), otherwise store.Tag) bool {
	t := told{relation: w.rel.OID, index: k.index, inParts: w.inParts, otherwise: otherwise}
	for _, c := range k.columns {
		o, ok := of(w.rel.Columns[c].Name)
		if !ok {
			return false
		}
		t.outputs, t.old = append(t.outputs, o), t.old || o.old
		t.parts = append(t.parts, part{class: classOf(w.rel.Columns[c].BaseType)})
	}
	a.told = append(a.told, t)
	return true
}

// conflicts are the values of a key by which an upsert finds the rows that it
// updates: those of the rows to insert, except in columns that triggers have altered.
func (w *written) conflicts(k tracked) ([][]part, bool) {
	if !k.unique || len(w.rows) == 0 || len(w.rows) > maxRows || len(w.conflict) != len(k.columns) || w.alteredAll {
		return nil, false
	}
	for _, key := range w.rel.Keys {
		if key.Index == k.index && key.Rivalled {
			// PostgreSQL takes every unique index on the columns for an arbiter, that
			// one too, to which other values are equal.
			return nil, false
		}
	}
	rows := make([][]part, len(w.rows))
	for _, c := range k.columns {
		column := &w.rel.Columns[c]
		i := slices.Index(w.columns, column.Name)
		if i < 0 || !slices.Contains(w.conflict, column.Name) || slices.Contains(w.altered, column.Name) {
			return nil, false
		}
		for j, row := range w.rows {
			if i >= len(row) || row[i] == nil {
				return nil, false
			}
			v, ok := w.stored(column, *row[i])
			if !ok || v.list == nil {
				return nil, false
			}
			rows[j] = append(rows[j], *v.list)
		}
	}
	return rows, true
}

// writePlan fixes the tags of the writes.
func (a *analysis) writePlan(statements []*parser.Statement) {
	p := a.plan
	tables := make(map[uint32]bool)
	for _, t := range a.touched {
		if !tables[t.rel.OID] {
			tables[t.rel.OID] = true
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
	for _, t := range a.touched {
		for _, part := range t.parts() {
			p.written = addTag(p.written, 0, store.Tag{Relation: t.rel.OID, Kind: store.TagTable, Part: part})
			changed := store.Tag{Relation: t.rel.OID, Kind: store.TagChanged, Part: part}
			switch {
			case len(t.rel.References) == 0: // nobody depends on it
			case t.op == parser.OpInsert || t.op == parser.OpCopy:
				p.inserted = addTag(p.inserted, 0, changed)
			default:
				p.written = addTag(p.written, 0, changed)
			}
		}
	}
	// What is changed in unknown rows needs no others to be named, nor new ones.
	any := make(map[store.Tag]bool)
	for _, t := range a.certain {
		any[t] = true
	}
	left := func(relation, index uint32, parts []uint8) []uint8 {
		return slices.DeleteFunc(slices.Clone(parts), func(part uint8) bool {
			return any[store.Tag{Relation: relation, Kind: store.TagRows, Part: part, Index: index}]
		})
	}
	for _, t := range a.certain {
		if t.Kind == store.TagRows || len(left(t.Relation, t.Index, []uint8{t.Part})) > 0 {
			p.written = addTag(p.written, 0, t)
		}
	}
	for _, n := range a.named {
		if n.inParts = left(n.relation, n.index, n.inParts); len(n.inParts) > 0 {
			p.named = append(p.named, n)
		}
	}
	for i := range a.told {
		a.told[i].inParts = left(a.told[i].relation, a.told[i].index, a.told[i].inParts)
	}
	a.told = slices.DeleteFunc(a.told, func(t told) bool { return len(t.inParts) == 0 })
	p.returning = a.returns(statements)
	for _, t := range a.told {
		for _, t.otherwise.Part = range t.inParts {
			if p.returning != nil {
				p.untold = addTag(p.untold, 0, t.otherwise)
			} else {
				p.written = addTag(p.written, 0, t.otherwise)
			}
		}
	}
	if p.returning != nil {
		p.told = a.told
	}
	p.written, p.named = slices.Clip(p.written), slices.Clip(p.named)
}
