//go:build unix

// Package child runs servers as children of a test, so that none survives it:
// not its end, not its panic, not its being killed.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Wait bounds how long Until polls. It is generous because the machine may be busy with
// other tests; it only keeps a lost server from hanging the run.
const Wait = 30 * time.Second

// Process is a running child. Its methods are safe for concurrent use, but must
// not be called after the test has ended.
type Process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed when the child has been waited for

	// dismiss ends the shell that kills the child when we die.
	dismiss func()
}

// Start runs cmd with its output in a file of dir. It is killed when the test
// ends.
func Start(tb testing.TB, dir string, cmd *exec.Cmd) *Process {
	tb.Helper()
	p := &Process{tb: tb, cmd: cmd, log: filepath.Join(dir, "output"), exited: make(chan struct{})}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	if err := p.keep(); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		tb.Fatal(err)
	}
	go func() {
		cmd.Wait() // how a server ends is in its output
		close(p.exited)
	}()
	tb.Cleanup(p.Kill)
	return p
}

// keep starts a shell that waits for the end of its input, which comes when we
// close it or die by whatever means, and then kills the child.
func (p *Process) keep() error {
	keeper := exec.Command("/bin/sh", "-c", `read _; kill -KILL "$0" 2>/dev/null`, strconv.Itoa(p.cmd.Process.Pid))
	// A signal to the whole group, as from the keyboard, must not take the
	// keeper before it has done its work.
	keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := keeper.StdinPipe()
	if err != nil {
		return err
	}
	if err := keeper.Start(); err != nil {
		return err
	}
	p.dismiss = sync.OnceFunc(func() {
		// Killed rather than told: the child may be gone, and its number
		// another's.
		keeper.Process.Kill()
		keeper.Wait()
		input.Close()
	})
	return nil
}

// Pid returns the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed when the child has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// maxLog is how much Log returns: a server that refuses each of many attempts
// says so each time.
const maxLog = 4 << 10

// Log returns what the child has printed, of much the end.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-maxLog):])
}

// Pause stops the child until Resume: it holds its connections and does nothing.
// When Pause returns it does not run any more.
func (p *Process) Pause() {
	p.tb.Helper()
	p.signal(syscall.SIGSTOP)
	Until(p.tb, "the child is stopped", func() error {
		// Field 3 of the file is the state, after the name in parentheses. Where
		// there is no such file the signal has to do.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		if err != nil {
			return nil
		}
		if state := afterName(stat); state != 'T' {
			return fmt.Errorf("state %c", state)
		}
		return nil
	})
}

func afterName(stat []byte) byte {
	for i := len(stat) - 1; i > 0; i-- {
		if stat[i] == ')' && i+2 < len(stat) {
			return stat[i+2]
		}
	}
	return '?'
}

// Resume lets a paused child go on.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

// Terminate asks the child to end and waits until it has.
func (p *Process) Terminate() {
	p.tb.Helper()
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	select {
	case <-p.exited:
	case <-time.After(Wait):
		p.tb.Errorf("child: %s does not end\n%s", p.cmd.Path, p.Log())
	}
	p.Kill()
}

// Kill ends the child, paused or not, and waits until it is gone. Again, it
// does nothing.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
	p.dismiss()
}

func (p *Process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Errorf("child: signal %v: %v", s, err)
	}
}

// Until calls done until it returns nil, and fails the test after Wait with
// what is awaited and the last error.
func Until(tb testing.TB, awaited string, done func() error) {
	tb.Helper()
	deadline := time.Now().Add(Wait)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("waited %v until %s: %v", Wait, awaited, err)
		}
		time.Sleep(5 * time.Millisecond) // between two looks, not instead of one
	}
}
