package cachedpg_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewriteAPI = flag.Bool("api.rewrite", false, "write testdata/api.txt anew")

// What an application can use is in testdata/api.txt: a change of it is a decision, and shows in a diff.
func TestTheExportedSurface(t *testing.T) {
	const golden = "testdata/api.txt"
	got := surface(t, ".")
	if *rewriteAPI {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	have, had := strings.Split(got, "\n\n"), strings.Split(string(want), "\n\n")
	for _, decl := range have {
		if !slices.Contains(had, decl) {
			t.Errorf("new or changed:\n%s", decl)
		}
	}
	for _, decl := range had {
		if !slices.Contains(have, decl) {
			t.Errorf("gone or changed:\n%s", decl)
		}
	}
	if t.Failed() {
		t.Log("if that is meant: go test -run TestTheExportedSurface -api.rewrite .")
	}
}

// surface lists the exported declarations of the package in dir, without comments and bodies, sorted.
func surface(t *testing.T, dir string) string {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var decls []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.FileExports(f)
		for _, d := range f.Decls {
			decls = append(decls, declarations(t, d)...)
		}
	}
	slices.Sort(decls)
	return strings.Join(slices.Compact(decls), "\n\n") + "\n"
}

// declarations prints a declaration, of a group each by itself.
func declarations(t *testing.T, d ast.Decl) (texts []string) {
	t.Helper()
	show := func(node ast.Node) {
		var b bytes.Buffer
		// Without positions nothing of how the source is laid out, or commented on, is left.
		if err := printer.Fprint(&b, token.NewFileSet(), node); err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(b.String(), "// contains filtered") // what the printer says of unexported fields
		texts = append(texts, strings.TrimSpace(text))
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil && !ast.IsExported(receiver(d.Recv.List[0].Type)) {
			break
		}
		d.Doc, d.Body = nil, nil
		show(d)
	case *ast.GenDecl:
		if d.Tok == token.IMPORT {
			break
		}
		for _, spec := range d.Specs {
			ast.Inspect(spec, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ValueSpec:
					n.Doc, n.Comment = nil, nil
				case *ast.TypeSpec:
					n.Doc, n.Comment = nil, nil
				case *ast.Field:
					n.Doc, n.Comment = nil, nil
				}
				return true
			})
			show(&ast.GenDecl{Tok: d.Tok, Specs: []ast.Spec{spec}})
		}
	}
	return texts
}

// receiver is the name of a method's type.
func receiver(t ast.Expr) string {
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, _ := t.(*ast.Ident)
	return name.String()
}
