package catalog_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	script, err := os.ReadFile("testdata/rich.sql")
	if err != nil {
		t.Fatal(err)
	}
	run(t, conn, string(script))
	got := dump(load(t, conn))
	const file = "testdata/rich.golden"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the catalog differs from %s (run with -rewrite and review the difference); got\n%s", file, diff(got, string(want)))
	}
}

// dump writes everything outside the system schemas, by name: OIDs differ from
// one database to the next.
func dump(s *catalog.Snapshot) string {
	d := dumper{s: s}
	var relations []*catalog.Relation
	for r := range s.Relations() {
		if !r.System {
			relations = append(relations, r)
		}
	}
	slices.SortFunc(relations, func(a, b *catalog.Relation) int { return strings.Compare(d.relation(a.OID), d.relation(b.OID)) })
	for _, r := range relations {
		d.dumpRelation(r)
	}
	for _, function := range []string{"im", "st", "vo", "internal", "many", "trig", "proc", "step", "quiet", "loud", "ordered", "count", "lower", "now", "concat", "percentile_cont"} {
		var found []catalog.Function
		for args := range 5 {
			for _, f := range s.Functions([]string{"pg_catalog", "a"}, "", function, args) {
				if !slices.ContainsFunc(found, func(g catalog.Function) bool { return g.OID == f.OID }) {
					found = append(found, f)
				}
			}
		}
		for _, f := range found {
			d.line("function %s.%s args %d..%d %c%s", f.Schema, f.Name, f.MinArgs, f.MaxArgs, f.Volatility,
				flags("builtin", f.Builtin, "aggregate", f.Aggregate, "window", f.Window, "set", f.SetReturning, "may-write", len(f.Writers) > 0))
		}
	}
	for _, operator := range []string{"===", "=", "~~~"} {
		for _, o := range s.Operators(nil, "a", operator) {
			d.line("operator %s.%s (%s, %s) %c%s", o.Schema, o.Name, d.typ(o.Left), d.typ(o.Right), o.Volatility,
				flags("builtin", o.Builtin, "may-write", len(o.Writers) > 0))
		}
	}
	for _, name := range []string{"mood", "_mood", "pair", "small", "smaller", "checked", "_checked", "glanced", "holder", "_holder", "code_domain", "spread", "spread_multirange", "keys",
		"int4", "_int4", "varchar", "regclass", "regtype", "timestamptz", "int2vector"} {
		t, ok := s.Type([]string{"pg_catalog", "a"}, "", name)
		if !ok {
			d.line("type %s missing", name)
			continue
		}
		d.line("type %s.%s kind %c base %s element %s %c%s", t.Schema, t.Name, t.Kind, d.typ(t.Base), d.typ(t.Element), t.Volatility,
			flags("builtin", t.Builtin, "reg", t.Reg, "may-write", len(t.Writers) > 0, "cast", t.Cast))
	}
	for _, c := range s.Casts() {
		d.line("cast %s to %s %c%s", d.typ(c.Source), d.typ(c.Target), c.Volatility, flags("may-write", len(c.Writers) > 0))
	}
	d.line("unsafe casts %v, incomplete %v, deferrable %v, outward %v", s.UnsafeCasts(), s.Incomplete(), s.Deferrable(), s.Outward())
	return d.String()
}

type dumper struct {
	strings.Builder
	s *catalog.Snapshot
}

