package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
)

// Which policy a relation has: the most specific one that names it. A name is more
// specific than a pattern, a pattern of the name more than one of the schema, more
// letters more than fewer, and of two alike the first counts. "default" is for what
// nothing else names. A partition that nobody names has the policy of its table.

// relationPattern is Policy.Relation, taken apart.
type relationPattern struct {
	schema, name namePattern
	anySchema    bool // none is given
	fallback     bool // default
}

// namePattern is the pieces of a name between asterisks. One piece is a name.
type namePattern []string

func (p namePattern) exact() bool { return len(p) == 1 }

func (p namePattern) letters() (n int) {
	for _, piece := range p {
		n += len(piece)
	}
	return n
}

func (p namePattern) matches(name string) bool {
	if p.exact() {
		return name == p[0]
	}
	last := len(p) - 1
	if !strings.HasPrefix(name, p[0]) {
		return false
	}
	name = name[len(p[0]):]
	for _, piece := range p[1:last] {
		i := strings.Index(name, piece)
		if i < 0 {
			return false
		}
		name = name[i+len(piece):]
	}
	return strings.HasSuffix(name, p[last])
}

var (
	errNamePattern = errors.New("want a relation, schema.relation, a pattern such as audit_* or public.*, or default")
	errNameQuotes  = errors.New("a quote is not closed, or something stands behind it; write \"Weird.Name\" or public.\"Weird.Name\"")
)

// parsePattern reads a relation as PostgreSQL writes it: without quotes it is folded
// to lower case, and * stands for anything.
func parsePattern(s string) (p relationPattern, err error) {
	if s == "default" {
		return relationPattern{fallback: true}, nil
	}
	var parts []namePattern
	for rest := s; ; {
		var part namePattern
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			name, after, ok := cutQuoted(quoted)
			if !ok || after != "" && after[0] != '.' {
				return p, errNameQuotes
			}
			part, rest = namePattern{name}, after
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			if strings.ContainsAny(rest[:end], "\" \t\n") {
				return p, errNamePattern
			}
			part, rest = strings.Split(strings.ToLower(rest[:end]), "*"), rest[end:]
		}
		if part.exact() && part[0] == "" {
			return p, errNamePattern
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 1:
		return relationPattern{name: parts[0], anySchema: true}, nil
	case 2:
		return relationPattern{schema: parts[0], name: parts[1]}, nil
	}
	return p, errNamePattern
}

// cutQuoted cuts a name from its closing quote on; a quote in it is doubled.
func cutQuoted(s string) (name, after string, ok bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return "", "", false
		}
		b.WriteString(s[:i])
		if s = s[i+1:]; !strings.HasPrefix(s, `"`) {
			return b.String(), s, true
		}
		b.WriteByte('"')
		s = s[1:]
	}
}

// splitUnquoted is strings.Split but for separators in quotes.
func splitUnquoted(s string, separator byte) (parts []string) {
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			quoted = !quoted
		case separator:
			if !quoted {
				parts = append(parts, s[start:i])
				start = i + 1
			}
		}
	}
	return append(parts, s[start:])
}

// wild reports that the pattern names relations that nobody has written out.
func (p *relationPattern) wild() bool { return p.fallback || !p.name.exact() }

// everything reports that the pattern is *, *.* or default.
func (p *relationPattern) everything() bool {
	return p.fallback || p.name.letters() == 0 && (p.anySchema || p.schema.letters() == 0)
}

// IsNamed reports that a policy's relation is written so, and not by a pattern.
func IsNamed(relation string, rel *catalog.Relation) bool {
	p, err := parsePattern(relation)
	return err == nil && !p.wild() && p.matches(rel)
}

// key is the same for patterns that mean the same.
func (p *relationPattern) key() string {
	if p.everything() {
		return "*"
	}
	return fmt.Sprintf("%t %q %q", p.anySchema, p.schema, p.name)
}

// matches reports that the pattern names the relation. What PostgreSQL's own catalogs
// are is said by their name or their schema's.
func (p *relationPattern) matches(rel *catalog.Relation) bool {
	if rel.System && p.wild() && (p.fallback || p.anySchema || !p.schema.exact()) {
		return false
	}
	return p.fallback || p.name.matches(rel.Name) && (p.anySchema || p.schema.matches(rel.Schema))
}

// compare orders patterns by how much they say, the most specific first.
func (p *relationPattern) compare(q *relationPattern) int {
	rank := func(p *relationPattern) [5]int {
		return [5]int{count1(!p.everything()), count1(p.name.exact()), p.name.letters(), count1(p.schema.exact()), p.schema.letters()}
	}
	a, b := rank(p), rank(q)
	return slices.Compare(b[:], a[:])
}

