package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// later fixes Plan.Later and Plan.Calls. It is the last step of the analysis.
//
// A statement may be run later if what it does depends on nothing but its text,
// its values, the session's settings and the rows that it names: then it does
// after all writes that were ahead of it what it would have done at once.
func (a *analysis) later(statements []*parser.Statement) {
	p := a.plan
	p.Calls = a.userCode
	p.Counted = a.root != nil && !a.userCode && !p.Asks && !p.Opaque && !a.schema
	if len(statements) != 1 || a.userCode || p.Asks || p.Opaque || p.Unknown || p.Catalog || p.Session || a.schema {
		return
	}
	s := statements[0]
	switch s.Kind {
	case parser.Insert, parser.Update, parser.Delete:
	default:
		return
	}
	// A default may be the clock or a sequence, and the facts do not show where
	// the text asks for one.
	if len(s.Reads) > 0 || len(s.Writes) != 1 || len(s.Keywords) > 0 || strings.Contains(strings.ToLower(a.text), "default") {
		return
	}
	w := s.Writes[0]
	rel := a.snapshot.Resolve(a.path, w.Target.Schema, w.Target.Name.Name)
	if rel == nil || rel.Kind != 'r' || rel.Temporary || rel.System || rel.RowSecurity || len(rel.Code) > 0 ||
		len(rel.Parents) > 0 || len(rel.Children) > 0 || len(p.writes) != 1 || a.ownEquality() {
		return
	}
	if !a.pure(s) {
		return
	}
	switch w.Op {
	case parser.OpUpdate, parser.OpDelete:
		p.Later = p.namesKey(rel)
	case parser.OpInsert, parser.OpUpsert:
		p.Later = insertsWhole(rel, w) && p.namesKey(rel)
	}
}

// pure reports that every function and operator of the statement is PostgreSQL's
// own and depends on nothing but operands and settings.
func (a *analysis) pure(s *parser.Statement) bool {
	for _, t := range s.Attributes {
		rel := a.snapshot.Resolve(a.path, t.Relation.Schema, t.Relation.Name)
		if t.Relation.Name == "" || rel == nil || !isColumn(rel, t.Name) {
			return false
		}
	}
	for _, f := range s.Functions {
		found := a.snapshot.Functions(a.path, f.Schema, f.Name.Name, f.Args)
		if len(found) == 0 {
			return false
		}
		for _, o := range found {
			if !o.Builtin || o.Volatility != 'i' || impureBuiltins[o.Name] {
				return false
			}
		}
	}
	for _, o := range s.Operators {
		if slices.ContainsFunc(a.snapshot.Operators(a.path, o.Schema, o.Name), func(o catalog.Operator) bool {
			return !o.Builtin || o.Volatility == 'v'
		}) {
			return false
		}
	}
	for _, t := range s.Types {
		typ, ok := a.snapshot.Type(a.path, t.Schema, strings.TrimSuffix(t.Name, "[]"))
		if !ok || !typ.Builtin || typ.Reg {
			return false
		}
	}
	return true
}

// insertsWhole reports that every column of every row is given as a parameter or
// a literal, so that no default is needed.
func insertsWhole(rel *catalog.Relation, w parser.Write) bool {
	if len(w.Rows) == 0 || len(rel.Keys) == 0 {
		return false
	}
	for i := range rel.Columns {
		if c := &rel.Columns[i]; c.Generated == 0 && !slices.Contains(w.InsertColumns, c.Name) {
			return false
		}
	}
	for _, row := range w.Rows {
		if len(row) != len(w.InsertColumns) || slices.Contains(row, nil) {
			return false
		}
	}
	return true
}

// MayWait reports that the statement, with these values, may be run later with the
// same meaning: Later, and the rows that it changes are known one by one. buf is
// scratch space; it is returned grown.
func (p *Plan) MayWait(v Values, buf []byte) (bool, []byte) {
	if !p.Later {
		return false, buf
	}
	var session [32]byte
	_, buf, reason := p.Key(&session, v, buf) // a text may be "now"
	if reason != NoReason {
		return false, buf
	}
	var s store.TagSet
	for i := range p.named {
		if n := &p.named[i]; n.unique {
			n.tags(&s, v)
		}
	}
	return slices.ContainsFunc(s.Tags(), func(t store.Tag) bool { return t.Kind == store.TagRow }), buf
}

// namesKey reports that the text names rows of rel by a unique key.
func (p *Plan) namesKey(rel *catalog.Relation) bool {
	return slices.ContainsFunc(p.named, func(n namedRows) bool { return n.relation == rel.OID && n.unique })
}
