package keying

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// What the tags mean, and why they suffice.
//
// A write of rows gives TagTable of their relation, always. If the WHERE clause
// fixes a key k, all rows that are changed have one of its values, so they are
// named by TagRow(k, value); of every other key the values are not known, which
// is TagRows. A write that fixes no key gives TagRows of every key.
//
// A result that depends on the relation in any way may use TagTable. One that
// is about the single row with a value of k needs less: TagRow(k, value) and
// TagRows(k) cover changes to that row, provided that it was there. Then no
// other row can have the value without that row changing first, because k is
// unique. A new row, or one that gets the value by an UPDATE of another row, is
// covered by TagTable alone; where the row was not there, the result depends on it.
//
// A result about the rows with any of several values of k needs as many TagRow,
// provided that all of them were there. That is seen by counting: where each row
// of the result is made of one row of the relation, and no two of the same, there
// are as many rows as values only if every value has one.
//
// A result need not be the only one that PostgreSQL could give: LIMIT without
// ORDER BY may take any rows, array_agg and a sum of floats any order. It is one
// that PostgreSQL gave, and the rows are as they were.
//
// An UPDATE that changes a row's key from v to w is named by TagRow(k, v), if by
// a row at all. It needs no TagRow(k, w): before it there was no row with w, or
// the transaction changed that one too.

// maxLookups bounds the relations of one read whose key may be fixed.
const maxLookups = 8

// maxListed bounds the rows that a read names one by one.
const maxListed = 32

// maxRows bounds the rows that a write names one by one.
const maxRows = 100

// Longer lists than these, of which Parse leaves some out, name no rows.
var _ [parser.MaxList - max(maxRows, maxListed) - 1]struct{}

// lookup is a relation of which a read fixes a key.
type lookup struct {
	relation uint32
	keys     []keyParts // primary first; the first with canonical values counts
}

// change is a target of which a write may fix keys.
type change struct {
	relation uint32
	keys     []keyParts
	loose    []uint32 // indexes of the keys that are not fixed
}

// keyParts is a key with an operand for each column.
type keyParts struct {
	index uint32
	parts []part
	list  int      // the part with several values, -1 if there is none
	rows  [][]part // for an upsert: the parts of each row, instead of parts
}

// count is the number of values that the key is fixed to.
func (k *keyParts) count(v Values) int {
	switch {
	case k.rows != nil:
		return len(k.rows)
	case k.list < 0:
		return 1
	}
	return k.parts[k.list].length(v)
}

// value gives the hash of the i-th value; false if it has no canonical form.
func (k *keyParts) value(v Values, i int) (uint64, bool) {
	parts := k.parts
	if k.rows != nil {
		parts = k.rows[i]
	}
	h := hashSeed
	for j := range parts {
		n := 0
		if j == k.list && k.rows == nil {
			n = i
		}
		var ok bool
		if h, ok = parts[j].mix(h, v, n); !ok {
			return 0, false
		}
	}
	return h.sum(), true
}

// ReadTags appends the tags that the result depends on. The first always of
// tags, what dst held included, count for every result; the others only for
// one with fewer than rows rows. It does not allocate if dst has room.
func (p *Plan) ReadTags(dst []store.Tag, v Values) (tags []store.Tag, always, rows int) {
	tags = append(dst, p.always...)
	if len(p.lookups) == 0 {
		return tags, len(tags), 1
	}
	if p.single {
		if tags, always, rows = p.lookups[0].list(tags, v); rows > 1 {
			return tags, always, rows
		}
	}
	var found [maxLookups]store.Tag // Relation 0: no row is known
	from := len(dst)
	for i := range p.lookups {
		l := &p.lookups[i]
		for j := range l.keys {
			k := &l.keys[j]
			if k.count(v) != 1 {
				continue // a row proves the presence of one value only
			}
			if h, ok := k.value(v, 0); ok {
				found[i] = store.Tag{Relation: l.relation, Kind: store.TagRow, Index: k.index, Value: h}
				break
			}
		}
		if found[i].Relation == 0 {
			tags = addTag(tags, from, store.Tag{Relation: l.relation, Kind: store.TagTable})
		}
	}
	for _, t := range found[:len(p.lookups)] {
		if t.Relation != 0 {
			tags = addTag(tags, from, store.Tag{Relation: t.Relation, Kind: store.TagRows, Index: t.Index})
			tags = addTag(tags, from, t)
		}
	}
	always = len(tags)
	for _, t := range found[:len(p.lookups)] {
		if t.Relation != 0 {
			tags = addTag(tags, from, store.Tag{Relation: t.Relation, Kind: store.TagTable})
		}
	}
	return tags, always, 1
}

