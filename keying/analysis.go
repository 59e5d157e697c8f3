package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// analysis is the state of making one Plan.
type analysis struct {
	plan     *Plan
	snapshot *catalog.Snapshot
	path     []string
	text     string

	userCode bool // a user-defined function is called
	hidden   bool // one of them reads tables, although it is declared IMMUTABLE
	strayed  bool // the search_path may change while it runs
	calling  bool // a procedure, which may commit unless it is understood
	inside   bool // of a function, of whose operands nothing is known
	loose    bool // the search_path is not that of path alone

	read      map[uint32]bool  // what is in plan.reads
	tables    []store.Tag      // read, and only TagTable will do
	views     map[uint32]*view // taken apart already
	whole     map[uint32]bool  // views on all of which the answer depends
	unordered bool             // rows of the answer may come in another order after a change that they do not show
	single    bool             // a row of the answer is made of rows of one relation, one of each row
	depth     int              // of views within views
	seen      map[uint32]bool  // types of columns that are present
	schema    bool             // WriteTags is the schema tag
	touched   []*written       // what is written
	certain   []store.Tag      // of every execution
	named     []namedRows
	told      []told
	root      *written             // what the statement itself writes, if it may be made to return it
	rooted    bool                 // the text is one statement that may return what it writes
	firing    *firing              // the rows for which the function runs that is taken apart
	firings   int                  // in one another
	keys      map[uint32][]tracked // by relation

	columnGroups map[uint32][]group // by relation
	visited      map[uint32]catalog.Commands
	uses         map[use]int // what parameters are compared with
	counts       []int       // how often parameters stand in the text; nil before it is asked
	ran          map[running]bool

	temporaries *Temporaries // of the session
	untold      bool         // and a statement before has changed them in a way that its text does not tell
	unsighted   bool         // values are read of which the types are not known
}

func newAnalysis(p *Plan, snapshot *catalog.Snapshot, path []string, text string) *analysis {
	return &analysis{plan: p, snapshot: snapshot, path: path, text: text,
		read: make(map[uint32]bool), views: make(map[uint32]*view), whole: make(map[uint32]bool), seen: make(map[uint32]bool),
		visited: make(map[uint32]catalog.Commands), keys: make(map[uint32][]tracked), columnGroups: make(map[uint32][]group), uses: make(map[use]int), ran: make(map[running]bool)}
}

func (a *analysis) run(statements []*parser.Statement) {
	p := a.plan
	a.rooted = mayReturn(statements)
	for _, s := range statements {
		a.countUses(s)
	}
	for _, s := range statements {
		p.Kinds = append(p.Kinds, s.Kind)
		p.Leaves = p.Leaves || leaves(s, a.text)
		a.statement(s, a.path)
	}
	if p.Session && len(statements) == 1 && !a.userCode && !p.Writes {
		p.Sets = setting(statements[0])
	}
	if len(statements) > 1 || a.userCode {
		p.Temporary = nil // it is not all
	}
	if a.strayed && !a.schema && (p.Writes || slices.ContainsFunc(statements, runsCode) && len(statements) > 1) {
		a.ask()
	}
	switch {
	case len(statements) == 0:
		p.deny(NotRead, "")
	case len(statements) > 1:
		p.deny(SeveralStatements, "")
	}
	// Escapes, and literals that go on in the next line, hide what they spell.
	if holdsLiterals(a.text) && (clockInput(a.text) || strings.ContainsAny(a.text, "\\&\n\r")) {
		p.deny(ClockInput, "")
	}
	a.casts()
	if p.Lasting == NoReason {
		a.clockCasts(statements[0], a.path, "")
	}
	if p.Lasting == NoReason {
		a.readPlan(statements[0])
		a.integers(statements[0])
	}
	a.writePlan(statements)
	a.later(statements)
}

// statement takes the facts of one command into the plan. Everything that is
// called is looked at whatever the kind, because calls may write.
func (a *analysis) statement(s *parser.Statement, path []string) {
	a.kind(s)
	unsighted := a.unsighted
	defer func() { a.unsighted = unsighted }()
	a.unsighted = unsighted || a.ownValues(s, path)
	if s.Sample {
		a.plan.deny(Sample, "")
	}
	for _, r := range s.Reads {
		a.relation(r, path)
	}
	for _, f := range s.Functions {
		a.function(f, path)
	}
	for _, t := range s.Attributes {
		a.attribute(t, path)
	}
	for _, t := range s.Types {
		a.typ(t, path)
	}
	for _, o := range s.Operators { // after the types, of which it asks
		a.operator(o, path)
	}
	for _, k := range s.Keywords {
		switch {
		case constantKeywords[k]:
		case clockKeywords[k]:
			a.plan.deny(ClockKeyword, k)
		default:
			a.plan.deny(SessionKeyword, k)
			a.namesakes(k, path)
		}
	}
	for _, w := range s.Writes {
		a.write(w, path)
	}
}

