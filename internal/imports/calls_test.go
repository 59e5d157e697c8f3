package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Calls go downwards within a package, too: its files can be put into an order in which no function calls one of a file
// above, so that a reader who begins at the top meets nothing twice. Exceptions are a file that calls, and the one that
// it calls.
var upwards = map[string][]string{
	"internal/core": {
		// What has run in a transaction that was lost runs again from the beginning.
		"statementpool.go → read.go", "statementpool.go → write.go",
		// A refill fills, and a fill may turn out to be a write that is refilled after.
		"refill.go → fill.go",
	},
	"internal/space": {
		// Whoever loads the catalog has the watch begin, and what that finds has the catalog loaded.
		"agree.go → watch_lease.go",
	},
}

func TestCallsGoDownwards(t *testing.T) {
	exports := exportData(t)
	for _, p := range list(t) {
		path := relative(p.ImportPath)
		if !strings.HasPrefix(path, "internal/") || isForTests(path) {
			continue
		}
		calls := callsBetweenFiles(t, p, exports)
		for _, exception := range upwards[path] {
			if calls[exception] == "" {
				t.Errorf("%s: there is no call %q any more", path, exception)
			}
			delete(calls, exception)
		}
		if circle := circleIn(calls); circle != nil {
			t.Errorf("%s: calls go round in a circle:\n\t%s", path, strings.Join(circle, "\n\t"))
		}
	}
	if n := len(slices.Concat(slices.Collect(maps.Values(upwards))...)); n > 10 {
		t.Errorf("%d exceptions, want at most 10", n)
	}
}

// isForTests reports that only tests import a package.
func isForTests(path string) bool {
	return slices.ContainsFunc([]string{"child", "exampletest", "harness", "imports", "pgtest", "psql", "redistest", "sqlgen"}, func(name string) bool {
		return matches("internal/"+name+"/...", path)
	})
}

// exportData is where the compiler has put what packages export, by import path.
func exportData(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export", module+"/internal/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files := make(map[string]string)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ ImportPath, Export string }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
	}
}

// callsBetweenFiles finds which file uses functions of which other one, as "from → to", with the name of one of them.
func callsBetweenFiles(t *testing.T, p goPackage, exports map[string]string) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	if _, err := conf.Check(p.ImportPath, fset, files, info); err != nil {
		t.Fatalf("%s: %v", p.ImportPath, err)
	}
	calls := make(map[string]string)
	for ident, object := range info.Uses {
		f, ok := object.(*types.Func)
		if !ok || f.Pkg() == nil || f.Pkg().Path() != p.ImportPath || ofInterface(f) {
			continue
		}
		from, to := fset.Position(ident.Pos()).Filename, fset.Position(f.Origin().Pos()).Filename
		if from != to {
			calls[filepath.Base(from)+" → "+filepath.Base(to)] = f.Name()
		}
	}
	return calls
}

// ofInterface reports that a method is not the one that runs.
func ofInterface(f *types.Func) bool {
	r := f.Signature().Recv()
	return r != nil && types.IsInterface(r.Type())
}

// circleIn returns calls that lead back to the file where they begin, nil if there are none.
func circleIn(calls map[string]string) (circle []string) {
	next := make(map[string][]string)
	for _, call := range slices.Sorted(maps.Keys(calls)) {
		from, to, _ := strings.Cut(call, " → ")
		next[from] = append(next[from], to)
	}
	var way []string
	seen := make(map[string]bool)
	var visit func(file string) bool
	visit = func(file string) bool {
		if i := slices.Index(way, file); i >= 0 {
			way = append(way[i:], file)
			return true
		}
		if seen[file] {
			return false
		}
		seen[file] = true
		way = append(way, file)
		if slices.ContainsFunc(next[file], visit) {
			return true
		}
		way = way[:len(way)-1]
		return false
	}
	for _, file := range slices.Sorted(maps.Keys(next)) {
		if visit(file) {
			for i := range way[1:] {
				call := way[i] + " → " + way[i+1]
				circle = append(circle, fmt.Sprintf("%s (%s)", call, calls[call]))
			}
			return circle
		}
	}
	return nil
}

func TestACircleOfCallsIsFound(t *testing.T) {
	calls := map[string]string{"a → b": "f", "b → c": "g", "b → d": "h", "d → b": "i"}
	if got := circleIn(calls); !slices.Equal(got, []string{"b → d (h)", "d → b (i)"}) {
		t.Errorf("got %q", got)
	}
	delete(calls, "d → b")
	if got := circleIn(calls); got != nil {
		t.Errorf("got %q", got)
	}
}
