package imports

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cachedpg/cachedpg"

// rule says what the packages that match it may import. A pattern is a path
// relative to the module, with /... for everything below; "." is the root.
// The first rule that matches a package counts.
type rule struct {
	pattern string
	project []string // patterns of the project's packages that may be imported
	modules []string // third-party modules that may be imported, by prefix
	never   []string // packages of the standard library that may not, by pattern
}

const (
	pgQuery  = "github.com/pganalyze/pg_query_go/v5"
	protobuf = "google.golang.org/protobuf" // of which its trees are made
	pgx      = "github.com/jackc/pgx/v5"
	pglog    = "github.com/jackc/pglogrepl"
	goRedis  = "github.com/redis/go-redis/v9"
	sqlmock  = "github.com/DATA-DOG/go-sqlmock"
	goleak   = "go.uber.org/goleak"
)

// Pure packages do no I/O, keep no clock and take no context. They may know
// types without behaviour of that kind: time.Time, netip.Addr, driver.Valuer.
// TestPurePackagesKeepNoClock looks closer at what they use of package time.
var impure = []string{
	"context", "database/sql", "io/fs", "log/...", "math/rand/...", "net", "net/http/...",
	"os/...", "syscall", "testing/...",
}

// What knows nothing of the driver may be used by all of it.
const (
	waiting = "internal/patience"
	pausing = "internal/pause"
	refusal = "internal/pgerr"
	steps   = "internal/step"
)

// speaks is what the face alone knows: everything else speaks the wrapped connection's words, see internal/backend.
var speaks = []string{"database/sql/driver"}

