package keying

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

// Code beside the text, on the table posts of the test schema: the trigger's
// function in PL/pgSQL, and what an UPDATE of a row by its key then writes.
func TestCodeOfTriggers(t *testing.T) {
	for _, tc := range []struct {
		name, source string
		change       func(*catalog.Contents)
		want         string
	}{
		{"nothing but the row", "BEGIN NEW.body := upper(NEW.title); RETURN NEW; END", nil, "posts row"},
		{"another table's rows appear", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END", nil, "logs, posts row"},
		{"another table's rows change", "BEGIN UPDATE users SET name = 'x' WHERE id = NEW.user_id; RETURN NULL; END", nil, "posts row, users all"},
		{"a parameter of its own is none of the statement's", "BEGIN DELETE FROM users WHERE id = $1; RETURN NULL; END", nil, "comments all, posts all, users all"},
		{"its own table", "BEGIN UPDATE posts SET body = '' WHERE user_id = NEW.user_id; RETURN NULL; END", nil, "posts all"},
		{"a view", "BEGIN UPDATE nested SET name = 'x'; RETURN NULL; END", nil, "orders all, posts all, users all"},
		{"made while it runs", "BEGIN EXECUTE 'DELETE FROM users'; RETURN NULL; END", nil, "posts row; asks"},
		{"a function that is not understood", "BEGIN PERFORM bump(1); RETURN NULL; END", nil, "posts row; asks"},
		{"no such table", "BEGIN INSERT INTO nowhere VALUES (1); RETURN NULL; END", nil, "posts row; asks"},
		{"a table that it made", "BEGIN SELECT count(*) FROM transition; RETURN NULL; END", nil, "posts row"},
		{"not PL/pgSQL", "BEGIN NEW.body := ; END", nil, "posts row; asks"},
		{"a catalog change", "BEGIN DROP TABLE logs; RETURN NULL; END", nil, "schema; catalog session"},
		{"a setting", "BEGIN SET TimeZone = 'UTC'; RETURN NULL; END", nil, "posts row; session"},
		{"another column's trigger", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { code(c).Columns = []string{"title"} }, "posts row"},
		{"its column's trigger", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { code(c).Columns = []string{"body"} }, "logs, posts row"},
		{"its own path", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { f := function(c); f.SetsPath, f.SearchPath = true, `pg_catalog, "public"` }, "logs, posts row"},
		{"a path without the table", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { f := function(c); f.SetsPath, f.SearchPath = true, "elsewhere" }, "posts row; asks"},
		{"a path by the role", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { f := function(c); f.SetsPath, f.SearchPath = true, `"$user", public` }, "posts row; asks"},
		{"its owner's path", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END",
			func(c *catalog.Contents) { function(c).Definer = true }, "logs, posts row"},
		{"its owner's path, and two tables", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END", func(c *catalog.Contents) {
			function(c).Definer = true
			c.Relations = append(c.Relations, &catalog.Relation{OID: 7000, Schema: "other", Name: "logs", Kind: 'r'})
		}, "posts row; asks"},
		{"at COMMIT, and two tables", "BEGIN INSERT INTO logs VALUES (1, 'x'); RETURN NULL; END", func(c *catalog.Contents) {
			code(c).Deferrable = true
			c.Relations = append(c.Relations, &catalog.Relation{OID: 7000, Schema: "other", Name: "logs", Kind: 'r'})
		}, "posts row; asks"},
		{"beyond the transaction", "BEGIN EXECUTE 'x'; RETURN NULL; END",
			func(c *catalog.Contents) { c.Outward = true }, "schema; asks opaque catalog session"},
		{"a variable of any type", "BEGIN RETURN NULL; END", func(c *catalog.Contents) {
			c.Types = append(c.Types, catalog.Type{OID: 9100, Schema: "public", Name: "fit", Kind: 'd', Base: oidText, Volatility: 's', Writers: []uint32{30001}})
			c.Functions = append([]catalog.Function{{OID: 30001, Schema: "public", Name: "fits", Volatility: 's', Writers: []uint32{30001},
				Language: "sql", Source: "SELECT count(*) > 0 FROM users"}}, c.Functions...)
		}, "posts row"},
		{"a variable of a type that writes", "BEGIN RETURN NULL; END", func(c *catalog.Contents) {
			c.Types = append(c.Types, catalog.Type{OID: 9100, Schema: "public", Name: "fit", Kind: 'd', Base: oidText, Volatility: 'v', Writers: []uint32{30001}})
			c.Functions = append([]catalog.Function{{OID: 30001, Schema: "public", Name: "fits", Volatility: 'v', Writers: []uint32{30001},
				Language: "sql", Source: "INSERT INTO logs VALUES (1, 'x'); SELECT true"}}, c.Functions...)
		}, "logs, posts row"},
		{"a rule", "", func(c *catalog.Contents) { code(c).Function = 0 }, "posts row; asks"},
		{"of PostgreSQL's own", "", func(c *catalog.Contents) { code(c).Function = 1752 }, "posts row"},
		{"dropped meanwhile", "", func(c *catalog.Contents) { code(c).Function = 29999 }, "posts row; asks unknown"},
	} {
		c := testContents(t)
		c.Functions = append(c.Functions, catalog.Function{OID: 30000, Schema: "public", Name: "on_posts", Volatility: 'v',
			Writers: []uint32{30000}, Language: "plpgsql", Source: tc.source})
		relation(&c, "posts").Code = []catalog.Code{{Function: 30000, On: catalog.OnUpdate, Trigger: true}}
		withoutWriters(&c)
		if tc.change != nil {
			tc.change(&c)
		}
		p, literals := planFor(t, catalog.NewSnapshot(c), "UPDATE posts SET body = 'x' WHERE id = 1")
		if got := describeWrite(p, Values{Literals: literals}); got != tc.want {
			t.Errorf("%s: got %q, want %q\n%s", tc.name, got, tc.want, tc.source)
		}
	}
}

