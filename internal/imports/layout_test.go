package imports

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The root is what an application imports and database/sql calls, and no more.
const (
	maxFiles     = 18
	maxLines     = 3_000
	maxTestFiles = 8
)

func TestTheRootDoesNotGrow(t *testing.T) {
	paths, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files, lines, tests int
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			tests++
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files++
		lines += bytes.Count(text, []byte{'\n'})
	}
	t.Logf("the root has %d files with %d lines, and %d files of tests", files, lines, tests)
	if files > maxFiles || lines > maxLines || tests > maxTestFiles {
		t.Errorf("want at most %d files with %d lines, and %d files of tests: what is new belongs below internal/ or test/", maxFiles, maxLines, maxTestFiles)
	}
	if files == 0 || tests == 0 {
		t.Error("the root was not found")
	}
}
