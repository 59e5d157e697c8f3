//go:build unix

package pgtest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// It is not parallel: a process that another test is starting has the locks of this one until it has begun.
func TestFoldersOfKilledProcessesAreRemoved(t *testing.T) {
	parent := t.TempDir()
	var folders [2]*folder
	for i := range folders {
		f, err := newFolder(parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.path, "PG_VERSION"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		folders[i] = f
	}
	lives, killed := folders[0], folders[1]
	killed.lock.Close() // as the system does for who is killed
	removeLeftIn(parent)
	if got, _ := filepath.Glob(filepath.Join(parent, "*")); len(got) != 1 || got[0] != lives.path {
		t.Errorf("there are %q, want only %s, whose process lives", got, lives.path)
	}
	lives.remove()
	if got, _ := filepath.Glob(filepath.Join(parent, "*")); len(got) != 0 {
		t.Errorf("there are %q after the end, want none", got)
	}
}

// What initdb has made stays for as long as the process, whatever is collected meanwhile.
func TestWhatServersAreCopiedFromStays(t *testing.T) {
	postgresBin(t)
	data := initialized(t)
	for range 5 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond) // files that nothing refers to are closed beside
	}
	removeLeftIn(filepath.Dir(filepath.Dir(data)))
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
}
