package catalog

import (
	"cmp"
	"slices"
)

func (j *join) joinRelations() {
	for _, r := range j.relations {
		u := j.units[r.OID]
		slices.SortFunc(r.Columns, func(a, b Column) int { return cmp.Compare(a.Number, b.Number) })
		r.View = j.views[r.OID]
		for i := range r.Columns {
			c := &r.Columns[i]
			r.addCode(j.typeRuns[c.Type].writers, OnInsert|OnUpdate)
			if t := j.special[c.Type]; t != nil {
				c.Default, c.Modified = c.Default || t.defaulted, c.Modified || t.modified
			}
		}
		if !slices.Contains(u.partition, 0) {
			r.Partitioned = r.named(u.partition)
		}
		for _, t := range u.triggers {
			t.Columns = r.named(t.numbers)
			r.Code = append(r.Code, t.Code)
		}
		r.Parents = slices.Sorted(slices.Values(u.parents))
		for _, oid := range u.sources {
			if source := j.byOID[oid]; source == nil || !source.System {
				r.Sources = append(r.Sources, oid)
			}
		}
		for _, c := range u.code {
			if c.on&OnRead == 0 || r.RowSecurity {
				r.addCode(j.codeOf(c).writers, c.on)
			}
		}
		j.joinKeys(r, u)
		for _, number := range u.leading {
			if i := columnIndex(r.Columns, number); i >= 0 {
				r.Leading = append(r.Leading, i)
			}
		}
		slices.Sort(r.Leading)
	}
	j.joinReferences()
	for _, r := range j.relations {
		slices.Sort(r.Sources)
		slices.SortFunc(r.Code, compareCode)
		r.Code = slices.CompactFunc(r.Code, func(a, b Code) bool { return compareCode(a, b) == 0 })
		slices.SortFunc(r.Keys, func(a, b Key) int { return cmp.Compare(a.Index, b.Index) })
		slices.SortFunc(r.References, compareReference)
		slices.SortFunc(r.Foreign, compareForeign)
	}
}

// named returns the names of the columns with these numbers; nil for none.
func (r *Relation) named(numbers []int16) (names []string) {
	for _, number := range numbers {
		if i := columnIndex(r.Columns, number); i >= 0 {
			names = append(names, r.Columns[i].Name)
		}
	}
	return names
}

// addCode adds functions that are not a trigger's.
func (r *Relation) addCode(functions []uint32, on Commands) {
	for _, f := range functions {
		r.Code = append(r.Code, Code{Function: f, On: on})
	}
}

func compareCode(a, b Code) int {
	return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.On, b.On), slices.Compare(a.Columns, b.Columns),
		compareBool(a.Trigger, b.Trigger), compareBool(a.Row, b.Row), compareBool(a.Deferrable, b.Deferrable))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (j *join) joinKeys(r *Relation, u *unit) {
	for _, k := range u.keys {
		for _, number := range k.numbers {
			// The column's own collation decides what = means in a query.
			if i := columnIndex(r.Columns, number); i >= 0 && r.Columns[i].Deterministic {
				k.Columns = append(k.Columns, i)
			}
		}
		if len(k.Columns) == len(k.numbers) {
			r.Keys = append(r.Keys, k.Key)
		}
	}
}

// joinReferences puts foreign keys to both ends; they are loaded with the relations that have them.
func (j *join) joinReferences() {
	for _, from := range j.relations {
		for _, f := range j.units[from.OID].references {
			f.Referencing = from.named(f.referencing)
			to := j.byOID[f.to]
			if to == nil {
				continue
			}
			f.Columns = to.named(f.referenced)
			to.References = append(to.References, f.Reference)
			from.Foreign = append(from.Foreign, Foreign{Table: f.to, Columns: f.Referencing, Referenced: f.Columns, Holds: f.holds})
		}
	}
}

func compareReference(a, b Reference) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), slices.Compare(a.Columns, b.Columns), slices.Compare(a.Referencing, b.Referencing),
		cmp.Compare(a.Deletes, b.Deletes), cmp.Compare(a.Updates, b.Updates))
}

func compareForeign(a, b Foreign) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), slices.Compare(a.Columns, b.Columns), slices.Compare(a.Referenced, b.Referenced),
		compareBool(a.Holds, b.Holds))
}
