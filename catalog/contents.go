package catalog

import (
	"maps"
	"slices"
	"strings"
)

// contents joins the rows.
func (l *loader) contents() (Contents, error) {
	if l.err != nil {
		return Contents{}, l.err
	}
	j := l.gather()
	j.deparsed()
	j.joinFunctions()
	j.joinOperators()
	j.joinTypes()
	j.joinOperands()
	j.joinRelations()
	c := Contents{Relations: j.relations, Incomplete: l.incomplete, Deferrable: j.deferrable, EventTriggers: j.events,
		Schemas: j.schemas.sum(), Digest: j.digest.sum(), facts: &l.facts}
	for _, f := range j.functions {
		c.Outward = c.Outward || f.outward
		c.Functions = append(c.Functions, f.Function)
	}
	for _, o := range j.operators {
		c.Operators = append(c.Operators, o.Operator)
	}
	for _, t := range j.types {
		c.Types = append(c.Types, t.Type)
	}
	for _, cast := range j.casts {
		code := j.functionCode[cast[2]]
		c.Casts = append(c.Casts, Cast{Source: cast[0], Target: cast[1], Volatility: code.volatility(), Writers: code.writers})
	}
	return c, nil
}

// deparsed gives the functions that PostgreSQL keeps parsed the texts that it
// makes of them, in which names are qualified as in those of views.
func (j *join) deparsed() {
	for i := range j.functions {
		f := &j.functions[i]
		text, ok := j.bodies[f.OID]
		if !ok {
			continue
		}
		text = strings.TrimSpace(text)
		if body, ok := strings.CutPrefix(text, "BEGIN ATOMIC"); ok {
			text = strings.TrimSuffix(body, "END")
		} else if expression, ok := strings.CutPrefix(text, "RETURN "); ok {
			text = "SELECT " + expression
		} else {
			continue
		}
		f.Source, f.Deparsed = text, true
	}
}

// runs is what is known of the code behind something: the worst of it.
type runs struct {
	worst   byte     // 0 is 'i'
	writers []uint32 // ascending
}

func (r runs) volatility() byte { return max(r.worst, 'i') }

// and joins two; 'i' < 's' < 'v' happens to be their order as bytes.
func (r runs) and(o runs) runs {
	writers := r.writers
	if len(o.writers) > 0 {
		writers = slices.Concat(r.writers, o.writers)
		slices.Sort(writers)
		writers = slices.Compact(writers)
	}
	return runs{max(r.volatility(), o.volatility()), writers}
}

// join holds what one step of contents computes for the next. What the units hold is
// copied to it as far as it is completed: they are of later snapshots too.
type join struct {
	*loader
	relations  []*Relation // by OID
	byOID      map[uint32]*Relation
	functions  []function
	operators  []operator
	types      []typ
	aggregates [][2]uint32
	operands   [][2]uint32
	typeCode   []codeRow
	casts      [][3]uint32
	castTypes  []uint32
	deferrable bool
	events     bool
	schemas    schemaSum
	digest     sum

	functionCode map[uint32]runs
	operatorCode map[uint32]runs
	typeRuns     map[uint32]runs // user-defined code alone
	special      map[uint32]*typ // modified or defaulted
}

// gather begins a join with the rows of all units.
func (l *loader) gather() *join {
	j := &join{loader: l, relations: make([]*Relation, 0, len(l.units)), byOID: make(map[uint32]*Relation, len(l.units))}
	for _, id := range slices.Sorted(maps.Keys(l.units)) {
		u := l.units[id]
		j.functions = append(j.functions, u.functions...)
		j.operators = append(j.operators, u.operators...)
		j.types = append(j.types, u.types...)
		j.aggregates = append(j.aggregates, u.aggregates...)
		j.operands = append(j.operands, u.operands...)
		j.typeCode = append(j.typeCode, u.typeCode...)
		j.casts = append(j.casts, u.casts...)
		j.castTypes = append(j.castTypes, u.castTypes...)
		j.events = j.events || u.events
		j.deferrable = j.deferrable || slices.ContainsFunc(u.triggers, func(t triggerRow) bool { return t.Deferrable })
		if id == own {
			j.schemas = u.schemas
		}
		if u.relation != nil {
			r := *u.relation
			r.Columns = slices.Clone(u.columns)
			j.relations, j.byOID[r.OID] = append(j.relations, &r), &r
		}
		if u.relation == nil || !u.relation.Temporary {
			j.digest.join(&u.digest)
		}
	}
	return j
}