var rules = []rule{
	// The face.
	{pattern: ".", project: []string{"internal/core", "internal/config", "internal/backend", "internal/behind", "internal/outbox", "internal/setup", "internal/peers", "internal/inside", "internal/redact", "invalidation/...", "store"}, modules: []string{pgx}},
	// The core: connections, their reads and writes.
	{pattern: "internal/core", project: []string{"internal/planning", "internal/space", "internal/peers", "internal/flight", "internal/through", "internal/behind", "internal/outbox", "internal/feed", "internal/guard", "internal/backend", "internal/config", "internal/clock",
		"internal/inside", "internal/redact", waiting, pausing, refusal, steps, "invalidation/...", "keying", "parser", "catalog", "store", "store/redis"}, modules: []string{pgx}, never: speaks},
	// What is known of texts.
	{pattern: "internal/planning", project: []string{"internal/space", "internal/behind", "internal/backend", "internal/config", "internal/clock", "internal/redact", "keying", "parser", "catalog", "store"}, modules: []string{pgx}, never: speaks},
	// What connections to one database share.
	{pattern: "internal/space", project: []string{"internal/peers", "internal/flight", "internal/through", "internal/feed", "internal/guard", "internal/backend", "internal/config", "internal/turnstile",
		waiting, pausing, refusal, steps, "invalidation/...", "keying", "parser", "catalog", "store", "store/redis"}, modules: []string{pgx}, never: speaks},
	{pattern: "internal/peers", project: []string{"internal/guard", "internal/backend", waiting, pausing, refusal, "keying", "store"}, never: speaks},
	{pattern: "internal/guard", project: []string{"internal/backend", "internal/turnstile", waiting, pausing, "catalog", "store"}, modules: []string{pgx}, never: speaks},
	{pattern: "internal/flight", project: []string{waiting, "store"}, modules: []string{pgx}, never: speaks},
	// Strategies.
	{pattern: "internal/through", project: []string{"internal/backend", "store"}, modules: []string{pgx}, never: speaks},
	{pattern: "internal/behind", project: []string{"internal/backend", pausing, refusal, steps, "parser", "catalog", "keying", "store", "store/redis"}, modules: []string{pgx}, never: speaks},
	// Sources of events.
	{pattern: "internal/outbox", project: []string{"internal/guard", "internal/backend", pausing, refusal, steps, "invalidation", "store"}, modules: []string{pgx}, never: speaks},
	{pattern: "internal/feed", project: []string{"internal/guard", "internal/backend", pausing, steps, "invalidation", "invalidation/walfeed", "keying", "catalog", "store"}, never: speaks},
	// What a database must have, for the command and for programs.
	{pattern: "internal/setup", project: []string{"internal/outbox", "internal/behind", "internal/guard", "internal/config", pausing, refusal, "invalidation/walfeed"}, modules: []string{pgx}, never: speaks},
	// The wrapped connection, and what all others build upon.
	{pattern: "internal/backend", project: []string{"parser", "catalog", "keying", refusal}, modules: []string{pgx}},
	{pattern: "internal/config", project: []string{"internal/redact", "catalog", "store/redis"}, never: speaks},
	{pattern: "parser", modules: []string{pgQuery, protobuf}, never: impure},
	{pattern: "catalog", project: []string{"internal/..."}, modules: []string{pgx}},
	{pattern: "keying", project: []string{"parser", "catalog", "store", "internal/clock"}, never: impure},
	{pattern: "store", project: []string{"internal/..."}},
	{pattern: "store/redis", project: []string{"store", "internal/..."}, modules: []string{goRedis}},
	{pattern: "store/...", project: []string{"store/...", "internal/..."}},
	{pattern: "invalidation", project: []string{"store", "internal/..."}},
	{pattern: "invalidation/walfeed", project: []string{"invalidation", "store", "catalog", "internal/..."}, modules: []string{pgx, pglog}},
	{pattern: "invalidation/...", project: []string{"invalidation/...", "store", "internal/..."}},
	{pattern: "test/..."}, // tests alone
	{pattern: "internal/backend/backendtest", project: []string{"catalog", "internal/backend"}, modules: []string{pgx, sqlmock}},
	{pattern: "internal/pgerr", modules: []string{pgx}},
	{pattern: "internal/pgtest", project: []string{"internal/child"}, modules: []string{pgx}},
	{pattern: "internal/redistest", project: []string{"internal/child"}, modules: []string{goRedis}},
	{pattern: "internal/patience", project: []string{"store"}},
	{pattern: "internal/inside", project: []string{"catalog", "store", "invalidation", "internal/..."}},
	{pattern: "internal/harness/outside", project: []string{".", "keying", "internal/..."}, modules: []string{pgx}},
	{pattern: "internal/harness/questions", project: []string{"internal/..."}, modules: []string{pgQuery}},
	{pattern: "internal/harness", project: []string{"keying", "store", "internal/..."}, modules: []string{pgx, goleak}},
	{pattern: "internal/...", project: []string{"internal/..."}},
	{pattern: "cmd/...", project: []string{".", "..."}, modules: []string{pgx}},
	// They show what happens between two steps.
	{pattern: "examples/processes", project: []string{".", "internal/step", "examples/..."}, modules: []string{pgx}},
	{pattern: "examples/writebehind", project: []string{".", "internal/step", "examples/..."}, modules: []string{pgx}},
	{pattern: "examples/writethrough", project: []string{".", "internal/step", "examples/..."}, modules: []string{pgx}},
	// They have a cache by hand beside the driver.
	{pattern: "examples/stampede", project: []string{"."}, modules: []string{pgx, goRedis}},
	{pattern: "examples/updateonwrite", project: []string{"."}, modules: []string{pgx, goRedis}},
	{pattern: "examples/...", project: []string{".", "keying", "invalidation", "examples/..."}, modules: []string{pgx}},
}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string // of the package itself: tests may import what they need
}

func TestDirectionOfImports(t *testing.T) {
	packages := list(t)
	paths := make([]string, len(packages))
	for i, p := range packages {
		paths[i] = relative(p.ImportPath)
		found := slices.IndexFunc(rules, func(r rule) bool { return matches(r.pattern, paths[i]) })
		if found < 0 {
			t.Errorf("%s: no rule says what it may import", paths[i])
			continue
		}
		for _, imported := range p.Imports {
			if reason := rules[found].forbids(imported); reason != "" {
				t.Errorf("%s imports %s: %s", paths[i], imported, reason)
			}
		}
	}
	// The test must not pass because it looked in the wrong place.
	for _, want := range []string{".", "parser", "catalog", "keying", "store", "invalidation"} {
		if !slices.Contains(paths, want) {
			t.Errorf("go list did not find %s among %q", want, paths)
		}
	}
}

