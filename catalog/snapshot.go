package catalog

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// Snapshot is the schema of one database at one moment. It is immutable and
// safe for concurrent use. What its methods return belongs to it unless they
// say otherwise: read, never change it.
type Snapshot struct {
	relations  []*Relation // by OID
	byOID      map[uint32]*Relation
	byName     map[name]*Relation
	named      map[string][]*Relation // user relations by name, in all schemas
	functions  map[string][]Function  // by name, all schemas
	own        map[uint32]Function    // user-defined functions, by OID
	operators  map[string][]Operator
	types      map[name]Type
	typeByOID  map[uint32]Type
	casts      []Cast
	unsafeCast bool
	incomplete bool
	deferrable bool
	outward    bool
	events     bool
	typeCode   []uint32 // see TypeWriters
	schemas    Schemas
	digest     Digest
	facts      *facts // that it was made of, for Reload; nil if it was made by hand
}

type name struct{ schema, name string }

// Contents is what a Snapshot is made of. Load fills it from a database; tests
// of other packages fill it by hand, with the built-in functions, operators and
// types that they need.
type Contents struct {
	Relations []*Relation
	Functions []Function
	Operators []Operator
	Types     []Type
	Casts     []Cast

	// See the methods of Snapshot.
	Incomplete, Deferrable, Outward, EventTriggers bool
	Schemas                                        Schemas
	Digest                                         Digest
	facts                                          *facts
}

// NewSnapshot makes a Snapshot and takes over what c points to.
//
// It fills in what follows from the rest: Children from Parents, a Column's
// Number (its position) and BaseType (through Types) where they are zero, a Reference's
// OnDelete and OnUpdate where it has an Action, a
// Type's Base and Volatility where they are zero. Keys are put primary first.
func NewSnapshot(c Contents) *Snapshot {
	s := &Snapshot{
		relations:  slices.Clone(c.Relations),
		byOID:      make(map[uint32]*Relation, len(c.Relations)),
		byName:     make(map[name]*Relation, len(c.Relations)),
		named:      make(map[string][]*Relation),
		functions:  make(map[string][]Function),
		operators:  make(map[string][]Operator),
		types:      make(map[name]Type, len(c.Types)),
		typeByOID:  make(map[uint32]Type, len(c.Types)),
		casts:      slices.Clone(c.Casts),
		own:        make(map[uint32]Function),
		incomplete: c.Incomplete,
		deferrable: c.Deferrable,
		outward:    c.Outward,
		events:     c.EventTriggers,
		schemas:    c.Schemas,
		digest:     c.Digest,
		facts:      c.facts,
	}
	for _, t := range c.Types {
		if t.Base == 0 {
			t.Base = t.OID
		}
		if t.Volatility == 0 {
			t.Volatility = 'i'
		}
		s.typeCode = append(s.typeCode, t.Writers...)
		s.types[name{t.Schema, t.Name}] = t
		s.typeByOID[t.OID] = t
	}
	for _, f := range c.Functions {
		s.functions[f.Name] = append(s.functions[f.Name], f)
		if !f.Builtin {
			s.own[f.OID] = f
		}
	}
	for _, o := range c.Operators {
		s.operators[o.Name] = append(s.operators[o.Name], o)
	}
	for _, cast := range c.Casts {
		if cast.Volatility != 'i' {
			s.unsafeCast = true
		}
	}
	slices.Sort(s.typeCode)
	s.typeCode = slices.Compact(s.typeCode)
	s.addRelations()
	return s
}

