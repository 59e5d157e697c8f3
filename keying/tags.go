package keying

import (
	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// What the tags mean, and why they suffice.
//
// A relation has tracked keys: its unique keys, and single columns. A result that is
// about the rows with some values of one of them, whether there are any or not,
// depends on those rows; which key that is, is the reader's choice. A write says of
// every row that it changes, for every tracked key, the value before and the value
// after:
//
//	TagRow(k, v)  k had the value v in a row, or has it now
//	TagRows(k)    rows of which the value before is not known, and perhaps not the one after
//	TagNew(k)     rows that got a value of k which is not known. If k is not unique, TagRows(k) stands for it
//	TagTable      any change of the relation, always
//	TagChanged    any change but INSERT, of a relation that foreign keys point to
//
// Each of them is about all columns of the rows or about some, see columns.go.
//
// A value that is NULL is left out, because no condition meets it. So a reader who
// depends on TagRow(k, v), TagRows(k) and TagNew(k) hears of every change to the
// rows with v: of a row that gets the value, loses it, or keeps it.
//
// A result that proves that the one row with a value v of a unique key was there needs no
// TagNew(k): no other row can get the value before that one has lost it, which is
// TagRow(k, v) or TagRows(k). INSERT with a key of a sequence then leaves it alone.
//
// A result about the rows with any of several values of a unique key proves
// that all of them were there by counting: where each row
// of the result is made of one row of the relation, and no two of the same, there
// are as many rows as values only if every value has one.
//
// A relation may be found through a foreign key: FROM orders o JOIN customers c ON c.id = o.customer_id.
// Then every customer who has a part in the result is one that an order has, and was there when the order
// was. A new customer changes nothing, as long as the orders are the same, which other
// tags are for: the result depends on TagChanged. In a session where foreign keys are not checked
// (session_replication_role = replica) INSERT counts as a change, and so does one that is seen from outside.
//
// A result need not be the only one that PostgreSQL could give: LIMIT without
// ORDER BY may take any rows, array_agg and a sum of floats any order. It is one
// that PostgreSQL gave, and the rows are as they were.

// maxLookups bounds the relations of one read whose key may be fixed.
const maxLookups = 8

// maxReadTags bounds the tags of one read. What would exceed it depends on its table.
const maxReadTags = 40

// maxListed bounds the rows that a read names one by one.
const maxListed = 32

// maxRows bounds the rows that a write names one by one.
const maxRows = 100

// Longer lists than these, of which Parse leaves some out, name no rows.
var _ [parser.MaxList - max(maxRows, maxListed) - 1]struct{}

// lookup is a relation of which a read fixes keys.
type lookup struct {
	relation uint32
	part     uint8
	keys     []fixedKey // the best first; the first with canonical values counts
}

// fixedKey is a key that a read fixes.
type fixedKey struct {
	keyParts
	unique bool
	proven bool // a row of the result proves that one with the value was there
}

// keyParts is a key with an operand for each column.
type keyParts struct {
	index uint32
	parts []part
	list  int      // the part with several values, -1 if there is none
	rows  [][]part // for VALUES: the parts of each row, instead of parts
}

// namedRows are rows that a write names by the values of a key.
type namedRows struct {
	keyParts
	relation uint32
	unique   bool
	inParts  []uint8
	doubtful store.Tag // in their place, where a value has no canonical form
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

// of returns the parts that have the i-th value, and the place of it in the part of the list.
func (k *keyParts) of(i int) (parts []part, n int) {
	if k.rows != nil {
		return k.rows[i], 0
	}
	return k.parts, i
}

// value gives the hash of the i-th value; false if it has no canonical form.
func (k *keyParts) value(v Values, i int) (uint64, bool) {
	parts, i := k.of(i)
	h := hashSeed
	for j := range parts {
		n := 0
		if j == k.list {
			n = i
		}
		var ok bool
		if h, ok = parts[j].mix(h, v, n); !ok {
			return 0, false
		}
	}
	return h.sum(), true
}

// null reports that one of the i-th values is NULL, which no row is found by.
func (k *keyParts) null(v Values, i int) bool {
	parts, i := k.of(i)
	for j := range parts {
		n := 0
		if j == k.list {
			n = i
		}
		if parts[j].null(v, n) {
			return true
		}
	}
	return false
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
	var absent [maxLookups]store.Tag // what a result with rows does not depend on
	from, missing := len(dst), 0
	for i := range p.lookups {
		l := &p.lookups[i]
		k, n := l.best(v, maxReadTags-(len(tags)-from)-3*(len(p.lookups)-i))
		if k == nil {
			tags = addTag(tags, from, store.Tag{Relation: l.relation, Kind: store.TagTable, Part: l.part})
			continue
		}
		tags = addTag(tags, from, store.Tag{Relation: l.relation, Kind: store.TagRows, Part: l.part, Index: k.index})
		if k.unique {
			t := store.Tag{Relation: l.relation, Kind: store.TagNew, Part: l.part, Index: k.index}
			if k.proven && n == 1 { // a row proves the presence of one value only
				absent[missing] = t
				missing++
			} else {
				tags = addTag(tags, from, t)
			}
		}
		for i := range n {
			if h, ok := k.value(v, i); ok {
				tags = addTag(tags, from, store.Tag{Relation: l.relation, Kind: store.TagRow, Part: l.part, Index: k.index, Value: h})
			}
		}
	}
	always = len(tags)
	for _, t := range absent[:missing] {
		tags = addTag(tags, from, t)
	}
	return tags, always, 1
}

// best returns the first key of which all values have a canonical form, or are NULL,
// and how many they are; nil if there is none with as many as room.
func (l *lookup) best(v Values, room int) (*fixedKey, int) {
	for j := range l.keys {
		k := &l.keys[j]
		n := k.count(v)
		fits := n > 0 && n <= min(maxListed, room)
		for i := 0; fits && i < n; i++ {
			_, fits = k.value(v, i)
			fits = fits || k.null(v, i)
		}
		if fits {
			return k, n
		}
	}
	return nil, 0
}

// list appends the tags of several rows of a unique key, for a result of as many rows; rows is 0
// if the values are not known, or better tags are. Equal values make the rows
// fewer than the values, so the result depends on new rows too: hashes would
// tell which are equal, but must not be what a result's being right stands on.
func (l *lookup) list(dst []store.Tag, v Values) (tags []store.Tag, always, rows int) {
	for j := range l.keys {
		k := &l.keys[j]
		n := k.count(v)
		if n == 1 || !k.unique || !k.proven {
			break
		}
		if n == 0 || n > maxListed {
			continue
		}
		tags = append(dst, store.Tag{Relation: l.relation, Kind: store.TagRows, Part: l.part, Index: k.index})
		fixed := true
		for i := 0; fixed && i < n; i++ {
			var h uint64
			if h, fixed = k.value(v, i); fixed {
				tags = append(tags, store.Tag{Relation: l.relation, Kind: store.TagRow, Part: l.part, Index: k.index, Value: h})
			}
		}
		if fixed {
			return append(tags, store.Tag{Relation: l.relation, Kind: store.TagNew, Part: l.part, Index: k.index}), len(tags), n
		}
	}
	return dst, len(dst), 0
}

// WriteTags appends the tags of everything that executing the text may
// change: none unless Writes. It does not allocate if dst has room.
func (p *Plan) WriteTags(dst []store.Tag, v Values) []store.Tag {
	s := store.NewTagSet(dst[len(dst):])
	s.Add(p.written...)
	s.Add(p.untold...)
	for i := range p.named {
		p.named[i].tags(&s, v)
	}
	if len(dst) == 0 {
		return s.Tags()
	}
	return append(dst, s.Tags()...) // where dst has room they are there already
}

// InsertedTags appends what executing the text invalidates beside WriteTags in a session that
// does not check foreign keys.
func (p *Plan) InsertedTags(dst []store.Tag) []store.Tag { return append(dst, p.inserted...) }

func (n *namedRows) tags(s *store.TagSet, v Values) {
	count := n.count(v)
	fixed := count > 0 && count <= maxRows
	for j := 0; fixed && j < count; j++ {
		_, fixed = n.value(v, j)
		fixed = fixed || n.null(v, j)
	}
	if !fixed {
		addParts(s, n.doubtful, n.inParts)
		return
	}
	for j := range count {
		if h, ok := n.value(v, j); ok {
			addParts(s, store.Tag{Relation: n.relation, Kind: store.TagRow, Index: n.index, Value: h}, n.inParts)
		}
	}
}

func addParts(s *store.TagSet, t store.Tag, parts []uint8) {
	for _, part := range parts {
		t.Part = part
		s.Add(t)
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

// lookup finds the tracked keys of a relation that a read fixes. proves says that a row of
// the result proves a row here that meets the conditions.
func (a *analysis) lookup(rel *catalog.Relation, equal []parser.Equality, proves bool) (lookup, bool) {
	l := lookup{relation: rel.OID}
	if len(equal) == 0 || a.ownEquality() {
		return l, false
	}
	var certain []parser.Equality
	for _, e := range equal {
		if proves && !e.Optional {
			certain = append(certain, e)
		}
	}
	for _, k := range a.tracked(rel) {
		parts, ok := a.fixed(rel, k, certain)
		proven := ok
		if !ok {
			parts, ok = a.fixed(rel, k, equal)
		}
		if ok {
			l.keys = append(l.keys, fixedKey{parts, k.unique, proven})
		}
	}
	return l, len(l.keys) > 0
}
