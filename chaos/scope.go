package main

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// scope stands in for a test, so that the servers of the tests can be had here:
// it owns a folder and what is to be undone at the end.
type scope struct {
	testing.TB // nil: what is not below is not called
	dir        string

	mu       sync.Mutex // guards the fields below
	cleanups []func()
	problems []string
}

// newScope makes a folder that the user postgres can enter too.
func newScope() (*scope, error) {
	dir, err := os.MkdirTemp("", "cachedpg-chaos-")
	if err != nil {
		return nil, err
	}
	s := &scope{dir: dir}
	return s, os.Chmod(dir, 0o755)
}

// fatal is what a panic carries that attempt turns into an error.
type fatal string

// attempt runs do and returns what it failed with.
func (s *scope) attempt(do func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			message, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("chaos: %s", string(message))
		}
	}()
	do()
	return nil
}

// close undoes everything, last first, and returns what went wrong besides.
func (s *scope) close() []string {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			problems := s.problems
			s.mu.Unlock()
			return problems
		}
		last := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		if err := s.attempt(last); err != nil {
			s.Errorf("%v", err)
		}
	}
}

func (s *scope) Helper() {}

func (s *scope) Cleanup(undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, undo)
}

func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp(s.dir, "server-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *scope) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *scope) Fatal(args ...any) { panic(fatal(fmt.Sprint(args...))) }

func (s *scope) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }

func (s *scope) Skip(args ...any) { s.Fatal(args...) }