func (s *Snapshot) addRelations() {
	slices.SortFunc(s.relations, func(a, b *Relation) int { return cmp.Compare(a.OID, b.OID) })
	for _, r := range s.relations {
		s.byOID[r.OID] = r
		s.byName[name{r.Schema, r.Name}] = r
		if !r.System {
			s.named[r.Name] = append(s.named[r.Name], r)
		}
		r.Children = nil
		for i := range r.Columns {
			c := &r.Columns[i]
			if c.Number == 0 {
				c.Number = int16(i + 1)
			}
			if c.BaseType == 0 {
				c.BaseType = c.Type
				if t, ok := s.typeByOID[c.Type]; ok {
					c.BaseType = t.Base
				}
			}
		}
		for i := range r.References {
			f := &r.References[i]
			f.OnDelete, f.OnUpdate = f.OnDelete || f.Deletes != NoAction, f.OnUpdate || f.Updates != NoAction
		}
		slices.SortStableFunc(r.Keys, func(a, b Key) int {
			switch {
			case a.Primary == b.Primary:
				return 0
			case a.Primary:
				return -1
			}
			return 1
		})
	}
	for _, r := range s.relations { // in OID order, so Children ascend
		if r.Temporary {
			continue // its rows are the parent's in one session, which knows
		}
		for _, parent := range r.Parents {
			if p := s.byOID[parent]; p != nil {
				p.Children = append(p.Children, r.OID)
			}
		}
	}
}

// Incomplete reports that definitions of views are missing because someone
// held a lock while they were read. The snapshot is right as it is (a view
// without a definition is not to be relied on); loading again may do better.
func (s *Snapshot) Incomplete() bool { return s.incomplete }

// Deferrable reports that a user's constraint trigger may run as late as in COMMIT.
func (s *Snapshot) Deferrable() bool { return s.deferrable }

// EventTriggers reports that there are any: code that runs on commands which
// change the catalog, and on REFRESH MATERIALIZED VIEW.
func (s *Snapshot) EventTriggers() bool { return s.events }

// Outward reports that there is a user-defined function that may change tables
// over a connection of its own, where the calling transaction does not show it.
func (s *Snapshot) Outward() bool { return s.outward }

// Schemas names the state of the schemas themselves, "" if it is not known.
func (s *Snapshot) Schemas() Schemas { return s.schemas }

// Digest identifies what the snapshot says. It is zero for one that was made by hand.
func (s *Snapshot) Digest() Digest { return s.digest }

// Relations yields all relations in OID order, system relations included.
func (s *Snapshot) Relations() iter.Seq[*Relation] { return slices.Values(s.relations) }

// ByOID returns the relation with this OID, or nil.
func (s *Snapshot) ByOID(oid uint32) *Relation { return s.byOID[oid] }

// AnySchema is a search_path of which nothing is known: a relation is found if it
// is the only one of its name, a function or operator in every schema.
var AnySchema = []string{"*"}

func isAny(path []string) bool { return len(path) == 1 && &path[0] == &AnySchema[0] }

// Resolve finds a relation as PostgreSQL would: in schema, or, when schema is
// "", in the first schema of path that has the name. It returns nil when there
// is none.
//
// Path is current_schemas(true) of the session, which names pg_catalog and the
// session's temporary schema where they are implicit. A session that has a
// temporary schema may have made tables in it after the snapshot was loaded;
// its owner must see to that.
func (s *Snapshot) Resolve(path []string, schema, relation string) *Relation {
	if schema == "" && isAny(path) {
		if r := s.byName[name{"pg_catalog", relation}]; r != nil {
			return r
		}
		if found := s.named[relation]; len(found) == 1 {
			return found[0]
		}
		return nil
	}
	for _, schema := range schemas(path, schema) {
		if r := s.byName[name{schema, relation}]; r != nil {
			return r
		}
	}
	return nil
}

// Ambiguous reports that relations of this name are in several schemas, so that
// the search_path decides which one is meant.
func (s *Snapshot) Ambiguous(relation string) bool { return len(s.named[relation]) > 1 }

// Names reports that a relation which is not temporary has the name, in any schema, or a type
// in one of path.
func (s *Snapshot) Names(path []string, object string) bool {
	if _, ok := s.Type(path, "", object); ok || s.byName[name{"pg_catalog", object}] != nil {
		return true
	}
	return slices.ContainsFunc(s.named[object], func(r *Relation) bool { return !r.Temporary })
}

