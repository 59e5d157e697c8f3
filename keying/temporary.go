package keying

import (
	"slices"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// Temporary objects belong to one session: no other sees them, nothing of them is cached, and
// what is written to them invalidates nothing. But they stand in front of all others of their
// name, those of pg_catalog included. So a text is planned without them first, as all sessions
// share it, and again with those that it mentions (Temporaries.Among), if the session has any:
//
//	another session                 this one
//	SELECT … FROM users: cached
//	                                CREATE TEMP TABLE users …
//	                                SELECT … FROM users: of the temporary one, not cached
//	                                INSERT INTO users …: invalidates nothing
//	SELECT … FROM users: a hit
//	                                SELECT … FROM items: a hit
//
// The text of a view knows its tables whatever they are called by now. That of a function looks
// names up when it runs, or has done so when it ran before: it may mean either.

// Temporaries are the temporary objects of a session. They are immutable; nil is none.
type Temporaries struct {
	objects []Temporary // by name
	parents []uint32    // permanent tables that some of them inherit from: their rows are the parents' in this session
	loose   bool
}

// Temporary is one of them.
type Temporary struct {
	Name string
	Kind TemporaryKind
}

// TemporaryKind says what may come of using an object.
type TemporaryKind byte

const (
	TemporaryPlain TemporaryKind = 'a' + iota // a table: nothing runs when it is read or written
	TemporaryCoded                            // writing it may run code, or write another
	TemporaryOther                            // reading it may, too
	TemporaryType                             // no relation

	temporaryParent // its OID, see Temporaries.parents
)

// NewTemporaries takes objects as TemporariesSQL gives them: the kind, then the name.
func NewTemporaries(objects []string) *Temporaries {
	var t *Temporaries
	var parents []uint32
	for _, o := range objects {
		switch {
		case len(o) < 2:
		case TemporaryKind(o[0]) != temporaryParent:
			t = t.with(Temporary{Name: o[1:], Kind: TemporaryKind(o[0])})
		default:
			if oid, err := strconv.ParseUint(o[1:], 10, 32); err == nil {
				parents = append(parents, uint32(oid))
			}
		}
	}
	if t != nil {
		t.parents = parents
	}
	return t
}

// TemporariesSQL is an SQL expression for what NewTemporaries takes, of a session that has a temporary
// schema.
const TemporariesSQL = `CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
   AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN '{}'::pg_catalog.text[]
 ELSE ARRAY(SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'r' THEN 'c' WHEN c.relhastriggers OR c.relhasrules OR c.relhassubclass
   OR c.relrowsecurity OR c.relchecks OPERATOR(pg_catalog.>) 0
   OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid)
   OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
   OR EXISTS (SELECT FROM pg_catalog.pg_attrdef a JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
     AND d.objid OPERATOR(pg_catalog.=) a.oid WHERE a.adrelid OPERATOR(pg_catalog.=) c.oid AND d.refclassid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_class'::pg_catalog.regclass)
   THEN 'b' ELSE 'a' END OPERATOR(pg_catalog.||) c.relname::pg_catalog.text
  FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
  UNION ALL SELECT 'd' OPERATOR(pg_catalog.||) t.typname::pg_catalog.text FROM pg_catalog.pg_type t
  WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
   AND t.typsubscript OPERATOR(pg_catalog.<>) 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
  UNION ALL SELECT DISTINCT 'e' OPERATOR(pg_catalog.||) p.oid::pg_catalog.text FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) c.oid JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
  WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND p.relpersistence OPERATOR(pg_catalog.<>) 't') END`

// Loose returns the same objects where it is not sure that a name means them: pg_temp stands at another
// place of the search_path, or the next statement may run in another session.
func (t *Temporaries) Loose() *Temporaries {
	if t == nil || t.loose {
		return t
	}
	return &Temporaries{t.objects, t.parents, true}
}

// Among returns those that the plan mentions, or may, nil if it mentions none.
func (t *Temporaries) Among(p *Plan) *Temporaries {
	if t == nil {
		return nil
	}
	var parents []uint32
	if len(p.reads) > 0 || len(p.writes) > 0 { // of one of them, perhaps, or of what that inherits from
		parents = t.parents
	}
	var among []Temporary
	for _, o := range t.objects {
		if slices.ContainsFunc(p.mentions, func(name string) bool { return name == o.Name || o.kin(name) }) {
			among = append(among, o)
		}
	}
	if among == nil && parents == nil {
		return nil
	}
	return &Temporaries{among, parents, t.loose}
}

// String tells equal sets from others.
func (t *Temporaries) String() string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	if t.loose {
		b.WriteByte('~')
	}
	for _, o := range t.objects {
		b.WriteByte(byte(o.Kind))
		b.WriteString(o.Name)
		b.WriteByte(0)
	}
	for _, oid := range t.parents {
		b.WriteByte(byte(temporaryParent))
		b.WriteString(strconv.FormatUint(uint64(oid), 10))
		b.WriteByte(0)
	}
	return b.String()
}

