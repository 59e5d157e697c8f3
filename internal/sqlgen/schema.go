package sqlgen

import (
	"fmt"
	"strings"
)

// Schema is a schema with what the statements over it need to know. It is
// immutable.
type Schema struct {
	// DDL makes the schema and its first rows, one statement each, to be run in
	// order in an empty database.
	DDL []string

	relations []*relation
	functions []function
	changes   []change
	sequences []string
}

// Relations returns the names of all tables, partitions, views and materialised
// views.
func (s *Schema) Relations() []string {
	names := make([]string, len(s.relations))
	for i, r := range s.relations {
		names[i] = r.name
	}
	return names
}

// change is DDL that may come later, and what takes it back.
type change struct {
	do, undo string
}

// relation is a table, partition, view or materialised view.
type relation struct {
	name     string
	kind     kind
	columns  []column
	keys     []key // primary first
	children []*relation
	parent   *relation
	part     *relation // what a view is a part of

	ruled    bool // has rules on writes, with which ON CONFLICT, MERGE and some CTEs are refused
	writable bool // rows can be written
	log      bool // triggers write it; its rows are in nobody's hand
	writes   bool // a view that writes when it is read
}

type kind byte

const (
	table kind = iota
	partitioned
	partition
	view
	materialised
)

type column struct {
	name      string
	typ       *Type
	notNull   bool
	defaulted bool      // has a default, so that an INSERT need not name it
	generated bool      // cannot be written
	refers    *relation // it is part of a foreign key
}

// key is a unique key: its constraint and its columns.
type key struct {
	name    string
	columns []int
	arbiter bool // good for ON CONFLICT: not deferrable
}

func (r *relation) column(name string) *column {
	for i := range r.columns {
		if r.columns[i].name == name {
			return &r.columns[i]
		}
	}
	return nil
}

// primary returns the columns of the primary key.
func (r *relation) primary() []column { return r.of(r.keys[0]) }

func (r *relation) of(k key) []column {
	columns := make([]column, len(k.columns))
	for i, c := range k.columns {
		columns[i] = r.columns[c]
	}
	return columns
}

func names(columns []column) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

func (b *builder) change(do, undo string) {
	b.s.changes = append(b.s.changes, change{do, undo})
}

// Change changes the schema, or takes such a change back, which may not have been made.
func (s *Schema) Change(g *Gen) string {
	c := one(g, s.changes...)
	return one(g, c.do, c.undo)
}

func (s *Schema) having(f func(*relation) bool) (found []*relation) {
	for _, r := range s.relations {
		if f(r) {
			found = append(found, r)
		}
	}
	return found
}

// Schema makes a schema of a few tables and what surrounds them.
func (g *Gen) Schema() *Schema {
	b := &builder{Gen: g, s: &Schema{}}
	b.ddl(typeDDL...)
	b.logs()
	for i := range 3 + g.Below(3) {
		b.table(fmt.Sprintf("t%d", i))
	}
	b.rows()
	b.code()
	b.views()
	b.triggers()
	b.rules()
	b.later()
	return b.s
}

// builder makes a Schema.
type builder struct {
	*Gen
	s *Schema
}

func (b *builder) ddl(texts ...string) { b.s.DDL = append(b.s.DDL, texts...) }

func (b *builder) ddlf(format string, args ...any) { b.ddl(fmt.Sprintf(format, args...)) }

// tables are the tables that applications would write to, partitions left out.
func (b *builder) tables() []*relation {
	return b.s.having(func(r *relation) bool { return (r.kind == table || r.kind == partitioned) && !r.log })
}

// before are the tables made before r. Triggers and functions write to those
// alone, and so never in circles.
func (b *builder) before(r *relation) []*relation {
	all := b.tables()
	for i, t := range all {
		if t == r || r.parent != nil && t == r.parent {
			return all[:i]
		}
	}
	return nil
}
