package cachedpg_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
