package keying

import (
	"cmp"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// PostgreSQL reads the text 'today' as the current date wherever a text is cast
// to a date or time. For literals and arguments Key looks at the text itself.
// For texts that come out of the database, as in note::date or
// (doc->>'due')::timestamptz, nobody can, and such statements are not cached. The
// cast is told from the harmless created_at::date by what the parser says of
// where the value comes from: columns that are no texts, functions that give
// no texts.

// What is here for texts goes for one more conversion: that of a time to timetz
// which x AT TIME ZONE does unseen, by today's offset of the zone.

// clockCasts judges the conversions of a statement, or of the view that is named.
func (a *analysis) clockCasts(s *parser.Statement, path []string, view string) {
	for _, c := range s.Casts {
		if c.Type.Name == "timezone" && !a.free(c.From, timeOfDay, path) {
			a.plan.deny(ClockType, cmp.Or(view, "timetz"))
		}
		t, ok := a.snapshot.Type(path, c.Type.Schema, strings.TrimSuffix(c.Type.Name, "[]"))
		if ok && a.is(t, timed) && !a.free(c.From, textual, path) {
			a.plan.deny(ClockCast, view)
		}
	}
}

// timed: rows and ranges may hold times.
func timed(t catalog.Type) bool {
	switch t.Base {
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		return true
	}
	return strings.ContainsRune("crm", rune(t.Kind))
}

// free reports whether no value of any of the sources can be of a certain kind
// of types.
func (a *analysis) free(from []parser.Source, of func(catalog.Type) bool, path []string) bool {
	for _, s := range from {
		free := false
		switch s.Kind {
		case parser.FromColumn:
			free = a.freeColumn(s, of, path)
		case parser.FromCall:
			free = a.freeCall(s, of, path)
		case parser.FromOperand: // beside the operands, which are sources too
			free = s.Name.Name != "" && strings.Contains("+-*/%", s.Name.Name) && a.arithmetic(s.Name, path)
		case parser.FromText, parser.FromCast:
			t, ok := a.snapshot.Type(path, s.Name.Schema, strings.TrimSuffix(s.Name.Name, "[]"))
			free = ok && (!a.is(t, of) || s.Kind == parser.FromText && t.Builtin && classOf(t.OID) == textClass)
		}
		if !free {
			return false
		}
	}
	return true
}

func (a *analysis) freeCall(s parser.Source, of func(catalog.Type) bool, path []string) bool {
	switch {
	case !a.builtin(s.Name, path):
		return false
	case timeFunctions[s.Name.Name]:
		return true
	}
	return passingFunctions[s.Name.Name] && a.free(s.From, of, path)
}

// freeColumn looks at every relation that may be meant. If none has such a
// column, the value is what From says.
func (a *analysis) freeColumn(s parser.Source, of func(catalog.Type) bool, path []string) bool {
	found := false
	for _, r := range s.Relations {
		rel := a.snapshot.Resolve(path, r.Schema, r.Name)
		if rel == nil {
			return false
		}
		for i := range rel.Columns {
			if rel.Columns[i].Name != s.Name.Name {
				continue
			}
			found = true
			if t, ok := a.snapshot.TypeByOID(rel.Columns[i].Type); !ok || a.is(t, of) {
				return false
			}
		}
	}
	return found || a.free(s.From, of, path)
}

// textual reports that values of a type are texts, or are made of what may be
// texts and can be taken out again.
func textual(t catalog.Type) bool {
	if t.Builtin {
		switch t.OID {
		case oidChar, oidName, oidText, oidUnknown, oidBpchar, oidVarchar, oidCstring:
			return true
		}
		return t.Kind == 'c' || t.Kind == 'p'
	}
	return t.Element == 0 && strings.ContainsRune("bcprm", rune(t.Kind))
}

// timeOfDay reports that a type is time, or made of what may be one.
func timeOfDay(t catalog.Type) bool {
	return t.Base == oidTime || t.Base == oidTimetz || !t.Builtin && strings.ContainsRune("cprm", rune(t.Kind))
}

// builtin reports whether all functions of a name are PostgreSQL's.
func (a *analysis) builtin(n parser.Name, path []string) bool {
	found := false
	for args := 0; args <= maxArgs; args++ {
		for _, f := range a.snapshot.Functions(path, n.Schema, n.Name, args) {
			if found = true; !f.Builtin {
				return false
			}
		}
	}
	return found
}

// arithmetic reports whether an operator between values that are no texts is
// PostgreSQL's. One of an extension for other types cannot be meant.
func (a *analysis) arithmetic(n parser.Name, path []string) bool {
	for _, o := range a.snapshot.Operators(path, n.Schema, n.Name) {
		if !o.Builtin && !a.beside(o.Left) && !a.beside(o.Right) {
			return false
		}
	}
	return true
}

// beside reports that a type is a built-in one that no time is reckoned with.
func (a *analysis) beside(oid uint32) bool {
	t, ok := a.snapshot.TypeByOID(oid)
	return ok && t.Builtin && !timed(t) && t.OID != oidInterval && !numeric[t.OID]
}

// timeFunctions give dates and timestamps, whatever their arguments.
var timeFunctions = set(`
	date timestamp timestamptz date_trunc date_bin date_add date_subtract
	make_date make_timestamp make_timestamptz
	to_timestamp to_date timezone generate_series
`)

// passingFunctions give one of their arguments, or what one is made of.
var passingFunctions = set(`
	min max any_value array_agg unnest first_value last_value nth_value lag lead
	percentile_disc mode lower upper array_remove array_replace array_append
	array_prepend array_cat trim_array
`)

var numeric = map[uint32]bool{oidInt2: true, oidInt4: true, oidInt8: true, 700: true, 701: true, 1700: true}
