package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// written is what is known of the rows of one relation that a command changes: which
// values its columns had before, and have after.
type written struct {
	a   *analysis
	rel *catalog.Relation
	op  parser.Op

	target *catalog.Relation // that the statement names, of which rel may be a parent or child

	// equal are conditions that every row met. Their operands may be columns of from's rows.
	equal []parser.Equality

	// columns are those of rows, the values of INSERT; rows is nil if they are not known.
	columns []string
	rows    [][]*parser.Operand

	// set are the columns that UPDATE may change, and what it sets them to, nil where that
	// is not known. setAll: it may be any.
	set    []string
	values []*parser.Operand
	setAll bool

	// altered are columns that a trigger may give other values before the row is written.
	altered    []string
	alteredAll bool

	conflict []string // the columns by which an upsert finds the row that it updates
	nulls    bool     // UPDATE sets columns to NULL

	// from are the rows for each of which the command runs, if a trigger or a foreign key runs it.
	from *firing

	// returning is the relation of which the statement may be made to return columns; nil if
	// this is not what the statement itself changes.
	returning *catalog.Relation

	inParts []uint8 // see parts

	// Where the operands of equal, rows and values stand.
	path   []string
	inside bool
}

// firing are rows for each of which something runs that may name their columns.
type firing struct {
	*written
	except    []string // columns that have another value by then
	exceptAll bool
	before    bool // it runs before the row is written, which may then be left out
}

// value is what a column had in the rows, or has.
type value struct {
	rows []*part // of each row; nil is NULL
	list *part   // in all rows one of these
	none bool    // there is no row, or NULL in all of them
}

// changes reports whether a column may be given another value. Generated columns change
// with others.
func (w *written) changes(name string) bool {
	if w.op != parser.OpUpdate && w.op != parser.OpUpsert || w.setAll || w.alteredAll ||
		slices.Contains(w.set, name) || slices.Contains(w.altered, name) {
		return w.op != parser.OpDelete
	}
	c := columnNamed(w.rel, name)
	return c < 0 || w.rel.Columns[c].Generated != 0
}

// before returns the value of a column before the command, as far as the text tells.
func (w *written) before(name string) (value, bool) {
	c := columnNamed(w.rel, name)
	switch w.op {
	case parser.OpInsert, parser.OpCopy:
		return value{none: true}, true
	case parser.OpUpdate, parser.OpDelete:
		if c < 0 {
			return value{}, false
		}
	default:
		return value{}, false
	}
	column := &w.rel.Columns[c]
	for _, e := range w.equal {
		if e.Column == name && len(e.Values) == 1 && e.Values[0].Row != parser.NoRow && !e.Array {
			if v, ok := w.of(column, e.Values[0]); ok {
				return v, true
			}
		}
	}
	if p, ok := w.a.condition(column, w.equal); ok {
		return value{list: &p}, true
	}
	return value{}, false
}

// after returns the value of a column after the command, as far as the text tells.
func (w *written) after(name string) (value, bool) {
	c := columnNamed(w.rel, name)
	if c < 0 || w.alteredAll || slices.Contains(w.altered, name) || w.rel.Columns[c].Generated != 0 {
		return value{none: w.op == parser.OpDelete}, w.op == parser.OpDelete
	}
	column := &w.rel.Columns[c]
	switch w.op {
	case parser.OpDelete:
		return value{none: true}, true
	case parser.OpUpdate:
		if !w.changes(name) {
			return w.before(name)
		}
		if w.nulls && slices.Contains(w.set, name) {
			return value{none: true}, true
		}
		i := slices.Index(w.set, name)
		if w.setAll || i < 0 || i >= len(w.values) || w.values[i] == nil {
			return value{}, false
		}
		return w.stored(column, *w.values[i])
	case parser.OpInsert:
		return w.inserted(column)
	}
	return value{}, false
}

// stored is a value that is put into a column.
func (w *written) stored(c *catalog.Column, o parser.Operand) (value, bool) {
	if o.Row != parser.NoRow {
		v, ok := w.of(c, o)
		return v, ok && !c.Modified
	}
	p, ok := w.a.given(c, o)
	return value{list: &p}, ok
}

// inserted is the value of a column in the rows of INSERT … VALUES.
func (w *written) inserted(c *catalog.Column) (value, bool) {
	if w.rows == nil || len(w.rows) > maxRows {
		return value{}, false
	}
	i := slices.Index(w.columns, c.Name)
	if i < 0 {
		if t := columnNamed(w.target, c.Name); t >= 0 { // what is not given it gets from there
			c = &w.target.Columns[t]
		}
		return value{none: true}, !c.Default
	}
	var v value
	for _, row := range w.rows {
		if i >= len(row) || row[i] == nil {
			return value{}, false
		}
		one, ok := w.stored(c, *row[i])
		switch {
		case !ok:
			return value{}, false
		case len(w.rows) == 1:
			return one, true
		case one.none:
			v.rows = append(v.rows, nil)
		case one.list != nil && !one.list.array && len(one.list.values) == 1:
			v.rows = append(v.rows, one.list)
		default:
			return value{}, false
		}
	}
	return v, true
}

