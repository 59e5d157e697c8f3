package cachedpg_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	code, err := os.ReadFile("config.go")
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
