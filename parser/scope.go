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

	// byName are the first indexed of items. They are not looked up before all are there,
	// but for conditions of joins, which have few.
	byName  map[string][]*item
	indexed int

	mentioned map[string]struct{} // columns without a qualifier that were noted
}

// maxNamed is the number of columns of a relation that are listed by name. It is
// also that of columns without a qualifier at one level, because each may be of every
// relation there. Beyond that all are mentioned, and by name only system columns.
const maxNamed = 100

var systemColumns = map[string]bool{"ctid": true, "xmin": true, "xmax": true, "cmin": true, "cmax": true, "tableoid": true}

// named gives the items of a name.
func (s *scope) named(name string) []*item {
	if s.byName == nil || s.indexed != len(s.items) {
		s.byName, s.indexed = make(map[string][]*item, len(s.items)), len(s.items)
		for _, it := range s.items {
			s.byName[it.name] = append(s.byName[it.name], it)
		}
	}
	return s.byName[name]
}

// cte are the names of a WITH list that are visible, and of those around it.
type cte struct {
	next  *cte
	names map[string]*pg.CommonTableExpr
}

// item is one thing that a qualifier of a column name can mean.
type item struct {
	schema string // of a relation without an alias
	name   string // "" when it cannot be addressed
	rel    *Relation

	// renamed says that the columns have other names than in the relation.
	renamed bool

	// columns are those that are known when rel is nil. byName are those of now.
	columns columns
	byName  map[string][]output

	// scalar says that the whole row may be a value that is no row: that of a
	// function in FROM.
	scalar bool
}

// lookup finds the common table expression that hides a relation's name.
func (c *cte) lookup(name string) *pg.CommonTableExpr {
	for ; c != nil; c = c.next {
		if e := c.names[name]; e != nil {
			return e
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
		for _, it := range level.named(name) {
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
		if _, ok := level.mentioned[name]; ok {
			return // noted in the levels around, too
		}
		if level.mentioned == nil {
			level.mentioned = make(map[string]struct{})
		}
		level.mentioned[name] = struct{}{}
		if len(level.mentioned) == maxNamed {
			for _, it := range level.items {
				it.all()
			}
		}
		if len(level.mentioned) >= maxNamed && !systemColumns[name] {
			continue
		}
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
	case len(it.named(name)) == 0:
		w.attribute(Name{}, name)
		if it.scalar {
			w.cast(Name{Name: name}, elsewhere)
		}
	}
}

// attribute notes value.name, which may be a function call.
func (w *walker) attribute(relation Name, name string) {
	a := Attribute{Relation: relation, Name: name}
	w.st.Attributes = w.attributes.add(w.st.Attributes, a)
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
	case it.renamed || len(it.rel.Columns) >= maxNamed && !systemColumns[name]:
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