// Permanent reports that a relation or a type has the OID, and is not one of a session.
func (s *Snapshot) Permanent(oid uint32) bool {
	r := s.byOID[oid]
	t, ok := s.typeByOID[oid]
	return r != nil && !r.Temporary || ok && !strings.HasPrefix(t.Schema, "pg_temp_")
}

// Type finds a type by its pg_type name, as Resolve finds a relation.
func (s *Snapshot) Type(path []string, schema, typ string) (Type, bool) {
	for _, schema := range schemas(path, schema) {
		if t, ok := s.types[name{schema, typ}]; ok {
			return t, true
		}
	}
	return Type{}, false
}

// TypeWriters returns the functions that may write and that run for values of
// some type.
func (s *Snapshot) TypeWriters() []uint32 { return s.typeCode }

// TypeByOID returns the type with this OID.
func (s *Snapshot) TypeByOID(oid uint32) (Type, bool) {
	t, ok := s.typeByOID[oid]
	return t, ok
}

// Functions returns every function that a call of this name with args
// arguments could mean, whatever the types of the arguments: those in schema,
// or in any schema of path when schema is "", in order of path. The slice is the caller's.
//
// None means that PostgreSQL would refuse the call or read it as something
// else: f(x) may be a cast to the type f or the column f of x.
func (s *Snapshot) Functions(path []string, schema, function string, args int) []Function {
	var found []Function
	for _, schema := range schemas(path, schema) {
		for _, f := range s.functions[function] {
			if (f.Schema == schema || isAny(path) && schema == AnySchema[0]) && args >= int(f.MinArgs) && (f.MaxArgs < 0 || args <= int(f.MaxArgs)) {
				found = append(found, f)
			}
		}
	}
	return found
}

// Function returns the user-defined function with this OID.
func (s *Snapshot) Function(oid uint32) (Function, bool) {
	f, ok := s.own[oid]
	return f, ok
}

// Operators returns every operator of this name, whatever the types of its
// operands: those in schema, or in any schema of path when schema is "", in
// order of path. The slice is the caller's.
func (s *Snapshot) Operators(path []string, schema, operator string) []Operator {
	var found []Operator
	for _, schema := range schemas(path, schema) {
		for _, o := range s.operators[operator] {
			if o.Schema == schema || isAny(path) && schema == AnySchema[0] {
				found = append(found, o)
			}
		}
	}
	return found
}

// Casts returns the user-defined casts that call a function.
func (s *Snapshot) Casts() []Cast { return s.casts }

// UnsafeCasts reports whether a user-defined cast calls a function that is not
// immutable.
func (s *Snapshot) UnsafeCasts() bool { return s.unsafeCast }

// Descendants returns the relations that inherit from oid, or are partitions
// of it, at any depth: oid itself left out, each once, nearest first. The slice
// is the caller's.
func (s *Snapshot) Descendants(oid uint32) []uint32 {
	return s.closure(oid, func(r *Relation) []uint32 { return r.Children })
}

// Ancestors returns the relations that oid inherits from, or is a partition
// of, at any depth: oid itself left out, each once, nearest first. The slice is
// the caller's.
func (s *Snapshot) Ancestors(oid uint32) []uint32 {
	return s.closure(oid, func(r *Relation) []uint32 { return r.Parents })
}

func (s *Snapshot) closure(oid uint32, next func(*Relation) []uint32) []uint32 {
	var found []uint32
	seen := map[uint32]bool{oid: true}
	for from, i := oid, 0; ; i++ {
		if r := s.byOID[from]; r != nil {
			for _, to := range next(r) {
				if !seen[to] {
					seen[to] = true
					found = append(found, to)
				}
			}
		}
		if i == len(found) {
			return found
		}
		from = found[i]
	}
}

// schemas returns where to look for a name.
func schemas(path []string, schema string) []string {
	switch schema {
	case "":
		return path
	case "pg_temp": // an alias of the session's own temporary schema
		for _, s := range path {
			if strings.HasPrefix(s, "pg_temp_") {
				return []string{s}
			}
		}
		return nil
	}
	return []string{schema}
}
