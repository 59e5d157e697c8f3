package keying

import (
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// A function that is declared IMMUTABLE is believed, as PostgreSQL believes it, up
// to what its text says: many read tables all the same, and PostgreSQL, which
// runs them for each query, gives what is in the tables now. Then the result
// depends on those, too. Who declares so a function that reads the clock or a
// setting is not helped at all. Of languages that are not read everything is
// believed, and of functions that are declared STABLE and called within: a wrapper of
// unaccent is what IMMUTABLE is used for most.

// believe takes what a function that is declared IMMUTABLE reads.
func (a *analysis) believe(f catalog.Function) {
	path, ok := a.pathOf(f)
	key := running{function: f.OID, path: "\x00" + strings.Join(path, "\x00")}
	body := bodyOf(f)
	if body == nil || a.ran[key] {
		return
	}
	a.ran[key] = true
	name := f.Schema + "." + f.Name
	for _, s := range body.Statements {
		if s.Kind == parser.Set {
			a.kind(s)
		}
		for _, r := range s.Reads {
			if !ok && r.Schema == "" {
				a.plan.deny(UserFunction, name)
			}
			a.hidden = true
			a.relation(r, path)
		}
		for _, k := range s.Keywords {
			if clockKeywords[k] {
				a.plan.deny(UserFunction, name)
			}
		}
		for _, called := range s.Functions {
			a.believeCall(name, called, path)
		}
	}
}

// believeCall looks at a call within the function of that name.
func (a *analysis) believeCall(name string, called parser.Function, path []string) {
	for _, f := range a.snapshot.Functions(path, called.Schema, called.Name.Name, called.Args) {
		switch {
		case !f.Builtin:
			a.believe(f)
		case sessionBuiltins[f.Name]:
			a.overload(f, called.Setting)
		case f.Volatility != 'i' && !stableBuiltins[f.Name]:
			a.plan.deny(UserFunction, name)
		}
	}
}
