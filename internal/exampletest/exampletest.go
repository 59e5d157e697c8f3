// Package exampletest runs the programs of examples/ and compares what they
// print with what their testdata/output.txt says.
//
// The whole test of an example is
//
//	func TestStampede(t *testing.T) {
//		exampletest.Run(t, "-database", pgtest.Database(t), "-redis", pgtest.Redis(t))
//	}
//
// and go test -rewrite in its folder writes the file anew.
package exampletest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// golden is what the program of the folder prints.
const golden = "testdata/output.txt"

// patience bounds one run of a program. It only keeps one that hangs from
// taking the other tests with it.
const patience = 2 * time.Minute

var rewrite = flag.Bool("rewrite", false, "write testdata/output.txt anew")

// Run builds the program in the working directory, which of a test is its own
// folder, runs it with args and compares its standard output with
// testdata/output.txt. A program that fails fails the test.
func Run(t *testing.T, args ...string) {
	t.Helper()
	got := Output(t, args...)
	if *rewrite {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v: go test -rewrite makes it; got\n%s", err, got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, differ := firstDifference(got, string(want)); differ != "" {
		t.Errorf("line %d: %s\n\ngot\n%s\nwant\n%s", line, differ, got, want)
	}
}

// Output builds the program in the working directory, runs it with args, and
// returns what it prints.
func Output(t *testing.T, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "example")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second // a child of the program's may hold the pipes open
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("not done after %v", patience)
		}
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	if stderr.Len() > 0 {
		t.Logf("standard error:\n%s", stderr.String())
	}
	return stdout.String()
}

// firstDifference says how two texts differ first, and in which line; "" when
// they do not.
func firstDifference(got, want string) (line int, difference string) {
	if got == want {
		return 0, ""
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for line < len(g) && line < len(w) && g[line] == w[line] {
		line++
	}
	at := func(lines []string) string {
		if line < len(lines) {
			return fmt.Sprintf("%q", lines[line])
		}
		return "nothing"
	}
	return line + 1, fmt.Sprintf("got %s, want %s", at(g), at(w))
}
