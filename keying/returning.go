package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Returning is what a statement is made to return besides what it returns by
// itself, so that it tells the values that its rows have, and had, in columns by which
// results are kept.
//
// What UPDATE has changed PostgreSQL returns as it is now (before version 18). How it was tells a
// sub-select, which sees the table as it was when the statement began:
//
//	RETURNING (SELECT o.email FROM customers o WHERE o.id = customers.id AND o.xmax = customers.xmin)
//
// If another transaction has changed the row since then, under READ COMMITTED, the statement has changed another
// version than that one. Then its xmax is not the xmin of the new version, no row is
// found, and nothing is known. The same if others hold a lock on the row, because xmax
// is the number of a multixact. That this be the number of the very transaction that
// writes is left out of account.
type Returning struct {
	Relation uint32   // the target
	Columns  []string // the role must be allowed to SELECT these of it
	List     string   // what is returned, as a list for RETURNING, quoted and qualified
	Width    int      // of List; the first Plain are columns of the target
	Plain    int
	Own      bool // the statement has a RETURNING of its own

	// Few says that the text bounds the rows to about as many as a write names one
	// by one: VALUES, or a WHERE that fixes a unique key. Of other statements that
	// is to be learnt from how many rows they have changed before.
	Few bool
}

// told is a key of which the statement's rows tell the value.
type told struct {
	relation, index uint32
	inParts         []uint8
	outputs         []output  // for each column of the key
	old             bool      // one of them is of the row before
	columns         []int     // where they are in Returning.List
	parts           []part    // what the columns of the key are
	otherwise       store.Tag // if the rows are not returned, or a value is not known
}

// Returning tells what the statement should return; nil where the text says all
// that there is to know, and where it must not be changed.
func (p *Plan) Returning() *Returning { return p.returning }

// TextTags appends the tags of a statement that returns what Returning says,
// without those that RowTags adds for each row.
func (p *Plan) TextTags(dst []store.Tag, v Values) []store.Tag {
	s := store.NewTagSet(dst[len(dst):])
	s.Add(p.written...)
	for i := range p.named {
		p.named[i].tags(&s, v)
	}
	return append(dst, s.Tags()...)
}

// RowTags adds the tags of one row that the statement has returned. columns and
// values are of what Returning says alone; a nil value is NULL.
func (p *Plan) RowTags(s *store.TagSet, v Values, columns []store.Column, values [][]byte) {
next:
	for i := range p.told {
		t := &p.told[i]
		if t.old && values[p.returning.Plain] == nil { // it is not known how the row was
			addParts(s, t.otherwise, t.inParts)
			continue
		}
		h := hashSeed
		for j, c := range t.columns {
			if values[c] == nil {
				continue next
			}
			var ok bool
			if h, ok = t.parts[j].wire(h, columns[c], values[c], v.Encoded); !ok {
				addParts(s, t.otherwise, t.inParts)
				continue next
			}
		}
		addParts(s, store.Tag{Relation: t.relation, Kind: store.TagRow, Index: t.index, Value: h.sum()}, t.inParts)
	}
}

// returns is what the statement should return, nil for nothing.
func (a *analysis) returns(statements []*parser.Statement) *Returning {
	// Rows that were not there before are worth no question: few results depend on them.
	if a.root == nil || a.plan.Asks || !slices.ContainsFunc(a.told, func(t told) bool { return t.otherwise.Kind == store.TagRows }) {
		return nil
	}
	w := statements[0].Writes[0]
	r := &Returning{Relation: a.root.rel.OID, Own: w.Returning, Few: a.few(w)}
	target := w.Target.Alias
	if target == "" {
		target = w.Target.Name.Name
	}
	var list, olds []output
	for i := range a.told {
		for _, o := range a.told[i].outputs {
			if !o.old && !slices.Contains(list, o) {
				list = append(list, o)
			} else if o.old && !slices.Contains(olds, o) {
				olds = append(olds, o)
			}
		}
	}
	r.Plain = len(list)
	if olds != nil {
		list = append(append(list, output{}), olds...)
	}
	r.Width = len(list)
	texts := make([]string, len(list))
	for i, o := range list {
		if i < r.Plain {
			texts[i] = quoted(target) + "." + quoted(o.column)
		} else {
			texts[i] = a.asBefore(o.column, target)
		}
		if o.column != "" && !slices.Contains(r.Columns, o.column) {
			r.Columns = append(r.Columns, o.column)
		}
	}
	if olds != nil {
		r.Columns = append(r.Columns, a.root.versionKey()...)
		r.Columns = append(r.Columns, "xmin", "xmax")
	}
	for i := range a.told {
		for _, o := range a.told[i].outputs {
			a.told[i].columns = append(a.told[i].columns, slices.Index(list, o))
		}
	}
	r.List = strings.Join(texts, ", ")
	return r
}

// asBefore is the value of a column before the statement; of "" it is true. Both are
// NULL if it is not known.
func (a *analysis) asBefore(column, target string) string {
	value := "true"
	if column != "" {
		value = "cachedpg_old." + quoted(column)
	}
	rel := a.root.rel
	text := "(SELECT " + value + " FROM " + quoted(rel.Schema) + "." + quoted(rel.Name) + " cachedpg_old WHERE "
	for _, name := range a.root.versionKey() {
		text += "cachedpg_old." + quoted(name) + " OPERATOR(pg_catalog.=) " + quoted(target) + "." + quoted(name) + " AND "
	}
	return text + "cachedpg_old.xmax OPERATOR(pg_catalog.=) " + quoted(target) + ".xmin)"
}

// few reports that a statement changes no more rows than a write names one by one.
func (a *analysis) few(w parser.Write) bool {
	switch w.Op {
	case parser.OpInsert, parser.OpUpsert:
		return len(w.Rows) > 0 && len(w.Rows) <= maxRows
	case parser.OpUpdate, parser.OpDelete:
		rel := a.root.rel
		for _, k := range a.tracked(rel) {
			if kp, ok := a.fixed(rel, k, w.Target.Equal); ok && k.unique && (kp.list < 0 || !kp.parts[kp.list].array) {
				return true
			}
		}
	}
	return false
}

// mayReturn reports that a text is one statement which may be made to return more.
func mayReturn(statements []*parser.Statement) bool {
	if len(statements) != 1 || len(statements[0].Writes) != 1 {
		return false
	}
	switch statements[0].Kind {
	case parser.Insert, parser.Update, parser.Delete:
		return true
	}
	return false
}

// quoted is a name as an identifier.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