func (j *join) joinFunctions() {
	j.functionCode = make(map[uint32]runs, len(j.functions))
	for _, f := range j.functions {
		j.functionCode[f.OID] = runs{f.Volatility, f.Writers}
	}
	for range j.functions { // a default may call a function that has defaults
		changed := false
		for _, a := range j.aggregates {
			before := j.functionCode[a[0]]
			after := before.and(j.functionCode[a[1]])
			if after.worst != before.volatility() || len(after.writers) != len(before.writers) {
				j.functionCode[a[0]], changed = after, true
			}
		}
		if !changed {
			break
		}
	}
	for i := range j.functions {
		f := &j.functions[i]
		code := j.functionCode[f.OID]
		f.Volatility, f.Writers = code.volatility(), code.writers
	}
}

// joinOperands adds the code of the types that functions take and return.
func (j *join) joinOperands() {
	code := make(map[uint32]runs)
	for _, o := range j.operands {
		if t := j.typeRuns[o[1]]; t.volatility() != 'i' || len(t.writers) > 0 {
			code[o[0]] = code[o[0]].and(t)
		}
	}
	for i := range j.functions {
		f := &j.functions[i]
		if t, ok := code[f.OID]; ok {
			t = t.and(runs{f.Volatility, f.Writers})
			f.Volatility, f.Writers = t.volatility(), t.writers
		}
	}
}

func (j *join) joinOperators() {
	j.operatorCode = make(map[uint32]runs, len(j.operators))
	for i := range j.operators {
		o := &j.operators[i]
		code := j.functionCode[o.function]
		o.Volatility, o.Writers = code.volatility(), code.writers
		o.Builtin = isBuiltin(o.oid, o.Schema) && o.function < firstUserOID
		j.operatorCode[o.oid] = code
	}
}

func (j *join) joinTypes() {
	j.typeRuns, j.special = make(map[uint32]runs), make(map[uint32]*typ)
	slices.Sort(j.castTypes)
	position := make(map[uint32]int, len(j.types))
	for i, t := range j.types {
		position[t.OID] = i
	}
	// Built-in code is left out: its users know it by name.
	for _, c := range j.typeCode {
		if c.kind != 't' {
			j.typeRuns[c.of] = j.typeRuns[c.of].and(j.codeOf(c))
		}
	}
	j.spread()
	for i := range j.types {
		t := &j.types[i]
		code := j.typeRuns[t.OID]
		t.Volatility, t.Writers = code.volatility(), code.writers
		_, t.Cast = slices.BinarySearch(j.castTypes, t.OID)
		base := t.OID
		// A chain of domains has no cycles, but nothing here may hang on that.
		for range position {
			at, ok := position[base]
			if !ok || j.types[at].Kind != 'd' {
				break
			}
			t.modified = t.modified || j.types[at].modified
			base = j.types[at].Base
		}
		t.Base = base
		if t.modified || t.defaulted {
			j.special[t.OID] = t
		}
	}
}

// spread carries the code of types to the types that are made of them: domains,
// arrays, ranges and composites, which may contain arrays of themselves.
func (j *join) spread() {
	users := make(map[uint32][]uint32)
	use := func(user, used uint32) {
		if used != 0 {
			users[used] = append(users[used], user)
		}
	}
	for _, t := range j.types {
		if t.Kind == 'd' {
			use(t.OID, t.Base)
		}
		use(t.OID, t.Element)
		if t.relation != 0 {
			if u := j.units[t.relation]; u != nil {
				for _, c := range u.columns {
					use(t.OID, c.Type)
				}
			}
		}
	}
	for _, c := range j.typeCode {
		if c.kind == 't' {
			use(c.of, c.object)
		}
	}
	// Most schemas have nothing to carry.
	var todo []uint32
	for oid, code := range j.typeRuns {
		if code.volatility() != 'i' || len(code.writers) > 0 {
			todo = append(todo, oid)
		}
	}
	for len(todo) > 0 {
		used := todo[0]
		todo = todo[1:]
		for _, user := range users[used] {
			before := j.typeRuns[user]
			after := before.and(j.typeRuns[used])
			if after.volatility() != before.volatility() || len(after.writers) != len(before.writers) {
				j.typeRuns[user] = after
				todo = append(todo, user)
			}
		}
	}
}

func (j *join) codeOf(c codeRow) runs {
	switch c.kind {
	case 'p':
		return j.functionCode[c.object]
	case 'o':
		return j.operatorCode[c.object]
	}
	return j.typeRuns[c.object]
}