// Names yields the names of the objects.
func (t *Temporaries) Names(yield func(string) bool) {
	for i := 0; t != nil && i < len(t.objects); i++ {
		if !yield(t.objects[i].Name) {
			return
		}
	}
}

func (t *Temporaries) find(name string) (Temporary, bool) {
	if t == nil {
		return Temporary{}, false
	}
	i, found := slices.BinarySearchFunc(t.objects, name, func(o Temporary, name string) int { return strings.Compare(o.Name, name) })
	if !found {
		return Temporary{}, false
	}
	return t.objects[i], true
}

// kin reports that PostgreSQL may have made a name out of the object's, for a key, a
// sequence or an array of it. It may have shortened the name for that.
func (o Temporary) kin(name string) bool {
	const kept = 20 // bytes, at the least
	own, name := strings.TrimLeft(o.Name, "_"), strings.TrimLeft(name, "_")
	if len(own) > kept {
		return strings.HasPrefix(name, own[:kept])
	}
	rest, ok := strings.CutPrefix(name, own)
	return ok && (rest == "" || rest[0] == '_')
}

// with returns the set with one more, unless it has one of that name.
func (t *Temporaries) with(o Temporary) *Temporaries {
	if _, ok := t.find(o.Name); ok {
		return t
	}
	next := &Temporaries{}
	if t != nil {
		next.objects, next.parents, next.loose = slices.Clone(t.objects), t.parents, t.loose
	}
	i, _ := slices.BinarySearchFunc(next.objects, o.Name, func(o Temporary, name string) int { return strings.Compare(o.Name, name) })
	next.objects = slices.Insert(next.objects, i, o)
	return next
}

// without returns the set without the object of that name.
func (t *Temporaries) without(name string) *Temporaries {
	if _, ok := t.find(name); !ok {
		return t
	}
	next := &Temporaries{parents: t.parents, loose: t.loose}
	for _, o := range t.objects {
		if o.Name != name {
			next.objects = append(next.objects, o)
		}
	}
	if len(next.objects) == 0 {
		return nil
	}
	return next
}

// TemporaryChange is what a statement does to the temporary objects of its session.
type TemporaryChange struct {
	Of          string // it is about this one, and does nothing where that is not; "" of a new one
	Gone        []string
	Made        []Temporary
	UntilCommit bool // COMMIT drops what it has made
	All         bool // all are gone
	Untold      bool // it does more than that to temporary objects
	Spreads     bool // and perhaps to others
}

// After returns the objects that there are after the change, in the transaction now and, if it
// commits, lasting. ok is false if that is not known: what IF NOT EXISTS or OR REPLACE has
// found is another thing, or a child of a permanent table may be gone.
func (c *TemporaryChange) After(now, lasting *Temporaries) (then, lasts *Temporaries, ok bool) {
	if c.All {
		return nil, nil, true
	}
	if c.Untold || len(c.Gone) > 0 && now != nil && now.parents != nil {
		return nil, nil, false
	}
	if c.Of == "" {
		made := c.Made[0]
		if was, found := now.find(made.Name); found {
			return now, lasting, was.Kind >= made.Kind
		}
	}
	for _, name := range c.Gone {
		now = now.without(name)
	}
	if _, found := lasting.find(c.Of); (found || c.Of == "") && !c.UntilCommit {
		for _, name := range c.Gone {
			lasting = lasting.without(name)
		}
		for _, o := range c.Made {
			lasting = lasting.with(o)
		}
	}
	for _, o := range c.Made {
		now = now.with(o)
	}
	return now, lasting, true
}

