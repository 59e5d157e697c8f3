package cachedpg_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/keying"
)

// pages are the texts for people, by their paths.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(text)
		}
	}
	return texts
}

var link = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	texts := pages(t)
	for path, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor := m[1], strings.TrimPrefix(m[2], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: there is no %s", path, to)
			} else if anchor != "" && !slices.Contains(anchors(texts[to]), anchor) {
				t.Errorf("%s: %s has no heading %q", path, to, anchor)
			}
		}
	}
}

// anchors are the names of a page's headings.
func anchors(text string) (names []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		name = regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(name, "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

var (
	settingKey = regexp.MustCompile(`\bcache_[a-z_]+\b`)
	keyCase    = regexp.MustCompile(`case "(cache_[a-z_]+)":`)
)

// execModes are named like settings, and are pgx's.
var execModes = []string{"cache_statement", "cache_describe"}

func TestSettingsAreTheSameInCodeAndPages(t *testing.T) {
	code, err := os.ReadFile("internal/config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, m := range keyCase.FindAllSubmatch(code, -1) {
		known = append(known, string(m[1]))
	}
	if len(known) < 10 {
		t.Fatalf("found the settings %v", known)
	}
	texts := pages(t)
	for _, key := range known {
		if !strings.Contains(texts["docs/configuration.md"], "| `"+key+"` |") {
			t.Errorf("docs/configuration.md does not explain %s", key)
		}
	}
	for path, text := range texts {
		for _, key := range settingKey.FindAllString(text, -1) {
			if key != "cache_" && !slices.Contains(known, key) && !slices.Contains(execModes, key) {
				t.Errorf("%s: there is no setting %s", path, key)
			}
		}
	}
}

// docs/explain.md has each reason with the words and the remedy of the code, and no other.
func TestReasonsAreTheSameInCodeAndPages(t *testing.T) {
	page := pages(t)["docs/explain.md"]
	_, table, ok := strings.Cut(page, "\n| reason | what it means | remedy |\n| --- | --- | --- |\n")
	if !ok {
		t.Fatal("docs/explain.md has no table of reasons")
	}
	var want strings.Builder
	for _, r := range keying.Reasons() {
		fmt.Fprintf(&want, "| `%v` | %s | %s |\n", r, r.Words(), r.Remedy())
	}
	if table != want.String() {
		t.Errorf("docs/explain.md has the reasons\n%s\nwant\n%s", table, want.String())
	}
}

func TestEveryExampleIsNamed(t *testing.T) {
	dirs, err := filepath.Glob("examples/*")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, text := range pages(t) {
		all.WriteString(text)
	}
	for _, dir := range append(dirs, "contrib/kafka/example") {
		if !strings.Contains(all.String(), filepath.ToSlash(dir)) {
			t.Errorf("no page names %s", dir)
		}
		if dir == "examples/quickstart" { // it measures, so it prints something else each time
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "testdata")); err != nil {
			t.Errorf("what %s prints is not compared: %v", dir, err)
		}
	}
}

// The policies that pages show are understood.
func TestPoliciesInPages(t *testing.T) {
	policy := regexp.MustCompile("cache_policy=([a-z_.:0-9,-]+)")
	for path, text := range pages(t) {
		for _, m := range policy.FindAllStringSubmatch(text, -1) {
			_, _, err := cachedpg.ParseConfig("postgres://h/d?cache_store=redis://h&" + m[0])
			if err != nil {
				t.Errorf("%s: %s: %v", path, m[0], err)
			}
		}
	}
}

var (
	decisionHeading = regexp.MustCompile(`(?m)^## (D\d+)\. (.+)$`)
	decisionParts   = regexp.MustCompile(`^\n- \*\*Context:\*\* \S.*\n- \*\*Decision:\*\* \S.*\n- \*\*Without it:\*\* \S.*\n- \*\*Shown by:\*\* (\S.*)\n*$`)
	quoted          = regexp.MustCompile("`([^`]+)`")
	testFunc        = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	citation        = regexp.MustCompile(`docs/decisions/([\w-]+\.md)(?: \(([^)]*)\))?`)
	number          = regexp.MustCompile(`D\d+`)
)

const noTest = "No test of its own."

// Each record of docs/decisions has a number of its own, a row in the index, four parts,
// and a test that is there; and what comments cite is there, too.
func TestDecisions(t *testing.T) {
	sources := goSources(t)
	tests := make(map[string]bool)
	for path, text := range sources {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
				tests[m[1]] = true
			}
		}
	}
	var index strings.Builder
	where := make(map[string]string) // the page of each number
	titles := make(map[string]string)
	for path, text := range pages(t) {
		switch {
		case !strings.HasPrefix(path, filepath.FromSlash("docs/decisions/")):
			continue
		case filepath.Base(path) == "README.md":
			index.WriteString(text)
			continue
		}
		found := decisionHeading.FindAllStringSubmatchIndex(text, -1)
		if len(found) == 0 {
			t.Errorf("%s has no record", path)
		}
		for i, m := range found {
			name, title, end := text[m[2]:m[3]], text[m[4]:m[5]], len(text)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			if before, ok := where[name]; ok {
				t.Errorf("%s is in %s and in %s", name, before, path)
			}
			where[name], titles[name] = filepath.Base(path), title
			parts := decisionParts.FindStringSubmatch(text[m[1]+1 : end])
			if parts == nil {
				t.Errorf("%s: %s has not the parts Context, Decision, Without it and Shown by, a line each", path, name)
				continue
			}
			shown := quoted.FindAllStringSubmatch(parts[1], -1)
			if len(shown) == 0 && parts[1] != noTest {
				t.Errorf("%s: %s names no test, and does not say %q", path, name, noTest)
			}
			for _, s := range shown {
				if _, err := os.Stat(s[1]); err != nil && !tests[s[1]] {
					t.Errorf("%s: %s is shown by %s, which is neither a test nor a file", path, name, s[1])
				}
			}
		}
	}
	if len(where) < 80 {
		t.Errorf("found %d decisions", len(where))
	}
	for name, page := range where {
		row := fmt.Sprintf("\n| %s | [%s](%s#", name, titles[name], page)
		if n := strings.Count(index.String(), row); n != 1 {
			t.Errorf("%d rows of the index begin with %q", n, row)
		}
	}
	if n := strings.Count(index.String(), "\n| D"); n != len(where) {
		t.Errorf("the index has %d rows for %d decisions", n, len(where))
	}
	for path, text := range sources {
		text = regexp.MustCompile(`\n\s*//\s*`).ReplaceAllString(text, " ")
		for _, m := range citation.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("docs", "decisions", m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			for _, name := range number.FindAllString(m[2], -1) {
				if where[name] != m[1] {
					t.Errorf("%s: %s is not in %s", path, name, m[1])
				}
			}
		}
	}
}