// kind gives the effects that follow from the kind alone.
func (a *analysis) kind(s *parser.Statement) {
	p := a.plan
	switch s.Kind {
	case parser.Select:
		switch {
		case s.Into: // it creates a table
			a.define(s.Defines)
		case len(s.Writes) > 0:
			p.deny(NotRead, "")
		case s.Locks:
			p.deny(RowLock, "")
		}
		return
	case parser.DDL:
		a.define(s.Defines)
	case parser.Remark:
		a.remark()
	case parser.Opaque:
		p.deny(Unparsed, "")
		p.Commits = p.Commits || !s.Bounded // it may be several statements
		a.ask()
	case parser.Do:
		if s.Body == nil {
			p.Commits = true
			a.ask()
			break
		}
		p.Commits = p.Commits || s.Body.Ends
		a.body(s.Body, a.path, a.path)
	case parser.Call: // its function is among the statement's
		a.calling = true
	case parser.Execute:
		a.ask()
	case parser.CommitPrepared:
		// Whose writes become visible is known only to who prepared them.
		p.opaque()
		p.Catalog = true
	case parser.Discard:
		a.discard(s.Discards)
	case parser.Set:
		a.set(s.SettingName)
		if s.SettingName == "" || pathSettings[s.SettingName] {
			a.astray()
		}
	case parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate,
		parser.CopyFrom, parser.Refresh:
		p.Writes = true
		if len(s.Writes) == 0 {
			p.opaque()
		}
	case parser.Cursor:
		if a.inside { // a held one runs its query in COMMIT
			a.ask()
		}
	case parser.Begin, parser.SetTransaction:
		p.Level = p.Level || s.Given || s.Kind == parser.SetTransaction
	case parser.Commit, parser.Rollback, parser.Savepoint, parser.RollbackTo,
		parser.ReleaseSavepoint, parser.PrepareTransaction, parser.RollbackPrepared,
		parser.CopyTo, parser.PrepareStatement, parser.Deallocate,
		parser.Explain, parser.Notify, parser.Lock, parser.Show,
		parser.Maintenance, parser.Empty:
	default: // a kind that was added after this was written
		p.opaqueCode()
	}
	if s.Into && s.Kind != parser.DDL {
		a.ddl()
	}
	p.deny(NotRead, "")
}

// ddl: the catalog changes. It may also create a temporary table or drop a
// schema of the search_path, so what names mean in the session is to be learnt anew.
func (a *analysis) ddl() {
	a.plan.deny(NotRead, "")
	a.plan.Writes, a.plan.Catalog, a.plan.Session = true, true, true
	a.schema = true
}

// descriptions is the OID of pg_description.
const descriptions = 2609

// remark is a change of the catalog that nothing is planned with and no result depends on. An event trigger may do
// more. It is marked as a write of comments, which nobody reads from the cache, so that the catalog is
// compared by which it was found to be no more.
func (a *analysis) remark() {
	comments := a.snapshot.ByOID(descriptions)
	if comments == nil || a.snapshot.EventTriggers() {
		a.ddl()
		return
	}
	a.plan.Writes = true
	a.touched = append(a.touched, &written{a: a, rel: comments})
}

// relation takes a relation that is read.
func (a *analysis) relation(r parser.Relation, path []string) {
	p := a.plan
	rel := a.snapshot.Resolve(path, r.Schema, r.Name.Name)
	switch o, own, maybe := a.own(r.Name, path); {
	case own:
		if a.readsOwn(o) || rel == nil && !a.loose {
			return
		}
	case maybe:
		p.deny(TemporaryObjects, r.Name.Name)
	}
	if a.loose && r.Schema == "" && a.snapshot.Ambiguous(r.Name.Name) {
		a.ask()
	}
	if rel == nil {
		p.Unknown = true
		p.deny(UnknownRelation, qualified(r.Name))
		return
	}
	name := rel.Schema + "." + rel.Name
	switch {
	case rel.System:
		p.deny(SystemCatalog, name)
		return
	case rel.Temporary:
		p.deny(TemporaryTable, name)
	case rel.RowSecurity:
		p.Beyond = true
		p.deny(RowSecurity, name)
		a.code(rel, catalog.OnRead, nil, nil)
	case rel.Unlogged && rel.Kind != 'v':
		p.deny(UnloggedTable, name)
	}
	for _, column := range r.Columns {
		if systemColumns[column] && !slices.ContainsFunc(rel.Columns, func(c catalog.Column) bool { return c.Name == column }) {
			p.deny(SystemColumn, column)
		}
	}
	switch rel.Kind {
	case 'r', 'p', 'm':
		a.table(rel, name)
	case 'v':
		a.columns(rel)
		a.view(rel, name)
	case 'f':
		p.Beyond = true
		p.deny(ForeignTable, name)
		a.table(rel, name)
	case 'S':
		p.deny(SequenceRead, name)
	default:
		p.deny(UnknownRelation, name)
	}
}