// of is the value of a column of from's rows, for a column of this relation.
func (w *written) of(c *catalog.Column, o parser.Operand) (v value, ok bool) {
	name, ok := w.source(c, o)
	if !ok {
		return v, false
	}
	a := w.a
	path, inside := a.path, a.inside
	a.path, a.inside = w.from.path, w.from.inside
	defer func() { a.path, a.inside = path, inside }()
	if o.Row == parser.OldRow {
		return w.from.written.before(name)
	}
	return w.from.after(name)
}

// source returns the column of from's rows that an operand is, if its values compare
// as those of c do.
func (w *written) source(c *catalog.Column, o parser.Operand) (name string, ok bool) {
	// An upsert's triggers run for the rows to insert and for those that it updates.
	if w.from == nil || w.from.op == parser.OpUpsert || w.from.exceptAll || slices.Contains(w.from.except, o.Column) ||
		w.from.alteredAll || slices.Contains(w.from.altered, o.Column) {
		return "", false
	}
	i := columnNamed(w.from.rel, o.Column)
	if i < 0 {
		return "", false
	}
	other := &w.from.rel.Columns[i]
	return o.Column, sameClass(other, c)
}

// output is something that the statement may be made to return of each of its own rows.
type output struct {
	column string
	old    bool // the value before the statement, which it changes
}

// returnedBefore returns what has the value of a column before the command.
func (w *written) returnedBefore(name string) (output, bool) {
	c := columnNamed(w.rel, name)
	if c < 0 || w.op == parser.OpInsert || w.op == parser.OpCopy {
		return output{}, false
	}
	if w.returning != nil {
		changed := w.changes(name)
		return output{name, changed}, columnNamed(w.returning, name) >= 0 && (!changed || w.op == parser.OpUpdate && w.versionKey() != nil)
	}
	for _, e := range w.equal {
		if e.Column == name && len(e.Values) == 1 && e.Values[0].Row != parser.NoRow && !e.Array {
			if o, ok := w.returnedOf(&w.rel.Columns[c], e.Values[0]); ok {
				return o, true
			}
		}
	}
	return output{}, false
}

// returnedAfter is returnedBefore of the value after the command.
func (w *written) returnedAfter(name string) (output, bool) {
	c := columnNamed(w.rel, name)
	if c < 0 || w.op == parser.OpDelete {
		return output{}, false
	}
	if w.returning != nil {
		return output{column: name}, columnNamed(w.returning, name) >= 0
	}
	column := &w.rel.Columns[c]
	if w.alteredAll || slices.Contains(w.altered, name) || column.Generated != 0 || column.Modified {
		return output{}, false
	}
	var o *parser.Operand
	switch {
	case w.op == parser.OpUpdate && !w.changes(name):
		return w.returnedBefore(name)
	case w.op == parser.OpUpdate && !w.setAll:
		if i := slices.Index(w.set, name); i >= 0 && i < len(w.values) {
			o = w.values[i]
		}
	case w.op == parser.OpInsert && len(w.rows) == 1:
		if i := slices.Index(w.columns, name); i >= 0 && i < len(w.rows[0]) {
			o = w.rows[0][i]
		}
	}
	if o == nil || o.Row == parser.NoRow {
		return output{}, false
	}
	return w.returnedOf(column, *o)
}

func (w *written) returnedOf(c *catalog.Column, o parser.Operand) (output, bool) {
	name, ok := w.source(c, o)
	switch {
	case !ok || w.from.before:
		return output{}, false
	case o.Row == parser.OldRow:
		return w.from.returnedBefore(name)
	}
	return w.from.returnedAfter(name)
}

// versionKey are the columns of a key by which a row that the statement has changed is found as it was
// before; nil if there is none.
func (w *written) versionKey() []string {
	rel := w.returning
	if rel == nil || rel.Kind != 'r' || len(rel.Children) > 0 {
		return nil
	}
next:
	for _, k := range rel.Keys {
		names := make([]string, 0, len(k.Columns))
		for _, c := range k.Columns {
			if w.changes(rel.Columns[c].Name) || !comparable(&rel.Columns[c]) {
				continue next
			}
			names = append(names, rel.Columns[c].Name)
		}
		if !k.Deferrable {
			return names
		}
	}
	return nil
}
