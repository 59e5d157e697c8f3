//go:build unix

package pgtest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// made is what initdb has made, once in a process, for it works for as long as some tests take.
var made struct {
	mu      sync.Mutex // guards the fields below
	data    string     // the folder; empty before
	folder  *folder    // around it: unless it is kept its lock goes with the garbage, and another process removes it
	remover *exec.Cmd  // ends with the process, for its input does
}

// copyNew makes the server's data folder as initdb does, with an identity of its own.
func (s *Server) copyNew() {
	s.tb.Helper()
	cmd := s.command("initdb")
	cmd.Path, cmd.Args = "/bin/cp", []string{"cp", "-Rp", initialized(s.tb), s.data}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.tb.Fatalf("pgtest: cp: %v\n%s", err, out)
	}
	if err := identify(s.data, rand.Uint64()>>1); err != nil {
		s.tb.Fatalf("pgtest: %v", err)
	}
}

func initialized(tb testing.TB) string {
	tb.Helper()
	made.mu.Lock()
	defer made.mu.Unlock()
	if made.data != "" {
		return made.data
	}
	f := serverFolder(tb)
	s := &Server{tb: tb, data: filepath.Join(f.path, "data")}
	s.run("initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync")
	remover := exec.Command("/bin/sh", "-c", `read _; rm -rf "$0"`, f.path)
	if _, err := remover.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := remover.Start(); err != nil {
		tb.Fatal(err)
	}
	made.data, made.folder, made.remover = s.data, f, remover
	return made.data
}

// identify gives a server that has never run another system identifier. It stands in two places, for
// PostgreSQL compares them: pg_control begins with it and ends with a checksum, and the log's first
// page has it after its own 24 bytes.
func identify(data string, id uint64) error {
	control := filepath.Join(data, "global", "pg_control")
	b, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	length := 8
	for ; length+4 <= len(b); length++ {
		if crc32.Checksum(b[:length], table) == binary.NativeEndian.Uint32(b[length:]) {
			break
		}
	}
	if length+4 > len(b) {
		return errors.New("pg_control has no checksum that is known")
	}
	binary.NativeEndian.PutUint64(b, id)
	binary.NativeEndian.PutUint32(b[length:], crc32.Checksum(b[:length], table))
	logs, err := filepath.Glob(filepath.Join(data, "pg_wal", "0*"))
	if err != nil || len(logs) != 1 {
		return errors.New("a new server's log is one file")
	}
	log, err := os.OpenFile(logs[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := log.WriteAt(b[:8], 24); err != nil {
		return err
	}
	return os.WriteFile(control, b, 0o600)
}
