package keying

import (
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
)

// What newer versions of PostgreSQL know as constructs, and the grammar here
// as calls of functions that nobody has, is no write of something unknown.
func TestConstructsOfNewerVersions(t *testing.T) {
	snapshot := testSchema(t)
	for _, sql := range []string{
		"SELECT json_value(body::jsonb, '$.a') FROM posts", "SELECT json_query(body::jsonb, '$.a') FROM posts",
		"SELECT id FROM posts WHERE json_exists(body::jsonb, '$.a')", "SELECT json_scalar(id) FROM posts", "SELECT json_serialize(body) FROM posts",
		"SELECT system_user", "SELECT json_object('a' : id) FROM posts", "SELECT json_arrayagg(id) FROM posts", "SELECT body IS JSON FROM posts",
	} {
		p, _ := planFor(t, snapshot, sql)
		if p.Reason != SessionKeyword || p.Writes || p.Asks || p.Unknown {
			t.Errorf("%s: got %s, writes %v, asks %v, unknown %v", sql, p.Reason, p.Writes, p.Asks, p.Unknown)
		}
	}
	p, _ := planFor(t, snapshot, "SELECT json(body) FROM posts") // a cast, in every version
	if p.Reason != NoReason || p.Writes {
		t.Errorf("json(x): got %s, writes %v", p.Reason, p.Writes)
	}
}

// A reload of the configuration is one of everybody's.
func TestReload(t *testing.T) {
	c := contents(t)
	c.Functions = append(c.Functions, catalog.Function{Schema: "pg_catalog", Name: "pg_reload_conf", Volatility: 'v', Builtin: true})
	p, _ := planFor(t, catalog.NewSnapshot(*c), "SELECT pg_reload_conf()")
	if p.Reason != SessionFunction || !p.Session || !p.Catalog || len(p.WriteTags(nil, Values{})) == 0 {
		t.Errorf("got %s, session %v, catalog %v, tags %v", p.Reason, p.Session, p.Catalog, p.WriteTags(nil, Values{}))
	}
}

// A type that an array or a domain hides is in sight all the same.
func TestTypesWithinTypes(t *testing.T) {
	for _, typ := range []catalog.Type{
		{Name: "pair", Kind: 'c'},
		{Name: "_pair", Kind: 'b', Element: 9101},
		{Name: "pairs", Kind: 'd', Base: 9102},
		{Name: "_pairs", Kind: 'b', Element: 9103},
		{Name: "warmth", Kind: 'd', Base: 9001},
		{Name: "_warmth", Kind: 'b', Element: 9105},
		{Name: "_celsius", Kind: 'b', Element: 9001},
		{Name: "span", Kind: 'r'},
	} {
		c := contents(t)
		c.Types = append(c.Types,
			catalog.Type{OID: 9101, Schema: "public", Name: "composite", Kind: 'c'}, catalog.Type{OID: 9102, Schema: "public", Name: "_composite", Kind: 'b', Element: 9101},
			catalog.Type{OID: 9103, Schema: "public", Name: "composites", Kind: 'd', Base: 9102}, catalog.Type{OID: 9105, Schema: "public", Name: "heat", Kind: 'd', Base: 9001})
		typ.OID, typ.Schema = 9200, "public"
		c.Types = append(c.Types, typ)
		c.Operators = append(c.Operators,
			catalog.Operator{Schema: "public", Name: "=", Left: 9001, Right: 9001, Volatility: 's'})
		c.Casts = []catalog.Cast{{Source: 9001, Target: oidText, Volatility: 's'}}
		tables(t, c, "r hidden 120 | id int8, v "+typ.Name+" | 121* id")
		snapshot := catalog.NewSnapshot(*c)
		for sql, want := range map[string]Reason{"SELECT v FROM hidden": UserCast, "SELECT id FROM hidden WHERE id = 1": UserOperator, "SELECT v FROM plain WHERE id = 1": NoReason} {
			if p, _ := planFor(t, snapshot, sql); p.Reason != want {
				t.Errorf("%s: %s: got %s, want %s", typ.Name, sql, p.Reason, want)
			}
		}
	}
}

// An operator = for a domain, or between it and what is below, may call other
// values equal; one for other types cannot be meant where a key is fixed.
func TestOwnEqualityOfDomains(t *testing.T) {
	for _, test := range []struct {
		left, right uint32
		own         bool
	}{{9110, 9110, true}, {9110, oidText, true}, {oidInt8, 9111, true}, {9112, 9112, false}, {9110, 9001, false}} {
		c := contents(t)
		c.Types = append(c.Types, catalog.Type{OID: 9110, Schema: "public", Name: "code", Kind: 'd', Base: oidText},
			catalog.Type{OID: 9111, Schema: "public", Name: "number", Kind: 'd', Base: oidInt8}, catalog.Type{OID: 9112, Schema: "public", Name: "hot", Kind: 'd', Base: 9001})
		c.Operators = append(c.Operators, catalog.Operator{Schema: "public", Name: "=", Left: test.left, Right: test.right, Volatility: 'i'})
		tables(t, c, "r codes 120 | code code | 121* code")
		p, _ := planFor(t, catalog.NewSnapshot(*c), "DELETE FROM codes WHERE code = $1")
		row := false
		for _, tag := range p.WriteTags(nil, Values{Args: named("a")}) {
			row = row || tag.Value != 0
		}
		if row == test.own {
			t.Errorf("= of %d and %d: a row is named in a write: %v", test.left, test.right, row)
		}
	}
}

// A call may be a cast although there is a function of that name for other types.
func TestCastsBesideFunctionsOfTheirName(t *testing.T) {
	c := contents(t)
	c.Types = append(c.Types, catalog.Type{OID: 9120, Schema: "public", Name: "future", Kind: 'd', Base: oidInt8, Volatility: 's'})
	c.Functions = append(c.Functions, catalog.Function{Schema: "public", Name: "future", MinArgs: 1, MaxArgs: 1, Volatility: 'i'})
	if p, _ := planFor(t, catalog.NewSnapshot(*c), "SELECT future($1)"); p.Reason != UserType {
		t.Errorf("got %s, want %s", p.Reason, UserType)
	}
}