// list appends the tags of several rows, for a result of as many rows; rows is 0
// if the values are not known, or better tags are. Equal values make the rows
// fewer than the values, so the result depends on the table: hashes would
// tell which are equal, but must not be what a result's being right stands on.
func (l *lookup) list(dst []store.Tag, v Values) (tags []store.Tag, always, rows int) {
	for j := range l.keys {
		k := &l.keys[j]
		n := k.count(v)
		if n == 1 {
			break
		}
		if n == 0 || n > maxListed {
			continue
		}
		tags = append(dst, store.Tag{Relation: l.relation, Kind: store.TagRows, Index: k.index})
		fixed := true
		for i := 0; fixed && i < n; i++ {
			var h uint64
			if h, fixed = k.value(v, i); fixed {
				tags = append(tags, store.Tag{Relation: l.relation, Kind: store.TagRow, Index: k.index, Value: h})
			}
		}
		if fixed {
			return append(tags, store.Tag{Relation: l.relation, Kind: store.TagTable}), len(tags), n
		}
	}
	return dst, len(dst), 0
}

// WriteTags appends the tags that executing the text invalidates: none unless
// Writes. It does not allocate if dst has room.
func (p *Plan) WriteTags(dst []store.Tag, v Values) []store.Tag {
	s := store.NewTagSet(dst[len(dst):])
	s.Add(p.written...)
	for i := range p.changes {
		p.changes[i].tags(&s, v)
	}
	if len(dst) == 0 {
		return s.Tags()
	}
	return append(dst, s.Tags()...) // where dst has room they are there already
}

func (c *change) tags(s *store.TagSet, v Values) {
	for _, index := range c.loose {
		s.Add(store.Tag{Relation: c.relation, Kind: store.TagRows, Index: index})
	}
	for i := range c.keys {
		k := &c.keys[i]
		n := k.count(v)
		fixed := n > 0 && n <= maxRows
		for j := 0; fixed && j < n; j++ {
			_, fixed = k.value(v, j)
		}
		if !fixed {
			s.Add(store.Tag{Relation: c.relation, Kind: store.TagRows, Index: k.index})
			continue
		}
		for j := range n {
			h, _ := k.value(v, j)
			s.Add(store.Tag{Relation: c.relation, Kind: store.TagRow, Index: k.index, Value: h})
		}
	}
}

// addTag appends t unless it is among tags[from:].
func addTag(tags []store.Tag, from int, t store.Tag) []store.Tag {
	for i := from; i < len(tags); i++ {
		if tags[i] == t {
			return tags
		}
	}
	return append(tags, t)
}

// lookup finds the keys of a relation that a read fixes to one value. The key
// of a table with children holds for its own rows only; those of partitions
// are unique together.
func (a *analysis) lookup(rel *catalog.Relation, equal []parser.Equality) (lookup, bool) {
	l := lookup{relation: rel.OID}
	if len(rel.Children) > 0 && rel.Kind != 'p' || a.ownEquality() {
		return l, false
	}
	for _, k := range rel.Keys {
		if parts, ok := a.fixed(rel, k, equal); ok {
			l.keys = append(l.keys, parts)
		}
	}
	return l, len(l.keys) > 0
}

// changeByKey finds the keys that the WHERE clause of an UPDATE or DELETE fixes.
func (a *analysis) changeByKey(rel *catalog.Relation, w parser.Write) (change, bool) {
	c := change{relation: rel.OID}
	if a.ownEquality() {
		return c, false
	}
	for _, k := range rel.Keys {
		if parts, ok := a.fixed(rel, k, w.Target.Equal); ok {
			c.keys = append(c.keys, parts)
		} else {
			c.loose = append(c.loose, k.Index)
		}
	}
	return c, len(c.keys) > 0
}

// changeByConflict finds the key by which an upsert finds the rows that it
// updates: their values are those of the rows to insert, except in the columns
// that triggers have altered.
func (a *analysis) changeByConflict(rel *catalog.Relation, w parser.Write, altered []string) (change, bool) {
	c := change{relation: rel.OID}
	for _, k := range rel.Keys {
		rows, ok := a.conflicts(rel, k, w)
		for _, c := range k.Columns {
			ok = ok && !slices.Contains(altered, rel.Columns[c].Name)
		}
		if ok {
			c.keys = append(c.keys, keyParts{index: k.Index, list: -1, rows: rows})
		} else {
			c.loose = append(c.loose, k.Index)
		}
	}
	return c, len(c.keys) > 0
}

func (a *analysis) conflicts(rel *catalog.Relation, k catalog.Key, w parser.Write) ([][]part, bool) {
	if len(w.Rows) == 0 || len(w.Rows) > maxRows || len(w.ConflictColumns) != len(k.Columns) {
		return nil, false
	}
	columns := make([]int, len(k.Columns)) // of the key, in w.InsertColumns
	for i, c := range k.Columns {
		name := rel.Columns[c].Name
		columns[i] = slices.Index(w.InsertColumns, name)
		if columns[i] < 0 || !slices.Contains(w.ConflictColumns, name) {
			return nil, false
		}
	}
	if k.Rivalled {
		// PostgreSQL takes every unique index on the columns for an arbiter, that
		// one too, to which other values are equal.
		return nil, false
	}
	rows := make([][]part, len(w.Rows))
	for i, row := range w.Rows {
		for j, c := range k.Columns {
			if columns[j] >= len(row) || row[columns[j]] == nil {
				return nil, false
			}
			p, ok := a.part(&rel.Columns[c], parser.Equality{Values: []parser.Operand{*row[columns[j]]}})
			if !ok {
				return nil, false
			}
			p.stored = true
			rows[i] = append(rows[i], p)
		}
	}
	return rows, true
}

