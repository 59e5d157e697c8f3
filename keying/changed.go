package keying

import (
	"math"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

// StoredValue is a column's value as PostgreSQL writes it, of a row that is or
// was stored.
type StoredValue struct {
	Text  string
	Null  bool
	Known bool
}

// ChangedTags appends the tags of rows that were inserted, changed or deleted in
// a relation, seen afterwards and from outside: in the write-ahead log. rows
// returns the value that a column of the i-th row had before; inserted rows are
// not counted by n. With n negative no row is known.
//
// A row of a partition or child is one of its parents' too.
func ChangedTags(dst []store.Tag, snapshot *catalog.Snapshot, oid uint32, n int, rows func(i int, column string) StoredValue) []store.Tag {
	from := len(dst)
	for _, oid := range append([]uint32{oid}, snapshot.Ancestors(oid)...) {
		dst = addTag(dst, from, store.Tag{Relation: oid, Kind: store.TagTable})
		rel := snapshot.ByOID(oid)
		if rel == nil {
			continue // nobody has planned with it; see the caller
		}
		if len(rel.References) > 0 { // whether foreign keys were checked is not known
			dst = addTag(dst, from, store.Tag{Relation: oid, Kind: store.TagChanged})
		}
		for _, k := range trackedOf(rel) {
			dst = changedRows(dst, from, rel, k, n, rows)
			dst = addTag(dst, from, k.appeared(rel)) // the values after it are not known
		}
		dst = inEveryPart(dst, from, rel)
	}
	return dst
}

func changedRows(dst []store.Tag, from int, rel *catalog.Relation, k tracked, n int, rows func(i int, column string) StoredValue) []store.Tag {
	begin := len(dst)
	unknown := func() []store.Tag {
		return addTag(dst[:begin], from, k.any(rel))
	}
	if n < 0 {
		return unknown()
	}
	seen := make(map[uint64]bool, n)
	for i := range n {
		value, null, ok := storedKey(rel, k, func(column string) StoredValue { return rows(i, column) })
		switch {
		case !ok:
			return unknown()
		case !null && !seen[value]: // no read finds a row by a NULL
			seen[value] = true
			dst = append(dst, store.Tag{Relation: rel.OID, Kind: store.TagRow, Index: k.index, Value: value})
		}
	}
	return dst
}

// storedKey gives the hash of a stored row's key, the same as that of a
// statement which fixes the key to these values.
func storedKey(rel *catalog.Relation, k tracked, row func(column string) StoredValue) (value uint64, null, ok bool) {
	h := hashSeed
	for _, i := range k.columns {
		c := &rel.Columns[i]
		v := row(c.Name)
		if !v.Known {
			return 0, false, false
		}
		if v.Null {
			null = true
			continue
		}
		p := part{class: classOf(c.BaseType), lo: math.MinInt64, hi: math.MaxInt64}
		var fits bool
		if p.class == boolClass {
			fits = v.Text == "t" || v.Text == "f"
			h, _ = p.boolean(h, v.Text == "t")
		} else {
			h, fits = p.text(h, v.Text, 0)
		}
		if !fits {
			return 0, false, false
		}
	}
	return h.sum(), null, true
}
