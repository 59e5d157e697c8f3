//go:build unix

package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gone(pid int) error {
	if err := syscall.Kill(pid, 0); err == nil {
		// A dead process that nobody waits for still has its number.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && afterName(stat) != 'Z' {
			return errors.New("still there")
		}
	}
	return nil
}

func TestKilledWhenTheTestEnds(t *testing.T) {
	var p *Process
	t.Run("inside", func(t *testing.T) {
		p = Start(t, t.TempDir(), exec.Command("sleep", "600"))
		p.Pause() // and so cannot end by itself
	})
	if err := gone(p.Pid()); err != nil {
		t.Error(err)
	}
	select {
	case <-p.Exited():
	default:
		t.Error("Exited is not closed")
	}
}

func TestKilledWhenTheTestIsKilled(t *testing.T) {
	if os.Getenv("CHILD_OF_TEST") == "1" {
		p := Start(t, os.Getenv("CHILD_DIR"), exec.Command("sleep", "600"))
		fmt.Println(p.Pid())
		syscall.Kill(os.Getpid(), syscall.SIGKILL) // without a word to anybody
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestKilledWhenTheTestIsKilled$")
	cmd.Env = append(os.Environ(), "CHILD_OF_TEST=1", "CHILD_DIR="+t.TempDir())
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the parent was not killed: %v\n%s", err, out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	Until(t, "the child of a killed test is gone", func() error { return gone(pid) })
}

func TestLogAndExit(t *testing.T) {
	p := Start(t, t.TempDir(), exec.Command("sh", "-c", "echo out; echo err >&2"))
	<-p.Exited()
	if got := p.Log(); got != "out\nerr\n" {
		t.Errorf("log %q", got)
	}
	p.Resume() // of one that is gone: nothing
	p.Kill()
}

func TestTerminateWaits(t *testing.T) {
	p := Start(t, t.TempDir(), exec.Command("sh", "-c", "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.01; done"))
	Until(t, "the trap is set", func() error {
		if p.Log() == "" {
			return errors.New("no output")
		}
		return nil
	})
	p.Terminate()
	if got := p.Log(); got != "ready\nbye\n" {
		t.Errorf("log %q", got)
	}
}

func TestPortsAreFreeAndReturnedOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port := Port(t)
		if seen[port] {
			t.Fatalf("port %d twice", port)
		}
		seen[port] = true
		if !free(port) || !free(port+PortOffset) {
			t.Errorf("port %d is not free", port)
		}
	}
}
