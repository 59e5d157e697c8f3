package keying

import (
	"database/sql/driver"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

var rewrite = flag.Bool("rewrite", false, "write what the plans say into testdata/*.txt")

// TestGolden runs the transcripts in testdata: blocks of a statement, perhaps
// a line "own …" above it, of the session's temporary objects, and lines "args …" below it, a line of four dashes, and what the plan says. Lines
// with # are comments. Review a change with
//
//	go test ./keying -run Golden -rewrite && git diff keying/testdata
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			snapshot := testSchema(t)
			if strings.HasSuffix(file, "temporary.txt") {
				snapshot = withoutTypeCode(t) // of temporary tables the types of columns are not known
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
				input, want, _ := strings.Cut(block, "----\n")
				got := transcript(t, snapshot, input)
				if i > 0 {
					out.WriteString("\n")
				}
				if got == "" { // a comment
					out.WriteString(block + "\n")
					continue
				}
				fmt.Fprintf(&out, "%s\n----\n%s", strings.TrimRight(input, "\n"), got)
				if !*rewrite && strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") {
					t.Errorf("%s\ngot:\n%swant:\n%s", input, got, want)
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func withoutTypeCode(t testing.TB) *catalog.Snapshot {
	c := testContents(t)
	for i := range c.Types {
		c.Types[i].Writers = nil
	}
	return catalog.NewSnapshot(c)
}

// transcript says what the plan of a block says.
func transcript(t testing.TB, snapshot *catalog.Snapshot, input string) string {
	var sql []string
	var args [][]driver.NamedValue
	var own *Temporaries
	for _, line := range strings.Split(input, "\n") {
		switch rest, isArgs := strings.CutPrefix(line, "args "); {
		case strings.HasPrefix(line, "#") || line == "":
		case isArgs:
			args = append(args, parseArgs(t, rest))
		case strings.HasPrefix(line, "own "):
			own = NewTemporaries(strings.Fields(line)[1:])
		default:
			sql = append(sql, line)
		}
	}
	if sql == nil {
		return ""
	}
	p, literals := planAmong(t, snapshot, strings.Join(sql, "\n"), own)
	var b strings.Builder
	if p.Reason != NotRead {
		fmt.Fprintf(&b, "reason %s", p.Reason)
		if p.Detail != "" {
			fmt.Fprintf(&b, " (%s)", p.Detail)
		}
		b.WriteString("\n")
	}
	var flags []string
	for _, f := range []struct {
		set  bool
		name string
	}{{p.Writes, "writes"}, {p.Asks, "asks"}, {p.Commits, "commits"}, {p.Opaque, "opaque"}, {p.Catalog, "catalog"}, {p.Session, "session"}, {p.Unknown, "unknown"}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	if flags != nil {
		fmt.Fprintf(&b, "is %s\n", strings.Join(flags, " "))
	}
	if p.Sets != nil {
		fmt.Fprintf(&b, "sets %+v\n", *p.Sets)
	}
	if c := p.Temporary; c != nil {
		var made []string
		for _, o := range c.Made {
			made = append(made, string(o.Kind)+o.Name)
		}
		fmt.Fprintf(&b, "temporary made %q gone %q of %q until commit %t all %t", made, c.Gone, c.Of, c.UntilCommit, c.All)
		if c.Untold {
			b.WriteString(" untold")
		}
		b.WriteString("\n")
	}
	if own != nil && own.Among(p) == nil {
		b.WriteString("mentions none\n")
	}
	if args == nil {
		args = [][]driver.NamedValue{nil}
	}
	for i, list := range args {
		v := Values{Args: list, Literals: literals}
		if len(args) > 1 {
			fmt.Fprintf(&b, "args %d\n", i+1)
		}
		if p.Reason == NoReason {
			if _, _, r := p.Key(new([32]byte), v, nil); r != NoReason {
				fmt.Fprintf(&b, "reason %s\n", r)
				continue
			}
			tags, always, rows := p.ReadTags(nil, v)
			for j, tag := range tags {
				when := "always"
				if j >= always {
					if when = "absent"; rows > 1 {
						when = fmt.Sprintf("less than %d rows", rows)
					}
				}
				fmt.Fprintf(&b, "%s %s\n", when, tagName(tag, snapshot))
			}
		}
		for _, tag := range p.WriteTags(nil, v) {
			fmt.Fprintf(&b, "write  %s\n", tagName(tag, snapshot))
		}
	}
	if b.Len() == 0 {
		b.WriteString("nothing\n")
	}
	return b.String()
}

// tagName leaves the hash of a row out but for its start, so that transcripts
// show which rows are the same.
func tagName(tag store.Tag, snapshot *catalog.Snapshot) string {
	name := TagName(tag, snapshot)
	if tag.Kind == store.TagRow {
		name = name[:len(name)-12]
	}
	return name
}

// parseArgs reads arguments: 5, 'a_b' for 'a b', true, null, uuid:…, ints:1,2, strings:a,b, float:1.
func parseArgs(t testing.TB, line string) (args []driver.NamedValue) {
	for i, word := range strings.Fields(line) {
		kind, rest, _ := strings.Cut(word, ":")
		var v any
		switch {
		case word == "null":
		case word == "true" || word == "false":
			v = word == "true"
		case word[0] == '\'':
			v = strings.ReplaceAll(strings.Trim(word, "'"), "_", " ")
		case kind == "uuid":
			var u [16]byte
			b, err := hex.DecodeString(strings.ReplaceAll(rest, "-", ""))
			if err != nil {
				t.Fatal(err)
			}
			copy(u[:], b)
			v = u
		case kind == "ints":
			list := []int64{}
			for _, s := range strings.FieldsFunc(rest, func(r rune) bool { return r == ',' }) {
				n, _ := strconv.ParseInt(s, 10, 64)
				list = append(list, n)
			}
			v = list
		case kind == "strings":
			v = strings.Split(rest, ",")
		case kind == "float":
			v, _ = strconv.ParseFloat(rest, 64)
		default:
			n, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			v = n
		}
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return args
}