// Concerns reports that a plan which was made without the change may mean another thing after it.
func (c *TemporaryChange) Concerns(p *Plan) bool {
	if c.All {
		return len(p.mentions) > 0
	}
	return c.Untold || slices.ContainsFunc(p.mentions, func(name string) bool {
		return slices.Contains(c.Gone, name) || slices.ContainsFunc(c.Made, func(o Temporary) bool { return o.Name == name })
	})
}

// own returns the session's object that a name means at a place where path counts. maybe says
// that it may mean one that goes with a table.
func (a *analysis) own(n parser.Name, path []string) (o Temporary, found, maybe bool) {
	named := parser.IsTemporary(n.Schema)
	if !named && (n.Schema != "" || len(path) == 1 && &path[0] == &viewPath[0]) {
		return o, false, false
	}
	a.plan.mention(n.Name)
	if o, found = a.temporaries.find(n.Name); found || named {
		if !found {
			o = Temporary{n.Name, TemporaryOther} // one of somebody else, or none
		}
		return o, true, false
	}
	if a.temporaries != nil {
		maybe = slices.ContainsFunc(a.temporaries.objects, func(o Temporary) bool { return o.kin(n.Name) })
	}
	return o, false, maybe
}

// ownValues reports that a statement reads or writes one, of whose columns nothing is known.
func (a *analysis) ownValues(s *parser.Statement, path []string) bool {
	own := func(n parser.Name) bool {
		_, own, _ := a.own(n, path)
		return own
	}
	return slices.ContainsFunc(s.Reads, func(r parser.Relation) bool { return own(r.Name) }) ||
		slices.ContainsFunc(s.Writes, func(w parser.Write) bool { return own(w.Target.Name) })
}

// readsOwn takes a read of the object. certain says that the name means nothing else.
func (a *analysis) readsOwn(o Temporary) (certain bool) {
	a.plan.deny(TemporaryTable, o.Name)
	a.anyTypes()
	if o.Kind == TemporaryOther || o.Kind == TemporaryType {
		a.ask()
	}
	return !a.inside && (a.temporaries == nil || !a.temporaries.loose)
}

// writesOwn takes a write to it. Where the name may mean something else PostgreSQL is asked what was written.
func (a *analysis) writesOwn(o Temporary) {
	a.anyTypes()
	if o.Kind != TemporaryPlain || a.inside || a.temporaries == nil || a.temporaries.loose {
		a.askOf()
	}
}

// anyTypes takes what may run for values of types that are not in sight.
func (a *analysis) anyTypes() {
	a.callAll(a.snapshot.TypeWriters())
	for _, c := range a.snapshot.Casts() {
		a.callAll(c.Writers)
	}
}

// define takes a command of DDL. What concerns temporary objects alone changes the session and not the
// catalog, if no event trigger runs for it. What names mean in the session may be another
// thing after any, since a schema of the search_path may be dropped.
//
// What the text of a function does to them depends on when it runs, and what DROP … CASCADE takes with
// them does not stand in the text. PostgreSQL tells before COMMIT whether it was more than that.
func (a *analysis) define(d *parser.Definition) {
	change := a.ofTemporaries(d)
	if change == nil {
		a.ddl()
		return
	}
	a.plan.deny(NotRead, "")
	a.plan.Session = true
	if a.inside || change.Spreads {
		a.askOf()
	}
	a.changes(change)
}