// fixed finds for each column of a key the operands that fix it. At most one
// column may have several.
func (a *analysis) fixed(rel *catalog.Relation, k catalog.Key, equal []parser.Equality) (keyParts, bool) {
	kp := keyParts{index: k.Index, list: -1}
	for i, c := range k.Columns {
		column := &rel.Columns[c]
		best, found := part{}, false
		for _, e := range equal {
			if e.Column != column.Name {
				continue
			}
			p, ok := a.part(column, e)
			// Any one of several conditions will do; the shortest names fewest rows.
			if ok && (!found || !p.array && (best.array || len(p.values) < len(best.values))) {
				best, found = p, true
			}
		}
		if !found {
			return kp, false
		}
		if best.array || len(best.values) > 1 {
			if kp.list >= 0 || len(best.values) > maxRows {
				return kp, false
			}
			kp.list = i
		}
		kp.parts = append(kp.parts, best)
	}
	return kp, true
}

// part prepares one condition on a column; false if it can never be canonical.
func (a *analysis) part(c *catalog.Column, e parser.Equality) (part, bool) {
	p := part{class: classOf(c.BaseType), array: e.Array}
	switch c.BaseType {
	case oidInt2:
		p.lo, p.hi = math.MinInt16, math.MaxInt16
	case oidInt4:
		p.lo, p.hi = math.MinInt32, math.MaxInt32
	case oidInt8:
		p.lo, p.hi = math.MinInt64, math.MaxInt64
	case oidOID:
		p.hi = math.MaxUint32
	}
	if p.class == noClass || p.collated() && !c.Deterministic || len(e.Values) == 0 {
		return p, false
	}
	for _, o := range e.Values {
		if !a.castFits(o.Cast, p.class, e.Array) || e.Array && (o.Param == 0 || o.Negated) {
			return p, false
		}
		p.values = append(p.values, operand{Operand: o, shared: a.shared(o, p.class, e.Array)})
	}
	return p, true
}

// castFits reports whether a cast leaves the operand what it is in a class. A
// domain may stand for a type with a modifier, so only built-in types do.
func (a *analysis) castFits(cast parser.Name, c class, array bool) bool {
	if cast == (parser.Name{}) {
		return true
	}
	name := cast.Name
	if array {
		var ok bool
		if name, ok = strings.CutSuffix(name, "[]"); !ok {
			return false
		}
	}
	t, ok := a.snapshot.Type(a.path, cast.Schema, name)
	return ok && t.Builtin && t.Element == 0 && classOf(t.OID) == c
}

// ownEquality reports whether the search_path has an operator = for types of
// which canonical values are known, other than PostgreSQL's.
func (a *analysis) ownEquality() bool {
	for _, o := range a.snapshot.Operators(a.path, "", "=") {
		if !o.Builtin && a.canonical(o.Left) && a.canonical(o.Right) {
			return true
		}
	}
	return false
}

// canonical reports whether values of a type, or of the one below a domain,
// have a canonical form: an operator may be declared for the domain itself.
func (a *analysis) canonical(oid uint32) bool {
	t, ok := a.snapshot.TypeByOID(oid)
	return !ok || classOf(t.Base) != noClass
}

// TagName returns a tag in words: "table public.users". The values of a row
// are not in a tag and so not in its name; only their hash is. snapshot may be
// nil; names are then numbers.
func TagName(t store.Tag, snapshot *catalog.Snapshot) string {
	if t.Kind == store.TagSchema {
		return "schema"
	}
	name := fmt.Sprintf("relation %d", t.Relation)
	index := fmt.Sprintf("index %d", t.Index)
	if snapshot == nil {
		snapshot = catalog.NewSnapshot(catalog.Contents{})
	}
	if rel := snapshot.ByOID(t.Relation); rel != nil {
		name = rel.Schema + "." + rel.Name
		for _, k := range rel.Keys {
			if k.Index == t.Index {
				var columns []string
				for _, c := range k.Columns {
					columns = append(columns, rel.Columns[c].Name)
				}
				index = strings.Join(columns, ",")
			}
		}
	}
	switch t.Kind {
	case store.TagTable:
		return "table " + name
	case store.TagRows:
		return "rows " + name + "(" + index + ")"
	}
	return fmt.Sprintf("row %s(%s)#%016x", name, index, t.Value)
}
