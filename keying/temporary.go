package keying

import (
	"slices"
	"strings"

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
)

// NewTemporaries takes objects as TemporariesSQL gives them: the kind, then the name.
func NewTemporaries(objects []string) *Temporaries {
	var t *Temporaries
	for _, o := range objects {
		if len(o) > 1 {
			t = t.with(Temporary{Name: o[1:], Kind: TemporaryKind(o[0])})
		}
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
  WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid) END`

// Loose returns the same objects where it is not sure that a name means them: pg_temp stands at another
// place of the search_path, or the next statement may run in another session.
func (t *Temporaries) Loose() *Temporaries {
	if t == nil || t.loose {
		return t
	}
	return &Temporaries{t.objects, true}
}

// Among returns those that the plan mentions, or may, nil if it mentions none.
func (t *Temporaries) Among(p *Plan) *Temporaries {
	if t == nil || len(p.mentions) == 0 {
		return nil
	}
	var among []Temporary
	for _, o := range t.objects {
		if slices.ContainsFunc(p.mentions, func(name string) bool { return name == o.Name || o.kin(name) }) {
			among = append(among, o)
		}
	}
	if among == nil {
		return nil
	}
	return &Temporaries{among, t.loose}
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
		next.objects, next.loose = slices.Clone(t.objects), t.loose
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
	next := &Temporaries{loose: t.loose}
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
}

// After returns the objects that there are after the change, in the transaction now and, if it
// commits, lasting. ok is false if that is not known: what IF NOT EXISTS or OR REPLACE has
// found is another thing.
func (c *TemporaryChange) After(now, lasting *Temporaries) (then, lasts *Temporaries, ok bool) {
	if c.All {
		return nil, nil, true
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
	return slices.ContainsFunc(p.mentions, func(name string) bool {
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

// writesOwn takes a write to it.
func (a *analysis) writesOwn(o Temporary) (certain bool) {
	a.anyTypes()
	loose := a.temporaries == nil || a.temporaries.loose
	if o.Kind != TemporaryPlain || loose {
		a.ask()
	}
	return !a.inside
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
func (a *analysis) define(d *parser.Definition) {
	change := a.ofTemporaries(d)
	if change == nil {
		a.ddl()
		return
	}
	a.plan.deny(NotRead, "")
	a.plan.Session = true
	a.changes(change)
}

// changes takes a change of temporary objects. To what follows in the same text, a ROLLBACK perhaps,
// a name may mean what it has meant before and what it does after.
func (a *analysis) changes(change *TemporaryChange) {
	a.plan.Temporary = change
	for _, o := range change.Made {
		a.temporaries = a.temporaries.with(o)
	}
	a.temporaries = a.temporaries.Loose()
}

// ofTemporaries says what the command does to temporary objects, nil if it may do more.
func (a *analysis) ofTemporaries(d *parser.Definition) *TemporaryChange {
	if d == nil || a.inside || a.snapshot.ByOID(descriptions) == nil || a.snapshot.EventTriggers() {
		return nil
	}
	change := &TemporaryChange{UntilCommit: d.UntilCommit}
	switch {
	case d.Makes.Name != "":
		made := Temporary{d.Makes.Name, a.kindOf(d)}
		if made.Kind != TemporaryPlain && a.snapshot.Deferrable() {
			a.ask() // what is deferred to COMMIT finds it
		}
		change.Made = []Temporary{made}
	case d.Drops != nil:
		for _, n := range d.Drops {
			if _, ok := a.ownRelation(n); !ok {
				return nil
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

// ownRelation returns the temporary relation that a name certainly means.
func (a *analysis) ownRelation(n parser.Name) (Temporary, bool) {
	o, own, _ := a.own(n, a.path)
	return o, own && a.temporaries != nil && !a.temporaries.loose && o.Kind != TemporaryType
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
