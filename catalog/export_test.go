package catalog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Describe writes all that a Snapshot says, and what it was made of, in an order of its own. Of what
// initdb has made it counts the rows.
func Describe(s *Snapshot) string {
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	made := 0
	for _, r := range s.relations {
		if r.OID >= firstUserOID {
			line("relation %+v", *r)
		} else {
			made++
		}
		if s.byOID[r.OID] != r || s.byName[name{r.Schema, r.Name}] != r {
			line("relation %d is not found", r.OID)
		}
	}
	for _, all := range s.functions {
		for _, f := range all {
			if f.OID >= firstUserOID {
				line("function %+v", f)
			} else {
				made++
			}
		}
	}
	for _, all := range s.operators {
		for _, o := range all {
			if !o.Builtin {
				line("operator %+v", o)
			} else {
				made++
			}
		}
	}
	for name, t := range s.types {
		if t.OID >= firstUserOID {
			line("type %v %+v", name, t)
		} else {
			made++
		}
	}
	for _, c := range s.casts {
		line("cast %+v", c)
	}
	for id, u := range s.facts.units {
		if id == own || id >= firstUserOID {
			line("unit %d %s", id, describe(u))
		}
	}
	for id, m := range s.facts.members {
		line("members of %d: %+v", id, m)
	}
	line("%v %v %v %v %v %v %v %x", s.unsafeCast, s.incomplete, s.deferrable, s.outward, s.events, s.typeCode, s.schemas, s.digest)
	line("%d of initdb, %d units, %d of %d names", made, len(s.facts.units), len(s.byName), len(s.relations))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// describe writes a unit, whose rows have no order.
func describe(u *unit) string {
	var parts []string
	fields := reflect.ValueOf(*u)
	for i := range fields.NumField() {
		name, f := fields.Type().Field(i).Name, fields.Field(i)
		switch {
		case name == "relation":
			parts = append(parts, fmt.Sprintf("%+v", u.relation))
		case f.Kind() != reflect.Slice:
			parts = append(parts, fmt.Sprintf("%s: %+v", name, f))
		default:
			var rows []string
			for j := range f.Len() {
				rows = append(rows, fmt.Sprintf("%+v", f.Index(j)))
			}
			slices.Sort(rows)
			parts = append(parts, fmt.Sprintf("%s: %s", name, rows))
		}
	}
	return strings.Join(parts, " ")
}

// Shares reports that s was made with facts of old.
func Shares(s, old *Snapshot) bool { return s.facts.units[builtin] == old.facts.units[builtin] }