func count1(b bool) int {
	if b {
		return 1
	}
	return 0
}

// PolicyOf returns the policy of a relation, nil if nothing names it. own says that
// it is the relation's, and not that of a table that it is a part of.
func (c *Config) PolicyOf(snapshot *catalog.Snapshot, rel *catalog.Relation) (policy *Policy, own bool) {
	if len(c.Policies) == 0 || rel.Kind == 'v' { // a view has those of its tables
		return nil, false
	}
	best := c.bestPattern(rel, func(*relationPattern) bool { return true })
	if best >= 0 && !c.patterns[best].wild() || len(rel.Parents) == 0 {
		return c.policyAt(best), true
	}
	named := -1
	for _, oid := range snapshot.Ancestors(rel.OID) {
		if parent := snapshot.ByOID(oid); parent != nil {
			i := c.bestPattern(parent, func(p *relationPattern) bool { return !p.wild() })
			if i >= 0 && (named < 0 || c.patterns[i].compare(&c.patterns[named]) < 0) {
				named = i
			}
		}
	}
	if named >= 0 {
		return c.policyAt(named), false
	}
	return c.policyAt(best), true
}

func (c *Config) policyAt(i int) *Policy {
	if i < 0 {
		return nil
	}
	return &c.Policies[i]
}

// bestPattern returns the index of the policy that says most of rel, or -1.
func (c *Config) bestPattern(rel *catalog.Relation, counts func(*relationPattern) bool) int {
	best := -1
	for i := range c.patterns {
		p := &c.patterns[i]
		if counts(p) && p.matches(rel) && (best < 0 || p.compare(&c.patterns[best]) < 0) {
			best = i
		}
	}
	return best
}

// HasStrategy reports that the relation has the strategy.
func (c *Config) HasStrategy(snapshot *catalog.Snapshot, rel *catalog.Relation, strategy string) bool {
	p, _ := c.PolicyOf(snapshot, rel)
	return p != nil && p.Strategy == strategy
}

// IdlePolicies says of policies that have no effect why. A table may be made later,
// so that this is no reason to fail.
func (c *Config) IdlePolicies(snapshot *catalog.Snapshot) (idle []string) {
	for i := range c.patterns {
		p := &c.patterns[i]
		if p.everything() {
			continue
		}
		why := "there is no such relation"
		for rel := range snapshot.Relations() {
			if !p.matches(rel) {
				if p.name.exact() && rel.Name != p.name[0] && strings.EqualFold(rel.Name, p.name[0]) && why == "there is no such relation" {
					why = fmt.Sprintf("there is no such relation; the one that is there is written %s.%s", quoteName(rel.Schema), quoteName(rel.Name))
				}
				continue
			}
			if rel.Kind != 'v' {
				why = ""
				break
			}
			why = "it is a view; name the tables that it reads"
		}
		if why != "" {
			idle = append(idle, "cache_policy: "+c.Policies[i].Relation+": "+why)
		}
	}
	return idle
}

// quoteName writes a name as PostgreSQL does.
func quoteName(name string) string {
	plain := name != "" && name != "default" && strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) < 0 && cmp.Compare(name[0], '9') > 0
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// WritesThrough reports that a relation has strategy "write-through".
func (c *Config) WritesThrough() bool { return len(c.named(WriteThrough)) > 0 }

// WritesBehind reports that a relation has strategy "write-behind".
func (c *Config) WritesBehind() bool { return len(c.Queued()) > 0 }

// Queued gives the relations that have strategy "write-behind", as policies name them.
func (c *Config) Queued() []string { return c.named(WriteBehind) }

func (c *Config) named(strategy string) (relations []string) {
	for _, p := range c.Policies {
		if p.Strategy == strategy {
			relations = append(relations, p.Relation)
		}
	}
	return relations
}

// Agreed is what all who share a store must have alike, in one text.
func (c *Config) Agreed() string {
	queued := c.Queued()
	slices.Sort(queued)
	return strings.Join(append(queued, "cache_external="+c.External), ",")
}

// Ages reports that a relation has strategy "ttl": what reads it does not have its tags.
func (c *Config) Ages(snapshot *catalog.Snapshot, oid uint32) bool {
	rel := snapshot.ByOID(oid)
	return rel != nil && c.HasStrategy(snapshot, rel, TTLStrategy)
}

// Follows reports that strategy a comes after b in the list of them, so that it is what is said of what has both.
func Follows(a, b string) bool { return slices.Index(strategies, a) > slices.Index(strategies, b) }

// OwnSchema is where the driver's own tables live. Nothing that reads them is
// cached: what the driver itself writes there invalidates nothing.
const OwnSchema = "cachedpg"
