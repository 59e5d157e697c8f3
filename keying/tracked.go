package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

// tracked is a key by which results of a relation are kept, and by which its writers
// name rows. Both take it from the catalog alone, so they agree where their catalogs do
// (I9, I10).
type tracked struct {
	index   uint32 // of store.Tag: the unique index, or the number of the one column
	columns []int  // indexes into Relation.Columns
	unique  bool   // there is no more than one row with one value
}

// maxTracked bounds the single columns of a table that are tracked, because each of
// them is a tag of every write.
const maxTracked = 8

// trackedOf returns the keys of a relation, the best first: the unique ones, primary first; the
// columns of foreign keys; those that an index begins with; the rest of the unique
// keys. A boolean comes last, because half of the rows have its value.
func trackedOf(rel *catalog.Relation) []tracked {
	keys := make([]tracked, 0, len(rel.Keys)+maxTracked)
	// A table with children may have the value in them as well.
	unique := len(rel.Children) == 0 || rel.Kind == 'p'
	for _, k := range rel.Keys {
		if !slices.ContainsFunc(k.Columns, func(c int) bool { return !comparable(&rel.Columns[c]) }) {
			keys = append(keys, tracked{k.Index, k.Columns, unique})
		}
	}
	var columns []int
	for _, f := range rel.Foreign {
		for _, name := range f.Columns {
			columns = append(columns, columnNamed(rel, name))
		}
	}
	columns = append(columns, rel.Leading...)
	for _, k := range rel.Keys {
		columns = append(columns, k.Columns...)
	}
	slices.SortStableFunc(columns, func(a, b int) int { return rank(rel, a) - rank(rel, b) })
	single := 0
	for i, c := range columns {
		if c < 0 || !comparable(&rel.Columns[c]) || single == maxTracked || slices.Contains(columns[:i], c) ||
			slices.ContainsFunc(rel.Keys, func(k catalog.Key) bool { return len(k.Columns) == 1 && k.Columns[0] == c }) {
			continue
		}
		keys = append(keys, tracked{uint32(rel.Columns[c].Number), []int{c}, false})
		single++
	}
	return keys
}

func rank(rel *catalog.Relation, column int) int {
	if column >= 0 && classOf(rel.Columns[column].BaseType) == boolClass {
		return 1
	}
	return 0
}

// comparable reports whether the values of a column have a canonical form.
func comparable(c *catalog.Column) bool {
	p := part{class: classOf(c.BaseType)}
	return p.class != noClass && (!p.collated() || c.Deterministic)
}

func columnNamed(rel *catalog.Relation, name string) int {
	return slices.IndexFunc(rel.Columns, func(c catalog.Column) bool { return c.Name == name })
}

// any is the tag of rows of which the value is not known.
func (k *tracked) any(rel *catalog.Relation) store.Tag {
	return store.Tag{Relation: rel.OID, Kind: store.TagRows, Index: k.index}
}

// appeared is the tag of rows that get a value which is not known. A row that
// was there is not among them if the key is unique.
func (k *tracked) appeared(rel *catalog.Relation) store.Tag {
	if k.unique {
		return store.Tag{Relation: rel.OID, Kind: store.TagNew, Index: k.index}
	}
	return k.any(rel)
}

// tracked returns the keys of a relation.
func (a *analysis) tracked(rel *catalog.Relation) []tracked {
	keys, ok := a.keys[rel.OID]
	if !ok {
		keys = trackedOf(rel)
		a.keys[rel.OID] = keys
	}
	return keys
}