// goSources are the texts of all Go files, nested modules included, by their paths.
func goSources(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "vendor"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// The page's commands bring what `go mod vendor` has left out. One file of C tells.
func TestThePageOnVendoringBringsTheHeaders(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/building.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?s)After each `go mod vendor`:\n\n```\n(.*?)```").FindSubmatch(page)
	if commands == nil {
		t.Fatal("the page has no commands")
	}
	dir := t.TempDir()
	vendor := filepath.Join(dir, "vendor")
	run := func(in, name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.Dir = in
		out, err := cmd.CombinedOutput()
		t.Logf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		return err
	}
	if err := run(".", "go", "mod", "vendor", "-o", vendor); err != nil {
		t.Fatal(err)
	}
	parser := filepath.Join(vendor, "github.com/pganalyze/pg_query_go/v5/parser")
	compiles := func() error {
		return run(parser, "cc", "-fsyntax-only", "-Iinclude", "-Iinclude/postgres", "pg_query.c")
	}
	if compiles() == nil {
		t.Error("go mod vendor has brought the headers: the page is out of date")
	}
	script := strings.ReplaceAll(string(commands[1]), " vendor/", " "+vendor+"/")
	if err := run(".", "sh", "-euc", script); err != nil {
		t.Fatal(err)
	}
	if err := compiles(); err != nil {
		t.Error("with the page's commands the parser does not compile")
	}
}

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

func TestTheProgramsInPagesCompile(t *testing.T) {
	texts := pages(t)
	if !goBlock.MatchString(texts["README.md"]) {
		t.Fatal("no program in README.md")
	}
	for page, text := range texts {
		for _, block := range goBlock.FindAllStringSubmatch(text, -1) {
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", page, err, out, block[1])
			}
		}
	}
}

// README.md is read in a minute, and every other page is one click away from it.
func TestTheReadmeIsShortAndLeadsToEveryPage(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(readme, []byte("\n")); n > 150 {
		t.Errorf("README.md has %d lines, want at most 150: move details to docs/", n)
	}
	for _, command := range []string{"make demo", "make test"} {
		if !strings.Contains(string(readme), "\n"+command+" ") {
			t.Errorf("README.md does not show %s", command)
		}
	}
	linked := make(map[string]bool)
	for _, m := range link.FindAllSubmatch(readme, -1) {
		linked[string(m[1])] = true
	}
	for page := range pages(t) {
		if page = filepath.ToSlash(page); page != "README.md" && !inFolderWithIndex(page) && !linked[page] {
			t.Errorf("README.md has no link to %s", page)
		}
	}
}

// inFolderWithIndex reports that a page is listed by the README.md of its folder.
func inFolderWithIndex(page string) bool {
	return strings.Count(page, "/") > 1 && !strings.HasSuffix(page, "/README.md")
}
