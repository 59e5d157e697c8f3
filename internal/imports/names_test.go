package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// code is what the project's Go files declare, nested modules included.
type code struct {
	files    map[string]*file           // by path from the root
	packages map[string]map[string]bool // by name of the package: what it declares outside of functions
	types    map[string]map[string]bool // by name of the type: its methods and fields; types of one name are not told apart
}

type file struct {
	declares map[string]bool // "Name", "Type.method", "Type.field"
	comments []string
}

const root = "../.."

func read(t *testing.T) *code {
	t.Helper()
	c := &code{files: make(map[string]*file), packages: make(map[string]map[string]bool), types: make(map[string]map[string]bool)}
	walk(t, ".go", func(path string) {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		f := &file{declares: make(map[string]bool)}
		c.files[path] = f
		for _, group := range parsed.Comments {
			for _, comment := range group.List {
				f.comments = append(f.comments, comment.Text)
			}
		}
		for _, d := range parsed.Decls {
			c.take(f, parsed.Name.Name, d)
		}
	})
	if len(c.files) < 400 {
		t.Fatalf("found %d files of Go", len(c.files))
	}
	return c
}

// walk calls f with the paths, from the root, of the files that are a part of the repository.
func walk(t *testing.T, suffix string, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "vendor"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, suffix):
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			f(filepath.ToSlash(relative))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// take takes in a declaration.
func (c *code) take(f *file, pkg string, d ast.Decl) {
	outside := func(name string) {
		f.declares[name] = true
		put(c.packages, pkg, name)
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			outside(d.Name.Name)
			return
		}
		receiver := nameOf(d.Recv.List[0].Type)
		f.declares[receiver+"."+d.Name.Name] = true
		put(c.types, receiver, d.Name.Name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					outside(name.Name)
				}
			case *ast.TypeSpec:
				outside(spec.Name.Name)
				put(c.types, spec.Name.Name, "")
				ast.Inspect(spec.Type, func(n ast.Node) bool {
					if field, ok := n.(*ast.Field); ok {
						names := field.Names
						if names == nil { // embedded
							names = []*ast.Ident{ast.NewIdent(nameOf(field.Type))}
						}
						for _, name := range names {
							f.declares[spec.Name.Name+"."+name.Name] = true
							put(c.types, spec.Name.Name, name.Name)
						}
					}
					return true
				})
			}
		}
	}
}

func put(sets map[string]map[string]bool, of, name string) {
	if sets[of] == nil {
		sets[of] = make(map[string]bool)
	}
	sets[of][name] = true
}

