package keying

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// StandIns returns values for the n parameters of the text, for which there are
// no arguments: of a type and range that the tags of rows are made of where a
// parameter fixes a key, one element in an array, different from each other.
func (p *Plan) StandIns(n int) []driver.NamedValue {
	args := make([]driver.NamedValue, n)
	for i := range args {
		args[i].Ordinal = i + 1
	}
	for k := range p.keyParts {
		for _, row := range append(k.rows, k.parts) {
			for j := range row {
				for _, o := range row[j].values {
					if o.Param > 0 && o.Param <= n && args[o.Param-1].Value == nil {
						args[o.Param-1].Value = row[j].standIn(o.Param)
					}
				}
			}
		}
	}
	return args
}

// standIn returns a value that the part has a canonical form of.
func (p *part) standIn(n int) any {
	switch p.class {
	case intClass, oidClass, numericClass:
		return oneOrList(p.array, int64(n&0x7fff))
	case textClass, bpcharClass:
		return oneOrList(p.array, fmt.Sprint("value ", n))
	case uuidClass:
		return oneOrList(p.array, [16]byte{byte(n >> 8), byte(n)})
	case boolClass:
		return oneOrList(p.array, n&1 == 0)
	case dateClass, timestampClass, timestamptzClass:
		return oneOrList(p.array, time.Date(2000, 1, 1+n&0x7fff, 0, 0, 0, 0, time.UTC))
	}
	return nil
}

func oneOrList[T any](list bool, v T) any {
	if list {
		return []T{v}
	}
	return v
}

// keyParts yields every key that the text may fix, with its relation.
func (p *Plan) keyParts(yield func(*keyParts, uint32) bool) {
	for i := range p.lookups {
		for j := range p.lookups[i].keys {
			if !yield(&p.lookups[i].keys[j].keyParts, p.lookups[i].relation) {
				return
			}
		}
	}
	for i := range p.named {
		if !yield(&p.named[i].keyParts, p.named[i].relation) {
			return
		}
	}
}

// TagWords is TagName for one of the tags that p gives for v, where a row has
// the operands of the text in place of a hash: "row public.users(id = $1)".
// Literals are named as in the normalised text, $int, $num, $str and $bit, so
// that no value appears. snapshot is the one that p was made with.
func (p *Plan) TagWords(t store.Tag, v Values, snapshot *catalog.Snapshot) string {
	rel := snapshot.ByOID(t.Relation)
	if t.Kind != store.TagRow || rel == nil {
		return TagName(t, snapshot)
	}
	name := rowsWord(t, rel, "row") + " " + rel.Schema + "." + rel.Name
	for k, relation := range p.keyParts {
		if relation != t.Relation || k.index != t.Index {
			continue
		}
		for i := range k.count(v) {
			if h, ok := k.value(v, i); ok && h == t.Value {
				name += "(" + k.words(rel, v, i) + ")"
				if t.Part != 0 {
					name += partWords(t, snapshot)
				}
				return name
			}
		}
	}
	return name
}

// words puts the i-th operands beside the columns of the key.
func (k *keyParts) words(rel *catalog.Relation, v Values, i int) string {
	parts, n := k.of(i)
	var words []string
	for _, key := range trackedOf(rel) {
		if key.index != k.index {
			continue
		}
		for j, c := range key.columns {
			value := 0
			if j == k.list {
				value = n
			}
			words = append(words, rel.Columns[c].Name+" = "+parts[j].words(v, value))
		}
	}
	return strings.Join(words, ", ")
}

func (p *part) words(v Values, i int) string {
	if p.array {
		return fmt.Sprintf("ANY ($%d)", p.values[0].Param)
	}
	o := p.values[i]
	word := fmt.Sprintf("$%d", o.Param)
	if o.Literal > 0 && o.Literal <= len(v.Literals) {
		word = literalWords[v.Literals[o.Literal-1].Kind]
	}
	if o.Negated {
		word = "-" + word
	}
	return word
}

var literalWords = map[parser.LiteralKind]string{
	parser.Integer: "$int", parser.Number: "$num", parser.String: "$str", parser.BitString: "$bit",
}

// TagName returns a tag in words: "table public.users". The values of a row
// are not in a tag and so not in its name; only their hash is. snapshot may be
// nil; names are then numbers.
func TagName(t store.Tag, snapshot *catalog.Snapshot) string {
	if t.Kind == store.TagSchema {
		return "schema"
	}
	name := fmt.Sprintf("relation %d", t.Relation)
	index := fmt.Sprintf("index %d", t.Index)
	if snapshot == nil {
		snapshot = catalog.NewSnapshot(catalog.Contents{})
	}
	if rel := snapshot.ByOID(t.Relation); rel != nil {
		name = rel.Schema + "." + rel.Name
		for _, k := range trackedOf(rel) {
			if k.index == t.Index {
				var columns []string
				for _, c := range k.columns {
					columns = append(columns, rel.Columns[c].Name)
				}
				index = strings.Join(columns, ",")
			}
		}
	}
	without := ""
	if t.Part != 0 {
		without = partWords(t, snapshot)
	}
	switch t.Kind {
	case store.TagTable:
		return "table " + name + without
	case store.TagChanged:
		return "rows there of " + name + without
	case store.TagRows:
		return rowsWord(t, snapshot.ByOID(t.Relation), "rows") + " " + name + "(" + index + ")" + without
	case store.TagNew:
		return "new " + name + "(" + index + ")" + without
	}
	return fmt.Sprintf("%s %s(%s)#%016x%s", rowsWord(t, snapshot.ByOID(t.Relation), "row"), name, index, t.Value, without)
}

// rowsWord is how rows that have a value in a single column are called, and otherwise what those of a
// unique key are.
func rowsWord(t store.Tag, rel *catalog.Relation, unique string) string {
	if rel != nil && slices.ContainsFunc(rel.Columns, func(c catalog.Column) bool { return uint32(c.Number) == t.Index }) {
		return "values"
	}
	return unique
}

// partWords says which columns a tag leaves out.
func partWords(t store.Tag, snapshot *catalog.Snapshot) string {
	var names []string
	if rel := snapshot.ByOID(t.Relation); rel != nil {
		for i, g := range groupsOf(rel) {
			if uint8(g)&t.Part != 0 {
				names = append(names, rel.Columns[i].Name)
			}
		}
	}
	if names == nil {
		return fmt.Sprintf(" part %d", t.Part)
	}
	return " without " + strings.Join(names, ", ")
}