// table takes a relation that has rows of its own, or those of its descendants.
func (a *analysis) table(rel *catalog.Relation, name string) {
	p := a.plan
	if !a.read[rel.OID] {
		a.read[rel.OID] = true
		p.reads = append(p.reads, rel.OID)
	}
	a.columns(rel)
	if a.extended(rel) {
		p.deny(TemporaryTable, name)
	}
	for _, oid := range a.snapshot.Descendants(rel.OID) {
		child := a.snapshot.ByOID(oid)
		switch {
		case child == nil:
			p.Unknown = true
			p.deny(UnknownRelation, name)
		case child.Kind == 'f':
			p.Beyond = true
			p.deny(ForeignTable, child.Schema+"."+child.Name)
		case child.Unlogged:
			p.deny(UnloggedTable, child.Schema+"."+child.Name)
		}
	}
}

// columns looks at the types of all columns, mentioned or not: a natural join,
// DISTINCT and a whole row use them unseen.
func (a *analysis) columns(rel *catalog.Relation) {
	for i := range rel.Columns {
		c := &rel.Columns[i]
		if a.seen[c.Type] {
			continue
		}
		a.seen[c.Type] = true
		t, ok := a.snapshot.TypeByOID(c.Type)
		if !ok {
			a.plan.Unknown = true
			a.plan.deny(UnknownType, rel.Schema+"."+rel.Name+"."+c.Name)
			continue
		}
		a.present(t)
	}
}

// present takes a type of which values are read.
func (a *analysis) present(t catalog.Type) {
	p := a.plan
	a.is(t, func(t catalog.Type) bool {
		a.seen[t.OID] = true
		if !t.Builtin && strings.ContainsRune("crm", rune(t.Kind)) {
			a.userCode = true // of what it is made is not in sight
		}
		return false
	})
	a.callAll(t.Writers)
	switch name := t.Schema + "." + t.Name; {
	case a.is(t, func(t catalog.Type) bool { return t.Reg || t.Builtin && t.Name == "aclitem" }):
		p.deny(CatalogType, name)
	case a.is(t, func(t catalog.Type) bool { return t.Base == oidTimetz }):
		p.deny(ClockType, name)
	case t.Volatility != 'i':
		p.deny(UserType, name)
	}
}

// is reports whether f holds for t, its base type or its elements.
func (a *analysis) is(t catalog.Type, f func(catalog.Type) bool) bool {
	for range 4 {
		if f(t) {
			return true
		}
		next := t.Element
		if t.Base != t.OID {
			next = t.Base
		}
		var ok bool
		if t, ok = a.snapshot.TypeByOID(next); next == 0 || !ok {
			return false
		}
	}
	return true // deeper than anyone nests; in doubt it holds
}

// readPlan fixes the tags of a cacheable read.
func (a *analysis) readPlan(s *parser.Statement) {
	p := a.plan
	conditions := make([][]parser.Equality, len(s.Reads))
	for i, r := range s.Reads {
		conditions[i] = r.Equal
	}
	a.single = true
	a.depend(s, a.path, conditions)
	if a.unordered && !a.anyOrder(s) {
		a.showsAll()
	}
	if a.hidden {
		a.single = false
		for _, oid := range p.reads {
			a.tables = append(a.tables, store.Tag{Relation: oid, Kind: store.TagTable})
		}
	}
	p.always = append(p.always, store.Tag{})
	whole := make(map[store.Tag]uint8) // the part of each table on all of which it depends
	for _, t := range a.tables {
		part := t.Part
		t.Part = 0
		if before, ok := whole[t]; ok {
			part &= before
		}
		whole[t] = part
	}
	for _, t := range a.tables {
		t.Part = 0
		t.Part = whole[t]
		p.always = addTag(p.always, 0, t)
	}
	p.lookups = slices.DeleteFunc(p.lookups, func(l lookup) bool {
		part, ok := whole[store.Tag{Relation: l.relation, Kind: store.TagTable}]
		return ok && part&^l.part == 0
	})
	p.lookups = slices.Clip(p.lookups)
	p.single = a.single && len(p.lookups) == 1 && p.lookups[0].keys[0].proven
}

// holdsLiterals reports whether a text may hold string literals. A normalised
// text has none: their places are $str.
func holdsLiterals(text string) bool {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\'':
			return true
		case '$':
			rest := text[i+1:]
			for _, place := range []string{"int", "num", "str", "bit"} {
				if len(rest) >= 3 && rest[:3] == place {
					rest = ""
				}
			}
			if rest != "" && (rest[0] < '0' || rest[0] > '9') {
				return true
			}
		}
	}
	return false
}

func qualified(n parser.Name) string {
	if n.Schema == "" {
		return n.Name
	}
	return n.Schema + "." + n.Name
}