func (d *dumper) line(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *dumper) dumpRelation(r *catalog.Relation) {
	d.line("%c %s%s", r.Kind, d.relation(r.OID), flags("temporary", r.Temporary, "unlogged", r.Unlogged, "row-security", r.RowSecurity))
	for _, c := range r.Columns {
		base := ""
		if c.BaseType != c.Type {
			base = " (" + d.typ(c.BaseType) + ")"
		}
		if c.Generated != 0 {
			base += " generated " + string(c.Generated)
		}
		d.line("\tcolumn %d %s %s%s%s", c.Number, c.Name, d.typ(c.Type), base,
			flags("nondeterministic", !c.Deterministic, "default", c.Default, "modified", c.Modified))
	}
	if r.Partitioned != nil {
		d.line("\tpartitioned by %s", strings.Join(r.Partitioned, ", "))
	}
	var keys []string
	for _, k := range r.Keys {
		var columns []string
		for _, i := range k.Columns {
			columns = append(columns, r.Columns[i].Name)
		}
		keys = append(keys, fmt.Sprintf("\tkey (%s)%s\n", strings.Join(columns, ", "), flags("primary", k.Primary, "deferrable", k.Deferrable, "rivalled", k.Rivalled)))
	}
	d.WriteString(strings.Join(keys, ""))
	for _, i := range r.Leading {
		d.line("\tleading %s", r.Columns[i].Name)
	}
	d.list("parents", r.Parents)
	d.list("children", r.Children)
	for _, f := range r.References {
		d.line("\treferenced by %s (%s) -> (%s)%s%s", d.relation(f.Table), strings.Join(f.Referencing, ", "), strings.Join(f.Columns, ", "),
			action(" on-delete ", f.Deletes, f.OnDelete), action(" on-update ", f.Updates, f.OnUpdate))
	}
	for _, f := range r.Foreign {
		d.line("\tforeign (%s) -> %s (%s)", strings.Join(f.Columns, ", "), d.relation(f.Table), strings.Join(f.Referenced, ", "))
	}
	var code []string
	for _, c := range r.Code {
		what := "a rule"
		if c.Function != 0 {
			f, _ := d.s.Function(c.Function)
			what = f.Schema + "." + f.Name
		}
		if len(c.Columns) > 0 {
			what += " of " + strings.Join(c.Columns, ", ")
		}
		code = append(code, what+flags("trigger", c.Trigger, "row", c.Row, "deferrable", c.Deferrable, "insert", c.On&catalog.OnInsert != 0,
			"update", c.On&catalog.OnUpdate != 0, "delete", c.On&catalog.OnDelete != 0, "truncate", c.On&catalog.OnTruncate != 0,
			"read", c.On&catalog.OnRead != 0))
	}
	slices.Sort(code)
	for _, c := range code {
		d.line("\tcode %s", c)
	}
	d.list("sources", r.Sources)
	if r.View != "" {
		d.line("\tview %s", regexp.MustCompile(`\s+`).ReplaceAllString(strings.TrimSpace(r.View), " "))
	}
}

func (d *dumper) list(title string, oids []uint32) {
	if len(oids) == 0 {
		return
	}
	var names []string
	for _, oid := range oids {
		names = append(names, d.relation(oid))
	}
	slices.Sort(names)
	d.line("\t%s %s", title, strings.Join(names, ", "))
}

// temporary schemas are numbered by backend.
var temporary = regexp.MustCompile(`^pg_temp_\d+$`)

func (d *dumper) relation(oid uint32) string {
	r := d.s.ByOID(oid)
	if r == nil {
		return fmt.Sprint("missing ", oid)
	}
	return temporary.ReplaceAllString(r.Schema, "pg_temp") + "." + r.Name
}

func (d *dumper) typ(oid uint32) string {
	t, ok := d.s.TypeByOID(oid)
	switch {
	case oid == 0:
		return "-"
	case !ok:
		return fmt.Sprint("missing ", oid)
	case t.Builtin:
		return t.Name
	}
	return t.Schema + "." + t.Name
}

func action(event string, a catalog.Action, any bool) string {
	switch {
	case any != (a != catalog.NoAction):
		return event + "in doubt"
	case any:
		return event + string(a)
	}
	return ""
}

// flags takes pairs of a name and whether to write it.
func flags(pairs ...any) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			b.WriteString(" " + pairs[i].(string))
		}
	}
	return b.String()
}

// diff lists the lines that only one of the two has.
func diff(got, want string) string {
	var b strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range g {
		if !slices.Contains(w, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	for _, line := range w {
		if !slices.Contains(g, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	return b.String()
}