// nameOf is the name of a type, without what is around it.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return nameOf(e.X)
	case *ast.IndexExpr:
		return nameOf(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// find is the path of the file that a text in folder names, "" if there is none.
func (c *code) find(name string, folders ...string) string {
	for _, folder := range append(folders, "") {
		if path := filepath.ToSlash(filepath.Join(folder, name)); c.files[path] != nil {
			return path
		}
	}
	return ""
}

var (
	namedFile  = regexp.MustCompile("(?:^|[^[])`([\\w./-]+\\.go)`") // not of links, which another test follows
	afterFile  = regexp.MustCompile("`([\\w./-]+\\.go)` \\(?`((?:\\w+\\.)?\\w+)`")
	beforeFile = regexp.MustCompile("`((?:\\w+\\.)?\\w+)` in `([\\w./-]+\\.go)`")
	folder     = regexp.MustCompile("^#.*: `([\\w./-]+)`")
)

// Each file of Go that a page names is there: below the root, below the page's folder, or in the folder that the heading
// above it gives. And it declares what stands beside its name, as in "`conn.go` `Conn.QueryContext`" or "`Reload` in
// `catalog/reload.go`".
func TestTheFilesThatPagesNameAreThere(t *testing.T) {
	c := read(t)
	var files, names int
	walk(t, ".md", func(page string) {
		in := ""
		declares := func(file, name string) {
			if strings.HasSuffix(name, ".go") { // another file
				return
			}
			if path := c.find(file, in, filepath.Dir(page)); path != "" && !c.files[path].declares[name] {
				t.Errorf("%s: %s does not declare %s", page, path, name)
			}
			names++
		}
		for _, line := range lines(t, page) {
			if strings.HasPrefix(line, "#") {
				in = ""
			}
			if m := folder.FindStringSubmatch(line); m != nil {
				in = m[1]
			}
			for _, m := range namedFile.FindAllStringSubmatch(line, -1) {
				if c.find(m[1], in, filepath.Dir(page)) == "" {
					t.Errorf("%s: there is no %s", page, m[1])
				}
				files++
			}
			for _, m := range afterFile.FindAllStringSubmatch(line, -1) {
				declares(m[1], m[2])
			}
			for _, m := range beforeFile.FindAllStringSubmatch(line, -1) {
				declares(m[2], m[1])
			}
		}
	})
	t.Logf("%d files, %d names beside them", files, names)
	if files < 100 || names < 30 {
		t.Errorf("found %d files, and %d names beside them", files, names)
	}
}

// DESIGN.md has a place for each file of the root and of the folders that its headings name, and for each package below
// internal/.
func TestTheMapIsComplete(t *testing.T) {
	c := read(t)
	const page = "DESIGN.md"
	in, mapped, placed := "", map[string]bool{".": true}, make(map[string]bool)
	text := lines(t, page)
	for _, line := range text {
		if strings.HasPrefix(line, "#") {
			in = ""
		}
		if m := folder.FindStringSubmatch(line); m != nil {
			in = m[1]
			mapped[in] = true
		}
		for _, m := range namedFile.FindAllStringSubmatch(line, -1) {
			placed[c.find(m[1], in)] = true
		}
	}
	all := strings.Join(text, "\n")
	for path := range c.files {
		dir, name := filepath.Split(path)
		dir = filepath.Clean(dir)
		if mapped[dir] && name != "doc.go" && !strings.HasSuffix(name, "_test.go") && !placed[path] {
			t.Errorf("%s has no place for %s", page, path)
		}
		if below, ok := strings.CutPrefix(dir, "internal/"); ok && !mapped[dir] && !strings.Contains(below, "/") &&
			!strings.Contains(all, "`"+dir+"/`") && !strings.Contains(all, "`"+below+"`") {
			t.Errorf("%s has no place for package %s", page, dir)
		}
	}
	if len(mapped) < 4 {
		t.Errorf("found the folders %v", mapped)
	}
}

var (
	qualified = regexp.MustCompile("`\\*?(?:[a-z]\\w*\\.)?(\\w+)\\.(\\w+)`")
	testName  = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z0-9]\\w*)`")
)

// Tests that a page names are there, and what pages for those who work on the code call Type.method, Type.field or
// package.name is declared.
func TestTheNamesThatPagesGiveAreDeclared(t *testing.T) {
	c := read(t)
	tests := make(map[string]bool)
	for path, f := range c.files {
		if strings.HasSuffix(path, "_test.go") {
			maps.Copy(tests, f.declares)
		}
	}
	var names int
	walk(t, ".md", func(page string) {
		for _, line := range lines(t, page) {
			for _, m := range testName.FindAllStringSubmatch(line, -1) {
				if names++; !tests[m[1]] {
					t.Errorf("%s: there is no %s", page, m[1])
				}
			}
		}
		switch {
		case page == "DESIGN.md", page == "CONTRIBUTING.md", strings.HasPrefix(page, "docs/decisions/"), strings.HasPrefix(page, "invalidation/model/"):
		default:
			return
		}
		for _, line := range lines(t, page) {
			for _, m := range qualified.FindAllStringSubmatch(line, -1) {
				of, name := m[1], m[2]
				switch of {
				case "driver", "sql", "io", "netip", "pgx", "public": // others' packages, and a schema
					continue
				case "cachedpg":
					if name == "queue" { // a table
						continue
					}
				}
				switch name {
				case "go", "md", "txt", "pml": // files
					continue
				}
				if names++; !c.types[of][name] && !c.packages[of][name] {
					t.Errorf("%s: %s.%s is not declared", page, of, name)
				}
			}
		}
	})
	t.Logf("%d names", names)
	if names < 200 {
		t.Errorf("found %d names", names)
	}
}

var mentioned = regexp.MustCompile(`[\w./-]*\w\.go\b`)

// Each file of Go that a comment names is there, below the root or in the comment's folder.
func TestTheFilesThatCommentsNameAreThere(t *testing.T) {
	c := read(t)
	var found int
	for path, f := range c.files {
		for _, comment := range f.comments {
			for _, name := range mentioned.FindAllString(comment, -1) {
				if strings.HasPrefix(name, "_") || strings.HasPrefix(name, "*") || strings.Contains(name, "//") { // a pattern, an address
					continue
				}
				if found++; c.find(name, filepath.Dir(path)) == "" {
					t.Errorf("%s: there is no %s", path, name)
				}
			}
		}
	}
	t.Logf("%d names", found)
	if found < 40 {
		t.Errorf("found %d names", found)
	}
}

func lines(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}
