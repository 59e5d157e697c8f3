package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
)

// PostgreSQL reads the text 'today' as the current date wherever a text is cast
// to a date or time. For literals and arguments Key looks at the text itself.
// For texts that come out of the database, as in note::date or
// (doc->>'due')::timestamptz, nobody can. Such statements are not cached. The
// cast is told from the harmless created_at::date by looking, in the
// normalised text, at what is cast: it may consist of nothing but parameters,
// literals, columns that are no texts, and functions that give times.

// clockCast reports whether the statement, of which text is the normalised
// form, may read a text of the database as a date or time.
func (a *analysis) clockCast(s *parser.Statement, text string, path []string) bool {
	if !a.castsToTime(s, path) {
		return false
	}
	c := castScan{text: strings.ToLower(text), a: a}
	for _, r := range s.Reads {
		if rel := a.snapshot.Resolve(path, r.Schema, r.Name.Name); rel != nil {
			c.relations = append(c.relations, rel)
		}
	}
	return holdsLiterals(text) || c.colons() || c.calls()
}

// castsToTime reports whether a type with a time in it, or perhaps in it, is
// cast to.
func (a *analysis) castsToTime(s *parser.Statement, path []string) bool {
	for _, f := range s.Functions {
		if f.Args == 1 && slices.Contains([]string{"date", "time", "timestamp", "timestamptz"}, f.Name.Name) {
			return true
		}
	}
	for _, n := range s.Types {
		t, ok := a.snapshot.Type(path, n.Schema, strings.TrimSuffix(n.Name, "[]"))
		if ok && a.is(t, timed) {
			return true
		}
	}
	return false
}

// timed: rows and ranges may hold times.
func timed(t catalog.Type) bool {
	switch t.Base {
	case 1082, 1083, 1114, 1184: // date, time, timestamp, timestamptz
		return true
	}
	return t.Kind == 'c' || t.Kind == 'r' || t.Kind == 'm'
}

// untimedTypes are names behind which no time is read.
var untimedTypes = set(`
	int int2 int4 int8 integer smallint bigint numeric decimal real float float4 float8 double
	text varchar character char bpchar name bool boolean uuid json jsonb bytea interval oid
	inet cidr money regconfig tsvector tsquery
`)

// plainWords are reserved, so they are no names of columns.
var plainWords = set(`and or not null case when then else end from`)

// timeFunctions do not give texts.
var timeFunctions = set(`
	date timestamp timestamptz date_trunc make_date make_time make_timestamp make_timestamptz
	to_timestamp to_date timezone greatest least coalesce min max generate_series extract date_part
`)

// timeTypes may be cast to within the operand.
var timeTypes = set(`date timestamp timestamptz interval int integer bigint int4 int8 numeric`)

// timeless reports whether values of a type hold no text that could be read as
// a time: integers, times, booleans, uuid.
func timeless(typ uint32) bool {
	switch typ {
	case oidBool, oidInt2, oidInt4, oidInt8, oidUUID, 700, 701, 1700, 1082, 1083, 1114, 1184, 1186:
		return true
	}
	return false
}

// castScan looks for casts in a normalised, lower-case text.
type castScan struct {
	a         *analysis
	text      string
	relations []*catalog.Relation
}

// colons looks at every x::type.
func (c *castScan) colons() bool {
	for i := 0; ; {
		n := strings.Index(c.text[i:], "::")
		if n < 0 {
			return false
		}
		i += n
		if !untimedTypes[word(c.text[i+2:])] && !c.harmless(c.before(i)) {
			return true
		}
		i += 2
	}
}

// calls looks at cast(x as type), and at date(x) and the like.
func (c *castScan) calls() bool {
	for i := 0; i < len(c.text); i++ {
		if !wordByte(c.text[i]) || i > 0 && wordByte(c.text[i-1]) {
			continue
		}
		name := word(c.text[i:])
		switch name {
		case "cast", "date", "time", "timestamp", "timestamptz":
		default:
			continue
		}
		rest := strings.TrimLeft(c.text[i+len(name):], " ")
		if !strings.HasPrefix(rest, "(") {
			if name == "cast" {
				return true
			}
			continue
		}
		inner, ok := group(rest)
		if !ok {
			return true
		}
		if name == "cast" {
			as := strings.LastIndex(inner, " as ")
			if as < 0 {
				return true
			}
			if untimedTypes[word(inner[as+4:])] {
				continue
			}
			inner = inner[:as]
		}
		if !c.harmless(inner) {
			return true
		}
	}
	return false
}

// before returns the operand that ends at i: a name, or a bracket with the name
// of a function before it, with the casts between. It is "" if there is none.
func (c *castScan) before(i int) string {
	end := i
	for depth := 0; i > 0; i-- {
		switch b := c.text[i-1]; {
		case b == ')' || b == ']':
			depth++
		case b == '(' || b == '[':
			if depth--; depth < 0 {
				return c.text[i:end]
			}
		case b == '"':
			return ""
		case depth == 0 && !wordByte(b) && b != '.' && b != ':':
			return c.text[i:end]
		}
	}
	return c.text[:end]
}

// harmless reports whether what is cast cannot be a text of the database.
func (c *castScan) harmless(operand string) bool {
	operand = timePhrases.Replace(operand)
	if operand == "" || strings.Contains(operand, "select") || strings.ContainsAny(operand, `|>~"'`) {
		return false
	}
	for i := 0; i < len(operand); i++ {
		if !wordByte(operand[i]) {
			continue
		}
		before, w := operand[:i], word(operand[i:])
		i += len(w)
		after := operand[i:]
		switch {
		case w[0] == '$' || w[0] >= '0' && w[0] <= '9':
		case strings.HasPrefix(after, "."): // what qualifies a column
		case strings.HasSuffix(before, "."):
			if !c.timelessColumn(w) {
				return false
			}
		case plainWords[w]:
		case timeTypes[w] && (strings.HasSuffix(before, "::") || strings.HasPrefix(after, " $str")):
		case timeFunctions[w] && strings.HasPrefix(after, "("):
		case !c.timelessColumn(w):
			return false
		}
	}
	return true
}

// timePhrases are syntax whose words might be names elsewhere. Definitions of
// views cast every text literal to text.
var timePhrases = strings.NewReplacer(" at time zone ", " + ", " with time zone", "", " without time zone", "",
	"$str::text", "$str")

// timelessColumn reports whether a name is that of a column, and of no column
// that may hold a text.
func (c *castScan) timelessColumn(name string) bool {
	found := false
	for _, rel := range c.relations {
		for i := range rel.Columns {
			if strings.ToLower(rel.Columns[i].Name) != name {
				continue
			}
			if !timeless(rel.Columns[i].BaseType) {
				return false
			}
			found = true
		}
	}
	return found
}

// group returns what is in the bracket that s begins with.
func group(s string) (string, bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[1:i], true
			}
		case '"':
			return "", false
		}
	}
	return "", false
}

// word returns the name that s begins with.
func word(s string) string {
	i := 0
	for i < len(s) && wordByte(s[i]) {
		i++
	}
	return s[:i]
}

func wordByte(b byte) bool {
	return b == '_' || b == '$' || b >= 0x80 || '0' <= b && b <= '9' || 'a' <= b && b <= 'z'
}
