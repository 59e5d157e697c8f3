package keying

import (
	"database/sql/driver"
	"math"
	"reflect"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// A parameter that stands in the text once, compared with an integer column, is of
// an integer type in every exec mode. Then it does not matter to the result in which
// Go type its value comes: pgx sends the same number, or the same text. What either of
// them refuses, a number out of range, is refused in every Go type. Elsewhere it may
// matter, as in SELECT $1, where PostgreSQL takes a parameter for a text.

// span is the range of a parameter that is an integer. Within it all Go types have the
// same outcome; the zero value is that of a parameter of which that is not known.
type span struct{ lo, hi int64 }

func (s span) holds(n int64) bool { return s != span{} && s.lo <= n && n <= s.hi }

// integers finds the parameters of a read that are integers.
func (a *analysis) integers(s *parser.Statement) {
	if a.ownEquality() {
		return
	}
	for _, r := range s.Reads {
		rel := a.snapshot.Resolve(a.path, r.Schema, r.Name.Name)
		if rel == nil {
			continue
		}
		for _, e := range r.Equal {
			for i := range rel.Columns {
				if rel.Columns[i].Name == e.Column {
					a.compared(&rel.Columns[i], e)
				}
			}
		}
	}
}

// compared takes the parameters of one condition on a column. A literal in a list
// may give the others its type: in id IN ($1, 1.5) that is numeric.
func (a *analysis) compared(c *catalog.Column, e parser.Equality) {
	p, ok := a.part(c, e)
	if !ok || p.array || p.class != intClass && p.class != oidClass {
		return
	}
	for _, o := range p.values {
		if o.Param == 0 {
			return
		}
	}
	for _, o := range p.values {
		if a.occurrences(o.Param) != 1 {
			continue
		}
		for len(a.plan.integers) < o.Param {
			a.plan.integers = append(a.plan.integers, span{})
		}
		a.plan.integers[o.Param-1] = span{p.lo, p.hi}
	}
}

// integer appends a value of a parameter that is an integer in the form that all Go
// types share; false if it has none, and nothing is appended.
func (e *encoder) integer(v any, within span) bool {
	n, ok := integerOf(v, 0)
	if !ok || !within.holds(n) {
		return false
	}
	e.buf = append(e.buf, codeInteger)
	e.fixed(uint64(n))
	return true
}

// integerOf gives the integer that pgx sends for v. A text must be spelt as pgx spells
// the number: " 7" is 7 to PostgreSQL too, but not wherever pgx reads it. A type of
// the application may be known to pgx by a codec of its own. What is an integer here
// is one to part.value too, so that results under one key have the same tags.
func integerOf(v any, depth int) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case string:
		return strictInteger(v)
	case nil, bool, float64, []byte:
		return 0, false
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint:
		return int64(v), v <= math.MaxInt64
	case uint64:
		return int64(v), v <= math.MaxInt64
	case uint32:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint8:
		return int64(v), true
	}
	if depth > 3 {
		return 0, false
	}
	r := reflect.ValueOf(v)
	t := typeOf(r.Type())
	switch {
	case t.opaque || r.Kind() == reflect.Pointer && r.IsNil():
		return 0, false
	case t.trusted: // another may say something else the next time, and names no row
		value, err := v.(driver.Valuer).Value()
		n, ok := value.(int64)
		return n, ok && err == nil
	case t.valuer:
		return 0, false
	case r.Kind() == reflect.Pointer && !t.methods:
		return integerOf(r.Elem().Interface(), depth+1)
	}
	return 0, false
}
