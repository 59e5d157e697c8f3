package cachedpg_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
