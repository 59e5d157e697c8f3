package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// maxArgs bounds the search for a function under another number of arguments.
// PostgreSQL's own bound is 100.
const maxArgs = 100

// function judges a call by all functions that it could mean, because which of
// them PostgreSQL chooses depends on types that the text does not show.
func (a *analysis) function(f parser.Function, path []string) {
	if newConstructs[f.Name.Name] {
		a.plan.deny(SessionKeyword, f.Name.Name)
	}
	if f.Schema == "pg_catalog" { // of which the grammar's own calls are
		a.namesakes(f.Name.Name, path)
	}
	found := a.snapshot.Functions(path, f.Schema, f.Name.Name, f.Args)
	for _, o := range found {
		a.overload(o, f.Setting)
	}
	if f.Args == 1 {
		// f(x) is x::f if f is a type, and no function f takes just what x is.
		if t, ok := a.snapshot.Type(path, f.Schema, f.Name.Name); ok {
			a.cast(t)
			return
		}
	}
	if len(found) > 0 || newConstructs[f.Name.Name] && (f.Schema == "" || f.Schema == "pg_catalog") {
		return
	}
	// PostgreSQL would refuse it, or the snapshot is out of date. If nothing of
	// that name is harmless it may be a function that writes, made a moment ago.
	p := a.plan
	p.Unknown = true
	p.deny(UnknownFunction, qualified(f.Name))
	known := false
	for args := 0; args <= maxArgs && !known; args++ {
		for _, o := range a.snapshot.Functions(path, f.Schema, f.Name.Name, args) {
			known = known || o.Builtin
		}
	}
	if !known {
		a.ask()
	}
}

// namesakes judges the user-defined functions that have the name of a construct
// of SQL. Servers which are older than the construct call them.
func (a *analysis) namesakes(construct string, path []string) {
	if !constructsOf16[construct] {
		return
	}
	for args := 0; args <= maxArgs; args++ {
		for _, o := range a.snapshot.Functions(path, "", construct, args) {
			if !o.Builtin {
				a.overload(o, "")
			}
		}
	}
}

// attribute judges value.name, which calls a function if value has no such column.
func (a *analysis) attribute(t parser.Attribute, path []string) {
	if t.Relation.Name != "" {
		rel := a.snapshot.Resolve(path, t.Relation.Schema, t.Relation.Name)
		if _, own, _ := a.own(t.Relation, path); !own && (rel == nil || isColumn(rel, t.Name)) {
			return // if there is none it is denied already
		}
	}
	for _, o := range a.snapshot.Functions(path, "", t.Name, 1) {
		a.overload(o, "")
	}
	if typ, ok := a.snapshot.Type(path, "", t.Name); ok {
		a.cast(typ)
	}
}

func isColumn(rel *catalog.Relation, name string) bool {
	return systemColumns[name] || name == "tableoid" ||
		slices.ContainsFunc(rel.Columns, func(c catalog.Column) bool { return c.Name == name })
}

// overload judges one function that a call could mean. setting is what it sets if
// that is known.
func (a *analysis) overload(o catalog.Function, setting string) {
	p := a.plan
	name := o.Name
	if !o.Builtin {
		a.userCode = true
		name = o.Schema + "." + o.Name
		switch {
		case o.Volatility == 's' || impureExtensions[o.Name]:
			p.deny(UserFunction, name)
		case o.Volatility == 'i':
			a.believe(o)
		case len(o.Writers) > 0:
			p.deny(WritingFunction, name)
		default:
			p.deny(VolatileFunction, name)
		}
		a.callAll(o.Writers)
		if p.Writes {
			p.deny(WritingFunction, name)
		}
		return
	}
	switch {
	case o.Name == "timezone": // of a time it is volatile in PostgreSQL 14; see clockCasts
	case strings.HasPrefix(o.Name, "timetz"):
		p.deny(ClockType, name)
	case sessionBuiltins[o.Name]:
		p.deny(SessionFunction, name)
		a.set(setting)
		if setting == "" || pathSettings[setting] {
			a.astray()
		}
		if o.Name == "pg_reload_conf" { // of all sessions
			a.ddl()
		}
	case queryBuiltins[o.Name] && o.Volatility != 'i':
		p.deny(WritingFunction, name)
		a.ask()
	case o.Volatility == 'i':
		if impureBuiltins[o.Name] {
			p.deny(StableFunction, name)
		}
	case o.Volatility == 's':
		if !stableBuiltins[o.Name] {
			p.deny(StableFunction, name)
		}
	default:
		p.deny(VolatileFunction, name)
	}
}

// operator judges an operator like a function. Built-in ones all do what their
// operands say: those that are stable depend on TimeZone and text search
// settings alone.
func (a *analysis) operator(n parser.Name, path []string) {
	p := a.plan
	found := a.snapshot.Operators(path, n.Schema, n.Name)
	if len(found) == 0 {
		p.Unknown = true
		p.deny(UnknownOperator, n.Name)
		return
	}
	own := !slices.ContainsFunc(found, func(o catalog.Operator) bool { return o.Builtin })
	for _, o := range found {
		// Most overloads of = and + cannot be meant, and one that an extension
		// did not declare IMMUTABLE must not keep everything from the cache.
		if o.Builtin || !own && !a.userCode && (a.unseen(o.Left) || a.unseen(o.Right)) {
			continue
		}
		if o.Volatility != 'i' {
			p.deny(UserOperator, o.Schema+"."+o.Name)
		}
		a.callAll(o.Writers)
	}
}

// typ judges a type that something is cast to.
func (a *analysis) typ(n parser.Name, path []string) {
	named := parser.Name{Schema: n.Schema, Name: strings.TrimSuffix(n.Name, "[]")}
	if _, own, maybe := a.own(named, path); own || maybe {
		a.plan.deny(TemporaryObjects, named.Name)
		a.anyTypes()
		return
	}
	t, ok := a.snapshot.Type(path, n.Schema, strings.TrimSuffix(n.Name, "[]"))
	if !ok {
		a.plan.Unknown = true
		a.plan.deny(UnknownType, qualified(n))
		return
	}
	a.cast(t)
}

func (a *analysis) cast(t catalog.Type) {
	// The configurations and dictionaries of text search change by DDL alone.
	if !t.Builtin || t.Name != "regconfig" && t.Name != "regdictionary" {
		a.present(t)
	}
}

// casts judges the user-defined casts that PostgreSQL may apply unseen. One
// between a user-defined type and another can apply only where such a type is
// in sight, or comes out of a user-defined function.
func (a *analysis) casts() {
	if !a.snapshot.UnsafeCasts() {
		return
	}
	for _, c := range a.snapshot.Casts() {
		if c.Volatility == 'i' {
			continue // believed
		}
		if !a.userCode && (a.unseen(c.Source) || a.unseen(c.Target)) {
			continue
		}
		a.plan.deny(UserCast, "")
		a.callAll(c.Writers)
	}
}

// unseen reports that a type is user-defined and that no value of it is in sight.
func (a *analysis) unseen(oid uint32) bool {
	t, ok := a.snapshot.TypeByOID(oid)
	return ok && !t.Builtin && !a.seen[oid] && !a.unsighted
}
