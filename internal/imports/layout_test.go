package imports

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The root shall be what an application imports and database/sql calls, and no more: at most 18 files
// with 3,000 lines, and 8 files of tests. The core is still in it; these bounds are what it may have until it has
// moved, and are lowered with each part that does.
const (
	maxFiles     = 83
	maxLines     = 17_600
	maxTestFiles = 45
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
