package parser

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// scope is one query level: what names of columns can refer to.
type scope struct {
	outer *scope // the level around, nil at the top or when it cannot be seen
	ctes  *cte
	items []*item

	// later are the parts of FROM that see all of its items.
	later []func()
}

// cte is a name of a WITH list; names declared later come first.
type cte struct {
	next *cte
	name string
	expr *pg.CommonTableExpr
}

// item is one thing that a qualifier of a column name can mean.
type item struct {
	schema string // of a relation without an alias
	name   string // "" when it cannot be addressed
	rel    *Relation

	// renamed says that the columns have other names than in the relation.
	renamed bool

	// columns are those that are known when rel is nil.
	columns columns

	// scalar says that the whole row may be a value that is no row: that of a
	// function in FROM.
	scalar bool
}

// lookup finds the common table expression that hides a relation's name.
func (c *cte) lookup(name string) *cte {
	for ; c != nil; c = c.next {
		if c.name == name {
			return c
		}
	}
	return nil
}

// find gives the item that a qualified name means, and whether it is sure.
// own is set when it is of this level.
func (s *scope) find(qualifier []string) (found *item, own, sure bool) {
	name := qualifier[len(qualifier)-1]
	schema := ""
	if len(qualifier) > 1 {
		schema = qualifier[len(qualifier)-2]
	}
	for level := s; level != nil; level = level.outer {
		for _, it := range level.items {
			if it.name != name {
				continue
			}
			if schema != "" && it.schema != schema {
				// The search path may put it into that schema.
				if it.schema == "" && it.rel != nil && it.rel.Alias == "" {
					return nil, false, false
				}
				continue
			}
			if found != nil {
				return nil, false, false
			}
			found, own = it, level == s
		}
		if found != nil {
			return found, own, true
		}
	}
	return nil, false, false
}

// column notes a mention of a column.
func (w *walker) column(s *scope, c *pg.ColumnRef) {
	names, star, ok := fieldNames(c.Fields)
	switch {
	case !ok:
		w.deny()
	case star && len(names) == 0:
		for _, it := range s.items {
			it.all()
		}
	case star:
		if it, _, ok := s.find(names); ok {
			it.all()
		} else {
			s.allColumns()
		}
	case len(names) == 1:
		w.bareColumn(s, names[0])
	default:
		w.qualifiedColumn(s, names[:len(names)-1], names[len(names)-1])
	}
}

// bareColumn notes a column without a qualifier: it may be of any item in any
// level that is visible, so each relation gets it. A name of a relation means
// its whole row.
func (w *walker) bareColumn(s *scope, name string) {
	for level := s; level != nil; level = level.outer {
		for _, it := range level.items {
			if it.rel == nil {
				continue
			}
			if it.name == name {
				it.all()
			}
			it.column(name)
		}
	}
}

func (w *walker) qualifiedColumn(s *scope, qualifier []string, name string) {
	it, _, ok := s.find(qualifier)
	switch {
	case !ok:
		s.allColumns()
		w.attribute(Name{}, name)
		w.cast(Name{Name: name}, elsewhere)
	case it.rel != nil:
		it.column(name)
		w.attribute(it.rel.Name, name)
	case !it.columns.has(name):
		w.attribute(Name{}, name)
		if it.scalar {
			w.cast(Name{Name: name}, elsewhere)
		}
	}
}

// attribute notes value.name, which may be a function call.
func (w *walker) attribute(relation Name, name string) {
	a := Attribute{Relation: relation, Name: name}
	if !slices.Contains(w.st.Attributes, a) {
		w.st.Attributes = append(w.st.Attributes, a)
	}
}

// allColumns notes that any column of any visible relation may be meant.
func (s *scope) allColumns() {
	for level := s; level != nil; level = level.outer {
		for _, it := range level.items {
			it.all()
		}
	}
}

func (it *item) all() {
	if it.rel != nil {
		it.rel.AllColumns = true
	}
}

func (it *item) column(name string) {
	switch {
	case it.rel == nil:
	case it.renamed:
		it.rel.AllColumns = true
	case !slices.Contains(it.rel.Columns, name):
		it.rel.Columns = append(it.rel.Columns, name)
	}
}

// fieldNames takes a.b.c or a.b.* apart.
func fieldNames(fields []*pg.Node) (names []string, star, ok bool) {
	for i, f := range fields {
		switch f := f.GetNode().(type) {
		case *pg.Node_String_:
			names = append(names, f.String_.Sval)
		case *pg.Node_AStar:
			if i != len(fields)-1 {
				return nil, false, false
			}
			star = true
		default:
			return nil, false, false
		}
	}
	return names, star, len(names) > 0 || star
}

// qualifiedName takes a possibly qualified name of an object apart; a database
// in front is left out, because it can only be the current one.
func qualifiedName(nodes []*pg.Node) (Name, bool) {
	names, star, ok := fieldNames(nodes)
	if !ok || star || len(names) > 3 {
		return Name{}, false
	}
	n := Name{Name: names[len(names)-1]}
	if len(names) > 1 {
		n.Schema = names[len(names)-2]
	}
	return n, true
}
