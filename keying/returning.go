package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Returning is what a statement is made to return besides what it returns by
// itself, so that it tells the values that its rows have in columns by which
// results are kept.
type Returning struct {
	Relation uint32   // the target; the role must be allowed to SELECT Columns of it
	Columns  []string // in the order in which RowTags expects them
	List     string   // they as a list for RETURNING, quoted and qualified
	Own      bool     // the statement has a RETURNING of its own

	// Few says that the text bounds the rows to about as many as a write names one
	// by one: VALUES, or a WHERE that fixes a unique key. Of other statements that
	// is to be learnt from how many rows they have changed before.
	Few bool
}

// told is a key of which the statement's rows tell the value.
type told struct {
	relation, index uint32
	names           []string  // of the columns that are returned, for each column of the key
	columns         []int     // the same as indexes into Returning.Columns
	parts           []part    // what the columns of the key are
	otherwise       store.Tag // if the rows are not returned, or a value has no canonical form
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
// values are of Returning's columns alone; a nil value is NULL.
func (p *Plan) RowTags(s *store.TagSet, v Values, columns []store.Column, values [][]byte) {
next:
	for i := range p.told {
		t := &p.told[i]
		h := hashSeed
		for j, c := range t.columns {
			if values[c] == nil {
				continue next
			}
			var ok bool
			if h, ok = t.parts[j].wire(h, columns[c], values[c], v.Encoded); !ok {
				s.Add(t.otherwise)
				continue next
			}
		}
		s.Add(store.Tag{Relation: t.relation, Kind: store.TagRow, Index: t.index, Value: h.sum()})
	}
}

// returns is what the statement should return, nil for nothing.
func (a *analysis) returns(statements []*parser.Statement) *Returning {
	// Rows that were not there before are worth no question: few results depend on them.
	if a.root == nil || a.plan.Asks || !slices.ContainsFunc(a.told, func(t told) bool { return t.otherwise.Kind == store.TagRows }) {
		return nil
	}
	w := statements[0].Writes[0]
	r := &Returning{Relation: a.root.OID, Own: w.Returning, Few: a.few(w)}
	target := w.Target.Alias
	if target == "" {
		target = w.Target.Name.Name
	}
	var list []string
	for i := range a.told {
		t := &a.told[i]
		for _, name := range t.names {
			at := slices.Index(r.Columns, name)
			if at < 0 {
				at = len(r.Columns)
				r.Columns = append(r.Columns, name)
				list = append(list, quoted(target)+"."+quoted(name))
			}
			t.columns = append(t.columns, at)
		}
	}
	r.List = strings.Join(list, ", ")
	return r
}

// few reports that a statement changes no more rows than a write names one by one.
func (a *analysis) few(w parser.Write) bool {
	switch w.Op {
	case parser.OpInsert, parser.OpUpsert:
		return len(w.Rows) > 0 && len(w.Rows) <= maxRows
	case parser.OpUpdate, parser.OpDelete:
		for _, k := range a.tracked(a.root) {
			if kp, ok := a.fixed(a.root, k, w.Target.Equal); ok && k.unique && (kp.list < 0 || !kp.parts[kp.list].array) {
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
