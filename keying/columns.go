package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Columns that an UPDATE changes and a read does not use should not end its result:
// SET last_seen leaves a read of the name alone. Which columns a result is about is in
// its tags, as Tag.Part, and it costs a lookup nothing: it is one tag, whatever columns are used.
//
// Some columns of a table are busy: numbers, times and truth values by which no rows are found. They
// are what is counted, and set alone. They belong to one of two groups by turns, and a part is a set of groups that
// a result does not use, as bits. Part 0 is about all columns, part 3 about those that are not busy.
// A read takes the part of the groups that it does not use. A write takes every part that is about something it
// changes: an UPDATE of busy columns alone those that do not leave out all of their groups, and
// every other write all parts.
//
// Like the tracked keys, the groups are made of the catalog alone.

// group is a group of busy columns as a bit; 0 is of those that are not busy.
type group uint8

// maxGroups bounds the parts, which are two to its power: as many tags as a write has of each kind.
const maxGroups = 2

var _ [store.MaxPart + 1 - 1<<maxGroups]struct{}

// groupsOf returns the group of each column. Rows of partitions, children and parents have
// columns of other tables beside them, and what is generated changes with others: such
// tables have no busy columns.
func groupsOf(rel *catalog.Relation) []group {
	if rel.Kind != 'r' || len(rel.Parents) > 0 || len(rel.Children) > 0 ||
		slices.ContainsFunc(rel.Columns, func(c catalog.Column) bool { return c.Generated != 0 }) {
		return nil
	}
	quiet := slices.Clone(rel.Leading) // by these rows are found
	for _, k := range rel.Keys {
		quiet = append(quiet, k.Columns...)
	}
	for _, f := range rel.Foreign {
		for _, name := range f.Columns {
			quiet = append(quiet, columnNamed(rel, name))
		}
	}
	groups, n := make([]group, len(rel.Columns)), 0
	for i := range rel.Columns {
		if busyTypes[rel.Columns[i].BaseType] && !slices.Contains(quiet, i) {
			groups[i] = 1 << (n % maxGroups)
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return groups
}

// busyTypes are what counters, amounts, times and switches are kept in.
var busyTypes = map[uint32]bool{
	oidBool: true, oidInt2: true, oidInt4: true, oidInt8: true, oidFloat4: true, oidFloat8: true, oidNumeric: true,
	oidDate: true, oidTime: true, oidTimestamp: true, oidTimestamptz: true, oidTimetz: true, oidInterval: true,
}

// groups returns groupsOf a relation.
func (a *analysis) groups(rel *catalog.Relation) []group {
	groups, ok := a.columnGroups[rel.OID]
	if !ok {
		groups = groupsOf(rel)
		a.columnGroups[rel.OID] = groups
	}
	return groups
}

// all is the set of the groups.
func all(groups []group) (set group) {
	for _, g := range groups {
		set |= g
	}
	return set
}

// unused returns the part of what a statement reads of a relation.
func (a *analysis) unused(s *parser.Statement, r parser.Relation, rel *catalog.Relation) uint8 {
	groups := a.groups(rel)
	if groups == nil || r.AllColumns {
		return 0
	}
	left := all(groups)
	for _, name := range r.Columns {
		if c := columnNamed(rel, name); c >= 0 {
			left &^= groups[c]
		} else if slices.Contains(s.Attributes, parser.Attribute{Relation: r.Name, Name: name}) {
			return 0 // a function of the whole row
		}
	}
	return uint8(left)
}

// anyOrder reports that the rows of an answer come in an order that the statement gives, or are
// one. Otherwise they come as they lie in the table, and an UPDATE moves them even if it changes nothing
// that they show.
func (a *analysis) anyOrder(s *parser.Statement) bool {
	if slices.ContainsFunc(s.Functions, func(f parser.Function) bool { return orderedAggregates[f.Name.Name] }) {
		return false
	}
	nested := func(r parser.Relation) bool { return r.Nested }
	top := func(r parser.Relation) bool { return !r.Nested }
	isAggregate := func(f catalog.Function) bool { return f.Aggregate && f.Builtin }
	return s.Ordered || !slices.ContainsFunc(s.Reads, top) ||
		!s.Grouping && !slices.ContainsFunc(s.Reads, nested) && a.calls(s, a.path, isAggregate)
}

// orderedAggregates are those of PostgreSQL's own whose result depends on the order of rows.
var orderedAggregates = set("array_agg string_agg json_agg jsonb_agg json_object_agg jsonb_object_agg json_agg_strict jsonb_agg_strict xmlagg")

// referenced reports that a row of the i-th relation has a part in the answer only if a row of another one
// refers to it by a foreign key.
func (a *analysis) referenced(s *parser.Statement, path []string, i int, rel *catalog.Relation) bool {
	if len(rel.References) == 0 || len(rel.Children) > 0 || len(rel.Parents) > 0 || a.ownEquality() {
		return false
	}
	for _, c := range s.Carried {
		if c.To.Read != i {
			continue
		}
		r := s.Reads[c.From.Read]
		from := a.snapshot.Resolve(path, r.Schema, r.Name.Name)
		if from == nil || len(from.Children) > 0 && from.Kind != 'p' {
			continue
		}
		if slices.ContainsFunc(from.Foreign, func(f catalog.Foreign) bool {
			return f.Table == rel.OID && f.Holds && carriesAll(s, c.From.Read, i, from, rel, f)
		}) {
			return true
		}
	}
	return false
}

// carriesAll reports that the columns of a foreign key are compared with those that they refer to.
func carriesAll(s *parser.Statement, from, to int, a, b *catalog.Relation, f catalog.Foreign) bool {
	for j, name := range f.Columns {
		x, y := columnNamed(a, name), columnNamed(b, f.Referenced[j])
		if x < 0 || y < 0 || !sameClass(&a.Columns[x], &b.Columns[y]) || !slices.ContainsFunc(s.Carried, func(c parser.Carried) bool {
			return c.From == parser.Place{Read: from, Column: name} && c.To == parser.Place{Read: to, Column: f.Referenced[j]}
		}) {
			return false
		}
	}
	return len(f.Columns) > 0
}

// oneRow reports that no more than one row of each relation has a part in the answer: by
// conditions on a unique key, or because one is found by the row of another. Views
// speak for themselves.
func (a *analysis) oneRow(s *parser.Statement, path []string, conditions [][]parser.Equality) bool {
	one := make([]bool, len(s.Reads))
	single := func(i int, rel *catalog.Relation) bool {
		return slices.ContainsFunc(a.tracked(rel), func(k tracked) bool {
			return k.unique && !slices.ContainsFunc(k.columns, func(c int) bool {
				name := rel.Columns[c].Name
				return !slices.ContainsFunc(conditions[i], func(e parser.Equality) bool { return e.Column == name && !e.Array && len(e.Values) == 1 }) &&
					!slices.ContainsFunc(s.Carried, func(c parser.Carried) bool {
						return c.To == parser.Place{Read: i, Column: name} && one[c.From.Read]
					})
			})
		})
	}
	left := 0
	for before := -1; left != before; {
		before, left = left, 0
		for i, r := range s.Reads {
			rel := a.snapshot.Resolve(path, r.Schema, r.Name.Name)
			if r.Nested || rel.Kind == 'v' || rel.System || one[i] {
				continue
			}
			if one[i] = single(i, rel); !one[i] {
				left++
			}
		}
	}
	return left == 0
}

// showsAll makes the answer depend on all columns.
func (a *analysis) showsAll() {
	for i := range a.plan.lookups {
		a.plan.lookups[i].part = 0
	}
	for i := range a.tables {
		a.tables[i].Part = 0
	}
}

// parts returns the parts that what is written is about.
func (w *written) parts() []uint8 {
	groups := w.a.groups(w.rel)
	changed := all(groups)
	everything := w.op != parser.OpUpdate || w.setAll || w.alteredAll
	if !everything {
		changed = 0
		for _, name := range slices.Concat(w.set, w.altered) {
			c := columnNamed(w.rel, name)
			if c < 0 || groups == nil || groups[c] == 0 {
				everything = true
				break
			}
			changed |= groups[c]
		}
	}
	var parts []uint8
	for part := range uint8(all(groups)) + 1 {
		if everything || changed&^group(part) != 0 {
			parts = append(parts, part)
		}
	}
	return parts
}

// inEveryPart appends the tags of a relation among dst[from:] in the other parts that it has.
func inEveryPart(dst []store.Tag, from int, rel *catalog.Relation) []store.Tag {
	last := uint8(all(groupsOf(rel)))
	for _, t := range dst[from:] {
		if t.Relation != rel.OID {
			continue
		}
		for t.Part = range last + 1 {
			dst = addTag(dst, from, t)
		}
	}
	return dst
}