func TestRulesCatchWhatTheyAreFor(t *testing.T) {
	tests := []struct {
		pkg, imported string
		allowed       bool
	}{
		{".", module + "/internal/core", true},
		{".", module + "/parser", false},
		{".", module + "/keying", false},
		{"internal/core", module + "/keying", true},
		{"internal/core", module, false},
		{"internal/core", "database/sql/driver", false},
		{"internal/space", module + "/internal/core", false},
		{"internal/through", module + "/internal/space", false},
		{"internal/behind", module + "/internal/core", false},
		{"internal/outbox", module + "/internal/space", false},
		{"internal/setup", module + "/internal/core", false},
		{"internal/feed", module + "/internal/space", false},
		{".", pgx + "/stdlib", true},
		{".", pgQuery, false},
		{".", goRedis, false},
		{".", "context", true},
		{"parser", pgQuery + "/parser", true},
		{"parser", module + "/catalog", false},
		{"parser", "context", false},
		{"parser", "os/exec", false},
		{"parser", "time", true},
		{"parser", "net/http", false},
		{"parser", "strings", true},
		{"keying", module + "/store", true},
		{"keying", module + "/store/redis", false},
		{"keying", module, false},
		{"keying", pgx, false},
		{"keying", "time", true},
		{"keying", "database/sql", false},
		{"keying", "database/sql/driver", true},
		{"keying", "net/netip", true},
		{"keying", "net", false},
		{"catalog", pgx, true},
		{"catalog", module + "/parser", false},
		{"store", module + "/keying", false},
		{"store", pgx, false},
		{"store/redis", goRedis, true},
		{"store/memory", goRedis, false},
		{"store/memory", module + "/store", true},
		{"internal/backend", module + "/keying", true},
		{"internal/backend", module, false},
		{"internal/backend", module + "/store", false},
		{"internal/behind", module + "/store/redis", true},
		{"internal/behind", module, false},
		{"internal/behind", goRedis, false},
		{"internal/redistest", goRedis, true},
		{"internal/redistest", module + "/store", false},
		{"internal/pgtest", goRedis, false},
		{"invalidation", module + "/catalog", false},
		{"invalidation", module + "/store", true},
		{"invalidation/walfeed", pgx + "/pgconn", true},
		{"invalidation/outbox", pgx, false},
		{"cmd/cachedpg", module, true},
		{"examples/processes", module + "/internal/step", true},
		{"examples/quickstart", module + "/internal/step", false},
		{"store", "github.com/elsewhere/module", false},
	}
	for _, tt := range tests {
		found := slices.IndexFunc(rules, func(r rule) bool { return matches(r.pattern, tt.pkg) })
		if found < 0 {
			t.Errorf("no rule for %s", tt.pkg)
			continue
		}
		if reason := rules[found].forbids(tt.imported); (reason == "") != tt.allowed {
			t.Errorf("%s imports %s: forbidden %q, want allowed %v", tt.pkg, tt.imported, reason, tt.allowed)
		}
	}
}

func TestPurePackagesKeepNoClock(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	for _, p := range list(t) {
		if path := relative(p.ImportPath); path != "parser" && path != "keying" {
			continue
		}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if selector, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clock, selector.Sel.Name) {
					if x, ok := selector.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s/%s uses time.%s", relative(p.ImportPath), name, selector.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// forbids returns why the import is not allowed, or "".
func (r rule) forbids(imported string) string {
	if imported == module || strings.HasPrefix(imported, module+"/") {
		if !slices.ContainsFunc(r.project, func(p string) bool { return matches(p, relative(imported)) }) {
			return "against the direction of imports"
		}
		return ""
	}
	first, _, _ := strings.Cut(imported, "/")
	if strings.Contains(first, ".") {
		if !slices.ContainsFunc(r.modules, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") }) {
			return "a dependency that belongs to another package"
		}
		return ""
	}
	if slices.ContainsFunc(r.never, func(p string) bool { return matches(p, imported) }) {
		return "not for this package, see its rule"
	}
	return ""
}

// matches reports whether a pattern, which may end in ..., covers a path.
func matches(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return path == pattern
}

func relative(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
