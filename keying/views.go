package keying

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// viewPath resolves the names in a view's definition, which are qualified
// unless they are in pg_catalog.
var viewPath = []string{"pg_catalog"}

// maxViewDepth bounds views that stand on views. PostgreSQL has no cycles, but
// definitions read while they change may.
const maxViewDepth = 16

// view takes a view apart: what it reads, it reads whole.
func (a *analysis) view(rel *catalog.Relation, name string) {
	if a.views[rel.OID] {
		return
	}
	a.views[rel.OID] = true
	s, scanned := a.definition(rel)
	if s == nil || a.depth == maxViewDepth {
		a.plan.deny(UnreadableView, name)
		a.plan.Unknown = a.plan.Unknown || s == nil
		a.ask() // it may call functions that write
		return
	}
	for _, l := range scanned.Literals {
		if l.Kind == parser.String && clockInput(l.Text) {
			a.plan.deny(ClockInput, name)
		}
	}
	a.depth++
	for _, r := range s.Reads {
		if base := a.snapshot.Resolve(viewPath, r.Schema, r.Name.Name); base != nil {
			a.tables = append(a.tables, base.OID)
		}
	}
	a.statement(s, viewPath)
	a.depth--
	a.clockCasts(s, viewPath, name)
}

// definition parses a view. It is nil unless the definition is a plain query of
// exactly the relations that PostgreSQL recorded for the view.
func (a *analysis) definition(rel *catalog.Relation) (*parser.Statement, parser.Scanned) {
	scanned, ok := parser.Scan(rel.View)
	if rel.View == "" || !ok {
		return nil, scanned
	}
	statements, err := parser.Parse(rel.View, scanned.Literals)
	if err != nil || len(statements) != 1 || !statements[0].ReadOnly() {
		return nil, scanned
	}
	s := statements[0]
	var sources []uint32
	for _, r := range s.Reads {
		base := a.snapshot.Resolve(viewPath, r.Schema, r.Name.Name)
		if base == nil {
			return nil, scanned
		}
		if base.System {
			continue
		}
		sources = append(sources, base.OID)
	}
	slices.Sort(sources)
	if !slices.Equal(slices.Compact(sources), rel.Sources) {
		return nil, scanned
	}
	return s, scanned
}
