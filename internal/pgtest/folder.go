//go:build unix

package pgtest

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// memory is where Linux has files in memory.
const memory = "/dev/shm"

// A server's folder is locked while the process lives that made it. One that is not locked yet
// has the other name, lest it be taken for one that is left.
const (
	folderName = "cachedpg-postgres-"
	unlocked   = "cachedpg-new-"
)

// folder is a server's. The lock ends with the process, by whatever means that ends.
type folder struct {
	path string
	lock *os.File
}

// serverFolder makes a folder that the server's user owns. It is not below tb.TempDir, which
// another user cannot enter.
func serverFolder(tb testing.TB) *folder {
	tb.Helper()
	removeLeft()
	f, err := newFolder(parentFolder())
	if err != nil {
		tb.Fatal(err)
	}
	if as := serverUser(tb); as != nil {
		if err := os.Chown(f.path, int(as.Uid), int(as.Gid)); err != nil {
			f.remove()
			tb.Fatal(err)
		}
	}
	return f
}

// parentFolder is in memory if that has room for a server's thousand files, and otherwise where temporary files are.
func parentFolder() string {
	const room = 2 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || uint64(fs.Bavail)*uint64(fs.Bsize) < room {
		return os.TempDir()
	}
	return memory
}

func newFolder(parent string) (*folder, error) {
	made, err := os.MkdirTemp(parent, unlocked)
	if err != nil {
		return nil, err
	}
	f := &folder{path: made}
	if f.lock, err = os.Open(made); err == nil {
		err = syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX)
	}
	if err == nil {
		f.path = filepath.Join(parent, folderName+strings.TrimPrefix(filepath.Base(made), unlocked))
		err = os.Rename(made, f.path)
	}
	if err != nil {
		f.remove()
		return nil, err
	}
	return f, nil
}

func (f *folder) remove() {
	os.RemoveAll(f.path)
	f.lock.Close()
}

// removeLeft removes the folders of processes that were killed, once in ours.
var removeLeft = sync.OnceFunc(func() {
	for _, parent := range []string{memory, os.TempDir()} {
		removeLeftIn(parent)
	}
})

func removeLeftIn(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, folderName+"*"))
	for _, path := range left {
		lock, err := os.Open(path)
		if err != nil {
			continue // another user's, or gone
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(path)
		}
		lock.Close()
	}
}
