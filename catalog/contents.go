package catalog

import (
	"cmp"
	"slices"
)

// contents joins the rows.
func (l *loader) contents() (Contents, error) {
	if l.err != nil {
		return Contents{}, l.err
	}
	l.deparsed()
	j := &join{loader: l}
	j.joinFunctions()
	j.joinOperators()
	j.joinTypes()
	j.joinOperands()
	j.joinRelations()
	c := Contents{Relations: l.relations, Incomplete: l.incomplete, Deferrable: l.deferrable, Outward: l.outward, EventTriggers: l.events,
		Schemas: l.schemas.sum(), Digest: l.digest.sum()}
	c.Functions = append(c.Functions, l.functions...)
	for _, o := range l.operators {
		c.Operators = append(c.Operators, o.Operator)
	}
	for _, t := range l.types {
		c.Types = append(c.Types, t.Type)
	}
	for _, cast := range l.casts {
		code := j.functionCode[cast[2]]
		c.Casts = append(c.Casts, Cast{Source: cast[0], Target: cast[1], Volatility: code.volatility(), Writers: code.writers})
	}
	return c, nil
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

// join holds what one step of contents computes for the next.
type join struct {
	*loader
	functionCode map[uint32]runs
	operatorCode map[uint32]runs
	typeRuns     map[uint32]runs // user-defined code alone
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
		o.Builtin = builtin(o.oid, o.Schema) && o.function < firstUserOID
		j.operatorCode[o.oid] = code
	}
}

func (j *join) joinTypes() {
	j.typeRuns = make(map[uint32]runs)
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
		base := t.OID
		// A chain of domains has no cycles, but nothing here may hang on that.
		for range position {
			at, ok := position[base]
			if !ok || j.types[at].Kind != 'd' {
				break
			}
			base = j.types[at].Base
		}
		j.types[i].Base = base
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
			for _, c := range j.columns[t.relation] {
				use(t.OID, c.Type)
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

func (j *join) joinRelations() {
	for _, r := range j.relations {
		j.byOID[r.OID] = r
		r.Columns = j.columns[r.OID]
		slices.SortFunc(r.Columns, func(a, b Column) int { return cmp.Compare(a.Number, b.Number) })
		r.View = j.views[r.OID]
		for _, c := range r.Columns {
			r.addCode(j.typeRuns[c.Type].writers, OnInsert|OnUpdate)
		}
	}
	for oid, numbers := range j.partitions {
		if r := j.byOID[oid]; r != nil && !slices.Contains(numbers, 0) {
			for _, number := range numbers {
				if i := columnIndex(r.Columns, number); i >= 0 {
					r.Partitioned = append(r.Partitioned, r.Columns[i].Name)
				}
			}
		}
	}
	j.joinTriggers()
	for _, i := range j.inherits {
		if r := j.byOID[i[0]]; r != nil {
			r.Parents = append(r.Parents, i[1])
		}
	}
	for _, s := range j.sources {
		r, source := j.byOID[s[0]], j.byOID[s[1]]
		if r != nil && (source == nil || !source.System) {
			r.Sources = append(r.Sources, s[1])
		}
	}
	for _, c := range j.code {
		r := j.byOID[c.of]
		switch {
		case r == nil:
		case c.on&OnRead == 0 || r.RowSecurity:
			r.addCode(j.codeOf(c).writers, c.on)
		}
	}
	j.joinKeys()
	for _, r := range j.relations {
		slices.Sort(r.Parents)
		slices.Sort(r.Sources)
		slices.SortFunc(r.Code, compareCode)
		r.Code = slices.CompactFunc(r.Code, func(a, b Code) bool { return compareCode(a, b) == 0 })
		slices.SortFunc(r.Keys, func(a, b Key) int { return cmp.Compare(a.Index, b.Index) })
		slices.SortFunc(r.References, func(a, b Reference) int {
			return cmp.Or(cmp.Compare(a.Table, b.Table), slices.Compare(a.Columns, b.Columns))
		})
	}
}

// addCode adds functions that are not a trigger's.
func (r *Relation) addCode(functions []uint32, on Commands) {
	for _, f := range functions {
		r.Code = append(r.Code, Code{Function: f, On: on})
	}
}

func compareCode(a, b Code) int {
	return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.On, b.On), slices.Compare(a.Columns, b.Columns),
		compareBool(a.Trigger, b.Trigger), compareBool(a.Row, b.Row), compareBool(a.Deferrable, b.Deferrable))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (j *join) joinTriggers() {
	for _, t := range j.triggers {
		r := j.byOID[t.relation]
		if r == nil {
			continue
		}
		for _, number := range t.numbers {
			if i := columnIndex(r.Columns, number); i >= 0 {
				t.Columns = append(t.Columns, r.Columns[i].Name)
			}
		}
		r.Code = append(r.Code, t.Code)
	}
}

func (j *join) joinKeys() {
	for _, k := range j.keys {
		r := j.byOID[k.relation]
		if r == nil {
			continue
		}
		for _, number := range k.numbers {
			// The column's own collation decides what = means in a query.
			if i := columnIndex(r.Columns, number); i >= 0 && r.Columns[i].Deterministic {
				k.Columns = append(k.Columns, i)
			}
		}
		if len(k.Columns) == len(k.numbers) {
			r.Keys = append(r.Keys, k.Key)
		}
	}
	for _, f := range j.references {
		r := j.byOID[f.relation]
		if r == nil {
			continue
		}
		for _, number := range f.numbers {
			if i := columnIndex(r.Columns, number); i >= 0 {
				f.Columns = append(f.Columns, r.Columns[i].Name)
			}
		}
		r.References = append(r.References, f.Reference)
	}
}