// A trigger that alters a row before it is written decides which rows an
// upsert finds, and whether a key changes that others refer to.
func TestTriggersThatAlterTheRow(t *testing.T) {
	for _, tc := range []struct{ source, upsert, update string }{
		{"BEGIN NEW.body := 'x'; RETURN NEW; END", "posts row", "posts row"},
		{"BEGIN NEW.id := NEW.id + 1; RETURN NEW; END", "posts all", "comments all, posts row"},
		{"BEGIN NEW := OLD; RETURN NEW; END", "posts all", "comments all, posts row"},
	} {
		c := testContents(t)
		c.Functions = append(c.Functions, catalog.Function{OID: 30000, Schema: "public", Name: "alter", Volatility: 'v',
			Writers: []uint32{30000}, Language: "plpgsql", Source: tc.source})
		posts := relation(&c, "posts")
		posts.Code = []catalog.Code{{Function: 30000, On: catalog.OnInsert | catalog.OnUpdate, Trigger: true, Row: true}}
		posts.References[0].OnUpdate = true
		withoutWriters(&c)
		snapshot := catalog.NewSnapshot(c)
		for text, want := range map[string]string{
			"INSERT INTO posts (id, body) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET body = 'y'": tc.upsert,
			"UPDATE posts SET body = 'x' WHERE id = 1":                                               tc.update,
		} {
			p, literals := planFor(t, snapshot, text)
			got := describeWrite(p, Values{Literals: literals})
			if strings.HasPrefix(text, "INSERT") {
				got, _, _ = strings.Cut(strings.TrimPrefix(got, "comments all, "), ";")
			}
			if got != want {
				t.Errorf("%s\n%s: got %q, want %q", tc.source, text, got, want)
			}
		}
	}
}

func TestWrittenTags(t *testing.T) {
	snapshot := testSchema(t)
	tags, ok := WrittenTags(nil, []uint32{1052, 1080}, snapshot) // events_a, tree
	var names []string
	for _, tag := range tags {
		names = append(names, TagName(tag, snapshot))
	}
	const want = "table public.events rows public.events(id) table public.events_a rows public.events_a(id) table public.tree rows there of public.tree rows public.tree(id) table public.tree without parent rows there of public.tree without parent rows public.tree(id) without parent"
	if got := strings.Join(names, " "); !ok || got != want {
		t.Errorf("got %v %q, want %q", ok, got, want)
	}
	for name, oid := range map[string]uint32{"a foreign table": 1160, "a table of the system": 1259, "nothing": 99} {
		if _, ok := WrittenTags(nil, []uint32{oid}, snapshot); ok {
			t.Errorf("%s is bounded", name)
		}
	}
}

func relation(c *catalog.Contents, name string) *catalog.Relation {
	for _, r := range c.Relations {
		if r.Name == name && r.Schema == "public" {
			return r
		}
	}
	panic(name)
}

// withoutWriters takes out the types and operators whose code may write: a body
// that may use one is asked for.
func withoutWriters(c *catalog.Contents) {
	for i := range c.Types {
		c.Types[i].Writers = nil
	}
	for i := range c.Operators {
		c.Operators[i].Writers = nil
	}
}

func code(c *catalog.Contents) *catalog.Code { return &relation(c, "posts").Code[0] }

func function(c *catalog.Contents) *catalog.Function { return &c.Functions[len(c.Functions)-1] }

// describeWrite says what is invalidated of each table: its rows of unknown keys
// ("all"), known ones ("row"), or none that were there.
func describeWrite(p *Plan, v Values) string {
	extents := make(map[string]string)
	for _, tag := range p.WriteTags(nil, v) {
		name := fmt.Sprint(tag.Relation)
		switch tag.Kind {
		case store.TagSchema:
			extents["schema"] = ""
			continue
		case store.TagRows:
			extents[name] = " all"
		case store.TagRow:
			if extents[name] == "" {
				extents[name] = " row"
			}
		default:
			extents[name] += ""
		}
	}
	var list []string
	for name, oid := range map[string]string{"comments": "1270", "logs": "1040", "orders": "1090", "posts": "1010", "users": "1000", "schema": "schema"} {
		if extent, ok := extents[oid]; ok {
			list = append(list, name+extent)
			delete(extents, oid)
		}
	}
	for oid := range extents {
		list = append(list, "relation "+oid)
	}
	slices.Sort(list)
	text := strings.Join(list, ", ")
	flags := ""
	for _, f := range []struct {
		set  bool
		name string
	}{{p.Asks, " asks"}, {p.Commits, " commits"}, {p.Opaque, " opaque"}, {p.Catalog, " catalog"}, {p.Session, " session"}, {p.Unknown, " unknown"}} {
		if f.set {
			flags += f.name
		}
	}
	if flags != "" {
		text += ";" + flags
	}
	return text
}
