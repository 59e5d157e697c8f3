package keying

import (
	"math"
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// fixed finds for each column of a key the operands that fix it. At most one
// column may have several.
func (a *analysis) fixed(rel *catalog.Relation, k tracked, equal []parser.Equality) (keyParts, bool) {
	kp := keyParts{index: k.index, list: -1}
	for i, c := range k.columns {
		p, ok := a.condition(&rel.Columns[c], equal)
		if !ok || !kp.add(i, p) {
			return kp, false
		}
	}
	return kp, true
}

// add adds the i-th part; false if it is the second one with several values.
func (k *keyParts) add(i int, p part) bool {
	if p.array || len(p.values) > 1 {
		if k.list >= 0 || len(p.values) > maxRows {
			return false
		}
		k.list = i
	}
	k.parts = append(k.parts, p)
	return true
}

// condition finds what fixes a column. Any one of several conditions will do; the
// shortest names fewest rows.
func (a *analysis) condition(column *catalog.Column, equal []parser.Equality) (best part, found bool) {
	for _, e := range equal {
		if e.Column != column.Name {
			continue
		}
		p, ok := a.part(column, e)
		if ok && (!found || !p.array && (best.array || len(p.values) < len(best.values))) {
			best, found = p, true
		}
	}
	return best, found
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
	if !comparable(c) || len(e.Values) == 0 || a.inside {
		return p, false
	}
	for _, o := range e.Values {
		if !a.castFits(o.Cast, p.class, e.Array) || e.Array && (o.Param == 0 || o.Negated) || o.Row != parser.NoRow {
			return p, false
		}
		p.values = append(p.values, operand{Operand: o, shared: a.shared(o, p.class, e.Array)})
	}
	return p, true
}

// given is the part of a value that is stored in a column.
func (a *analysis) given(c *catalog.Column, o parser.Operand) (part, bool) {
	p, ok := a.part(c, parser.Equality{Values: []parser.Operand{o}})
	p.stored = c.Modified
	return p, ok
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

// carry adds conditions that hold for other columns as well, until there are none left.
func (a *analysis) carry(s *parser.Statement, path []string, conditions [][]parser.Equality) [][]parser.Equality {
	if len(s.Carried) == 0 || a.ownEquality() {
		return conditions
	}
	conditions = slices.Clone(conditions)
	column := func(p parser.Place) *catalog.Column {
		r := s.Reads[p.Read]
		rel := a.snapshot.Resolve(path, r.Schema, r.Name.Name)
		if rel == nil {
			return nil
		}
		if i := columnNamed(rel, p.Column); i >= 0 {
			return &rel.Columns[i]
		}
		return nil
	}
	done := make([]int, len(s.Carried)) // conditions of From that were carried
	for changed := true; changed; {
		changed = false
		for i, c := range s.Carried {
			list := conditions[c.From.Read]
			if done[i] == len(list) {
				continue
			}
			from, to := column(c.From), column(c.To)
			// Of one class, values that are equal to a third are equal to each other.
			fits := from != nil && to != nil && sameClass(from, to)
			for _, e := range list[done[i]:] {
				if !fits || e.Column != c.From.Column {
					continue
				}
				e.Column, e.Optional = c.To.Column, e.Optional || c.Optional
				if !slices.ContainsFunc(conditions[c.To.Read], func(o parser.Equality) bool { return sameCondition(o, e) }) {
					conditions[c.To.Read] = append(slices.Clip(conditions[c.To.Read]), e)
					changed = true
				}
			}
			done[i] = len(list)
		}
	}
	return conditions
}

// sameClass reports that values of two columns that are equal have the same canonical form.
func sameClass(a, b *catalog.Column) bool {
	return comparable(a) && comparable(b) && classOf(a.BaseType) == classOf(b.BaseType)
}

func sameCondition(a, b parser.Equality) bool {
	return a.Column == b.Column && a.Array == b.Array && a.Optional == b.Optional && slices.Equal(a.Values, b.Values)
}
