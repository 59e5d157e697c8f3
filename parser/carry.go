package parser

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// carried is a Carried whose relations are not numbered yet.
type carried struct {
	from, to             *Relation
	fromColumn, toColumn string
	optional             bool
}

// carry notes from = to, if the condition holds for to. A row of to that meets no row
// of from has no part in the result then; and if from is fixed, which is said of
// its rows that have a part, so is to. from may be of a level around: a
// sub-select matters for the rows of from that matter, and for no others.
func (w *walker) carry(c condition, from, to *pg.Node) {
	rel, column := c.column(to)
	if rel == nil {
		return
	}
	if other, name, _ := columnOf(c.scope, from); other != nil && other != rel {
		w.carried = append(w.carried, carried{other, rel, name, column, c.optional})
	}
}

// using notes the columns of USING, between relations that stand alone: of several
// it is not known which has the column.
func (w *walker) using(c condition, left, right []*item, columns []*pg.Node) {
	if len(left) != 1 || len(right) != 1 {
		return
	}
	for _, pair := range [2][2]*item{{left[0], right[0]}, {right[0], left[0]}} {
		from, to := pair[0], pair[1]
		if from.rel == nil || to.rel == nil || from.renamed || to.renamed || !slices.Contains(c.of, to) {
			continue
		}
		for _, n := range columns {
			name := n.GetString_().GetSval()
			w.carried = append(w.carried, carried{from.rel, to.rel, name, name, c.optional})
		}
	}
}

// between gives what was noted, of relations that are read.
func (w *walker) between() []Carried {
	if len(w.carried) == 0 {
		return nil
	}
	number := make(map[*Relation]int, len(w.reads))
	for i, r := range w.reads {
		number[r] = i
	}
	var list []Carried
	for _, c := range w.carried {
		from, ok := number[c.from]
		to, both := number[c.to]
		if ok && both {
			list = append(list, Carried{From: Place{from, c.fromColumn}, To: Place{to, c.toColumn}, Optional: c.optional})
		}
	}
	return list
}

// rowColumn gives NEW.column or OLD.column in a function, if no relation has that name.
func (w *walker) rowColumn(sc *scope, c *pg.ColumnRef) *Operand {
	names, star, ok := fieldNames(c.Fields)
	if !w.body || !ok || star || len(names) != 2 {
		return nil
	}
	row := NoRow
	switch names[0] {
	case "new":
		row = NewRow
	case "old":
		row = OldRow
	default:
		return nil
	}
	for ; sc != nil; sc = sc.outer {
		if len(sc.named(names[0])) > 0 {
			return nil
		}
	}
	return &Operand{Row: row, Column: names[1]}
}
