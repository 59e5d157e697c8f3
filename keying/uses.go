package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// PostgreSQL gives a parameter its type where it stands first. In
// WHERE score > $1 AND id = $1 that may be float4, and then id = $1 compares as
// float8, in which neighbours among large integers are equal. So a parameter
// is taken without reserve only if all its places in the text are comparisons
// with columns of one class.

// use is a parameter compared with columns of a class.
type use struct {
	param int
	class class
	array bool
}

// countUses counts where parameters are compared with, or stored in, columns.
func (a *analysis) countUses(s *parser.Statement) {
	for _, r := range s.Reads {
		a.countEqual(r)
	}
	for _, w := range s.Writes {
		a.countEqual(w.Target)
		rel := a.snapshot.Resolve(a.path, w.Target.Schema, w.Target.Name.Name)
		if rel == nil {
			continue
		}
		columns := insertColumns(rel, w)
		for _, row := range w.Rows {
			a.countGiven(rel, columns, row)
		}
		a.countGiven(rel, w.Columns, w.Assigned)
	}
}

// countGiven counts values that are stored in columns.
func (a *analysis) countGiven(rel *catalog.Relation, columns []string, values []*parser.Operand) {
	for i, o := range values {
		if o != nil && i < len(columns) {
			a.countUse(rel, columns[i], *o, false)
		}
	}
}

func (a *analysis) countEqual(r parser.Relation) {
	rel := a.snapshot.Resolve(a.path, r.Schema, r.Name.Name)
	if rel == nil {
		return
	}
	for _, e := range r.Equal {
		for i := range rel.Columns {
			if rel.Columns[i].Name == e.Column && a.ofOneClass(e, classOf(rel.Columns[i].BaseType)) {
				for _, o := range e.Values {
					a.countUse(rel, e.Column, o, e.Array)
				}
			}
		}
	}
}

// ofOneClass reports whether the casts leave all operands in a class. PostgreSQL
// looks for one type of a list and the column: with id IN ($1, $2::float8) the
// type of $1 is float8, wherever else it stands.
func (a *analysis) ofOneClass(e parser.Equality, c class) bool {
	return !slices.ContainsFunc(e.Values, func(o parser.Operand) bool { return !a.castFits(o.Cast, c, e.Array) })
}

func (a *analysis) countUse(rel *catalog.Relation, column string, o parser.Operand, array bool) {
	if o.Param == 0 {
		return
	}
	for i := range rel.Columns {
		if c := classOf(rel.Columns[i].BaseType); rel.Columns[i].Name == column && c != noClass && a.castFits(o.Cast, c, array) {
			a.uses[use{o.Param, c, array}]++
		}
	}
}

// shared reports whether a parameter stands where its type may be another.
func (a *analysis) shared(o parser.Operand, c class, array bool) bool {
	return o.Param != 0 && a.occurrences(o.Param) > a.uses[use{o.Param, c, array}]
}

// occurrences counts $n in the text. It may count too many, in an identifier or a
// literal, never too few.
func (a *analysis) occurrences(param int) int {
	if a.counts == nil {
		a.counts = countParams(a.text)
	}
	if param >= len(a.counts) {
		return 0
	}
	return a.counts[param]
}

// countParams counts each $n in one pass: a list may have thousands.
func countParams(text string) []int {
	counts := make([]int, 1)
	for i := 0; i < len(text); i++ {
		if text[i] != '$' {
			continue
		}
		n := 0
		for i+1 < len(text) && '0' <= text[i+1] && text[i+1] <= '9' && n <= maxParam {
			i++
			n = n*10 + int(text[i]-'0')
		}
		if n > maxParam {
			continue // no parameter
		}
		for n >= len(counts) {
			counts = append(counts, 0)
		}
		counts[n]++
	}
	return counts
}

// maxParam is the highest parameter that the protocol knows.
const maxParam = 65535
