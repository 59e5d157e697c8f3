package parser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the parser says into testdata/*.txt")

// TestGolden runs the transcripts in testdata: blocks of a command (scan or
// parse), a text, a line of four dashes, and what is said about the text. Lines
// with # before a block are comments. Review a change with
//
//	go test ./parser -run Golden -rewrite && git diff parser/testdata
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			for _, b := range readTranscript(t, file) {
				b.run(t)
			}
			if *rewrite {
				writeTranscript(t, file)
			}
		})
	}
}

// block is one step of a transcript.
type block struct {
	line    int
	comment string
	command string
	text    string
	want    string
}

var transcripts = map[string][]*block{}

func readTranscript(t testing.TB, file string) []*block {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []*block
	var b *block
	part := 0 // 0 before a block, 1 in the text, 2 in the answer
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case part == 0 && (line == "" || strings.HasPrefix(line, "#")):
			if b == nil {
				b = &block{}
			}
			b.comment += line + "\n"
		case part == 0:
			if b == nil {
				b = &block{}
			}
			b.line, b.command, part = i+1, line, 1
		case part == 1 && line == "----":
			part = 2
		case part == 1:
			b.text += line + "\n"
		case line == "":
			blocks = append(blocks, b)
			b, part = &block{comment: "\n"}, 0
		default:
			b.want += line + "\n"
		}
	}
	if part != 0 {
		t.Fatalf("%s: the block at line %d does not end with an empty line", file, b.line)
	}
	transcripts[file] = blocks
	return blocks
}

func writeTranscript(t testing.TB, file string) {
	var out strings.Builder
	for _, b := range transcripts[file] {
		fmt.Fprintf(&out, "%s%s\n%s----\n%s", b.comment, b.command, b.text, b.want)
	}
	out.WriteString("\n")
	if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *block) run(t *testing.T) {
	text := strings.TrimSuffix(b.text, "\n")
	var got string
	switch b.command {
	case "scan":
		got = dumpScan(text)
	case "parse":
		got = dumpParse(text)
	default:
		t.Fatalf("line %d: no command %q", b.line, b.command)
	}
	if got != b.want {
		if *rewrite {
			b.want = got
			return
		}
		t.Errorf("line %d: %s\ngot:\n%swant:\n%s", b.line, text, got, b.want)
	}
}

func dumpScan(sql string) string {
	var out strings.Builder
	s, ok := Scan(sql)
	switch {
	case ok && s.Text == "":
		fmt.Fprintln(&out, "nothing")
	case ok:
		fmt.Fprintf(&out, "%s\n", s.Text)
	default:
		fmt.Fprintln(&out, "unclear")
	}
	for _, l := range s.Literals {
		fmt.Fprintf(&out, "  %s %q at %d\n", [...]string{"integer", "number", "string", "bits"}[l.Kind], l.Text, l.Pos)
	}
	if s.Hints != (Hints{}) {
		fmt.Fprintf(&out, "  hints %+v\n", s.Hints)
	}
	return out.String()
}

func dumpParse(sql string) string {
	s, ok := Scan(sql)
	if !ok {
		s.Literals = nil
	}
	statements, err := Parse(sql, s.Literals)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var out strings.Builder
	for _, st := range statements {
		dumpStatement(&out, st, s.Literals)
	}
	return out.String()
}

// dumpStatement writes facts, with literals as values in brackets.
func dumpStatement(out *strings.Builder, st *Statement, literals []Literal) {
	out.WriteString(st.Kind.String())
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{st.ReadOnly(), "readonly"}, {st.Plain, "plain"}, {st.Grouped, "grouped"}, {st.Single, "single"}, {st.Locks, "locks"},
		{st.Sample, "sample"}, {st.Into, "into"}, {st.Local, "local"}, {st.Default, "default"}, {st.Given, "given"},
	} {
		if flag.set {
			out.WriteString(" " + flag.name)
		}
	}
	if st.Params > 0 {
		fmt.Fprintf(out, " params=%d", st.Params)
	}
	if st.SettingName != "" {
		fmt.Fprintf(out, " setting=%s", st.SettingName)
	}
	if st.Discards != "" {
		fmt.Fprintf(out, " discards=%s", st.Discards)
	}
	out.WriteString("\n")
	if d := st.Defines; d != nil {
		dumpDefinition(out, d, literals)
	}
	for _, r := range st.Reads {
		nested := ""
		if r.Nested {
			nested = "nested "
		}
		fmt.Fprintf(out, "  %sreads %s\n", nested, dumpRelation(r, literals))
	}
	for _, w := range st.Writes {
		fmt.Fprintf(out, "  writes %s %s", w.Op, dumpRelation(w.Target, literals))
		if w.Cascade {
			out.WriteString(" cascade")
		}
		if w.Columns != nil {
			fmt.Fprintf(out, " set (%s)", strings.Join(w.Columns, ", "))
		}
		if slices.ContainsFunc(w.Assigned, func(o *Operand) bool { return o != nil }) {
			fmt.Fprintf(out, " to (%s)", dumpOperands(w.Assigned, literals))
		}
		if w.Returning {
			out.WriteString(" returning")
		}
		if w.ConflictColumns != nil {
			fmt.Fprintf(out, " conflict (%s)", strings.Join(w.ConflictColumns, ", "))
		}
		if w.Rows != nil {
			fmt.Fprintf(out, " into (%s)", strings.Join(w.InsertColumns, ", "))
		}
		for _, row := range w.Rows {
			fmt.Fprintf(out, " (%s)", dumpOperands(row, literals))
		}
		out.WriteString("\n")
	}
	for _, c := range st.Carried {
		maybe := ""
		if c.Optional {
			maybe = " maybe"
		}
		fmt.Fprintf(out, "  carries %d.%s to %d.%s%s\n", c.From.Read+1, c.From.Column, c.To.Read+1, c.To.Column, maybe)
	}
	if st.Outputs != nil {
		outputs := make([]string, len(st.Outputs))
		for i, o := range st.Outputs {
			outputs[i] = o.Name + "?"
			if o.Read > 0 {
				outputs[i] = fmt.Sprintf("%s=%d.%s", o.Name, o.Read, o.Column)
			}
		}
		fmt.Fprintf(out, "  gives %s\n", strings.Join(outputs, ", "))
	}
	list := func(label string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(out, "  %s %s\n", label, strings.Join(items, " "))
		}
	}
	var functions, attributes []string
	for _, f := range st.Functions {
		functions = append(functions, fmt.Sprintf("%s/%d", dumpName(f.Name), f.Args))
	}
	for _, a := range st.Attributes {
		attributes = append(attributes, strings.TrimPrefix(dumpName(a.Relation)+"/"+a.Name, "/"))
	}
	list("calls", functions)
	list("attributes", attributes)
	list("operators", dumpNames(st.Operators))
	list("types", dumpNames(st.Types))
	list("keywords", st.Keywords)
}

// dumpDefinition writes a definition, and below it what is computed.
func dumpDefinition(out *strings.Builder, d *Definition, literals []Literal) {
	fmt.Fprintf(out, "  defines")
	for _, part := range []struct {
		set  bool
		text string
	}{
		{d.Makes.Name != "", " makes " + dumpName(d.Makes)}, {d.UntilCommit, " until-commit"}, {d.Table, " table"},
		{d.Coded, " coded"}, {d.Like != nil, " like " + strings.Join(dumpNames(d.Like), ", ")},
		{d.Indexes != nil, " indexes " + strings.Join(d.Indexes, ", ")}, {d.Drops != nil, " drops " + strings.Join(dumpNames(d.Drops), ", ")},
		{d.Alters.Name != "", " alters " + dumpName(d.Alters)}, {d.Renamed != "", " to " + d.Renamed},
		{d.Derived, " derived"}, {d.IfExists, " if-exists"}, {d.Untold, " untold"}, {d.Spreads, " spreads"},
	} {
		if part.set {
			out.WriteString(part.text)
		}
	}
	out.WriteString("\n")
	if d.Computed != nil {
		out.WriteString("  computes ")
		dumpStatement(out, d.Computed, literals)
	}
}

func dumpName(n Name) string {
	if n.Schema != "" {
		return n.Schema + "." + n.Name
	}
	return n.Name
}

func dumpNames(names []Name) []string {
	var out []string
	for _, n := range names {
		out = append(out, dumpName(n))
	}
	return out
}

func dumpRelation(r Relation, literals []Literal) string {
	var out strings.Builder
	out.WriteString(dumpName(r.Name))
	if r.Alias != "" {
		out.WriteString(" as " + r.Alias)
	}
	columns := r.Columns
	if r.AllColumns {
		columns = append([]string{"*"}, columns...)
	}
	fmt.Fprintf(&out, " (%s)", strings.Join(columns, ", "))
	for i, e := range r.Equal {
		sep := " and "
		if i == 0 {
			sep = " where "
		}
		values := make([]string, len(e.Values))
		for j, o := range e.Values {
			values[j] = dumpOperand(o, literals)
		}
		op := " = "
		if e.Array {
			op = " = any "
		}
		out.WriteString(sep + e.Column + op + strings.Join(values, "|"))
		if e.Optional {
			out.WriteString(" maybe")
		}
	}
	return out.String()
}

func dumpOperands(list []*Operand, literals []Literal) string {
	values := make([]string, len(list))
	for i, o := range list {
		values[i] = "?"
		if o != nil {
			values[i] = dumpOperand(*o, literals)
		}
	}
	return strings.Join(values, ", ")
}

func dumpOperand(o Operand, literals []Literal) string {
	s := fmt.Sprintf("$%d", o.Param)
	if o.Literal > 0 {
		s = fmt.Sprintf("[%s]", literals[o.Literal-1].Text)
	}
	if o.Row != NoRow {
		s = []string{OldRow: "old", NewRow: "new"}[o.Row] + "." + o.Column
	}
	if o.Negated {
		s = "-" + s
	}
	if o.Cast != (Name{}) {
		s += "::" + dumpName(o.Cast)
	}
	return s
}
