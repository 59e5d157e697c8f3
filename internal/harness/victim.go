//go:build unix

package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cachedpg/cachedpg/internal/step"
)

// What a victim is told, in its environment.
const (
	victimDSN  = "CACHEDPG_VICTIM_DSN"
	victimKeys = "CACHEDPG_VICTIM_KEYS"
	killedAt   = "CACHEDPG_KILLED_AT"
	stoppedAt  = "CACHEDPG_STOPPED_AT"
)

// Victim is a test that runs in a process of its own, where another test has it killed, or stopped, at a step.
type Victim struct {
	*Fixture
	At    string // the step at which it is killed; "" if it is not
	armed atomic.Bool
	times atomic.Int32
}

// NewVictim opens in the process that is to die the database of the test that has started it. In others the
// test is skipped.
func NewVictim(t *testing.T) *Victim {
	t.Helper()
	v := &Victim{Fixture: &Fixture{T: t, DSN: os.Getenv(victimDSN)}, At: os.Getenv(killedAt)}
	if v.DSN == "" {
		t.Skip("it is run by another test")
	}
	step.Hook = func(at string) {
		if !v.armed.Load() {
			return
		}
		if at == os.Getenv(stoppedAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		if at == v.At && v.times.Add(-1) == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	f := v.Fixture
	if keys := os.Getenv(victimKeys); keys != "" {
		f.Keys = strings.Split(keys, "\n")
	}
	var cancel context.CancelFunc
	f.Ctx, cancel = context.WithTimeout(context.Background(), Timeout)
	t.Cleanup(cancel)
	f.DB, f.Plain = f.Open("cachedpg", WithKeys(f.DSN, f.Keys)), f.Open("pgx", f.DSN)
	f.Via = f.Asking(f.DB)
	f.Live(f.DB)
	return v
}

// Arm has the process die when it comes to its step from now on for the n-th time.
func (v *Victim) Arm(n int) {
	v.times.Store(int32(n))
	v.armed.Store(true)
}

// victim runs a test of this package as the victim of a fixture's database.
func (f *Fixture) victim(test, told string) *exec.Cmd {
	cmd := exec.CommandContext(f.Ctx, os.Args[0], "-test.run=^"+test+"$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), victimDSN+"="+f.DSN, victimKeys+"="+strings.Join(f.Keys, "\n"), told)
	return cmd
}

// Killed runs a test that begins with NewVictim, and returns what it has said when it was killed at the step.
func (f *Fixture) Killed(test, at string) (said string) {
	f.Helper()
	output, err := f.victim(test, killedAt+"="+at).Output()
	if !strings.Contains(fmt.Sprint(err), "killed") {
		f.Fatalf("%s: %v\n%s", at, err, output)
	}
	return string(output)
}

// Stopped runs a test that begins with NewVictim, and returns when it has stopped at the step. It is
// killed when the test ends that has started it.
func (f *Fixture) Stopped(test, at string) *os.Process {
	f.Helper()
	cmd := f.victim(test, stoppedAt+"="+at)
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	f.Until("it to stop", func() bool {
		var state syscall.WaitStatus
		pid, err := syscall.Wait4(cmd.Process.Pid, &state, syscall.WUNTRACED|syscall.WNOHANG, nil)
		return err == nil && pid == cmd.Process.Pid && state.Stopped()
	})
	return cmd.Process
}