// changes takes a change of temporary objects. To what follows in the same text, a ROLLBACK perhaps,
// a name may mean what it has meant before and what it does after.
func (a *analysis) changes(change *TemporaryChange) {
	a.plan.Temporary = change
	for _, o := range change.Made {
		a.temporaries = a.temporaries.with(o)
	}
	a.temporaries, a.untold = a.temporaries.Loose(), a.untold || change.Untold
}

// ofTemporaries says what the command does to temporary objects, nil if it may do more than PostgreSQL
// is asked for.
func (a *analysis) ofTemporaries(d *parser.Definition) *TemporaryChange {
	if d == nil || a.snapshot.ByOID(descriptions) == nil || a.snapshot.EventTriggers() {
		return nil
	}
	change := &TemporaryChange{UntilCommit: d.UntilCommit, Untold: d.Untold || d.Spreads, Spreads: d.Spreads}
	switch {
	case d.Makes.Name != "":
		if d.Derived && (!a.ownValues(d.Computed, a.path) || !a.inside && (a.temporaries == nil || a.temporaries.loose)) {
			return nil
		}
		made := Temporary{d.Makes.Name, a.kindOf(d)}
		if made.Kind != TemporaryPlain && a.snapshot.Deferrable() {
			a.ask() // what is deferred to COMMIT finds it
		}
		change.Made = []Temporary{made}
	case d.Drops != nil:
		for _, n := range d.Drops {
			if _, ok := a.ownRelation(n); !ok {
				if !d.IfExists || a.snapshot.Resolve(a.path, n.Schema, n.Name) != nil {
					return nil
				}
				change.Untold, change.Spreads = true, true // there is none, or it was made a moment ago
			}
			change.Gone = append(change.Gone, n.Name)
		}
		change.Of = d.Drops[0].Name
	default:
		o, ok := a.ownRelation(d.Alters)
		if !ok {
			return nil
		}
		a.anyTypes()
		change.Of = o.Name
		if d.Renamed != "" {
			change.Gone, change.Made = []string{o.Name}, []Temporary{{d.Renamed, o.Kind}}
		}
	}
	for _, name := range d.Indexes {
		change.Made = append(change.Made, Temporary{name, TemporaryOther})
	}
	return change
}

// ownRelation returns the temporary relation that a name means: certainly, or in the text of a function.
func (a *analysis) ownRelation(n parser.Name) (Temporary, bool) {
	o, own, _ := a.own(n, a.path)
	return o, own && o.Kind != TemporaryType && (a.inside || a.temporaries != nil && !a.temporaries.loose)
}

// extended reports that some of the rows of a table may be in a temporary one.
func (a *analysis) extended(rel *catalog.Relation) bool {
	if a.temporaries == nil || a.temporaries.parents == nil {
		return false
	}
	return slices.ContainsFunc(append(a.snapshot.Descendants(rel.OID), rel.OID), func(oid uint32) bool { return slices.Contains(a.temporaries.parents, oid) })
}

// kindOf says what comes of using what a definition makes.
func (a *analysis) kindOf(d *parser.Definition) TemporaryKind {
	coded := d.Coded || d.Computed != nil && a.mayWrite(d.Computed)
	for _, n := range d.Like {
		if o, own, maybe := a.own(n, a.path); own || maybe {
			coded = coded || maybe || o.Kind != TemporaryPlain
		} else {
			rel := a.snapshot.Resolve(a.path, n.Schema, n.Name)
			coded = coded || rel == nil || len(rel.Code) > 0
		}
	}
	switch {
	case !d.Table && (coded || d.Computed == nil):
		return TemporaryOther
	case !d.Table || coded:
		return TemporaryCoded
	}
	return TemporaryPlain
}

// mayWrite reports that a query may write, or calls what may be replaced by something that does.
func (a *analysis) mayWrite(s *parser.Statement) bool {
	trial := newAnalysis(&Plan{}, a.snapshot, a.path, "")
	trial.temporaries = a.temporaries
	trial.statement(s, a.path)
	return trial.userCode || trial.plan.Writes || trial.plan.Session || trial.plan.Unknown
}
