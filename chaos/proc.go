package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachedpg/cachedpg/internal/child"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// proc is a worker process and its successors, one after the other. Its
// methods are for one goroutine at a time.
type proc struct {
	scope *scope
	task  task
	base  string             // the name without the number of the start
	dir   string             // of the logs
	proxy *redistest.Proxied // to Redis, if there is one
	link  *redistest.Proxied // to PostgreSQL, but for referees

	mu     sync.Mutex // guards starts
	starts int

	process *child.Process
	in      *os.File    // to its standard input
	said    chan string // what it says; closed at its end
}

// start starts the process, again if it was killed.
func (p *proc) start() {
	p.mu.Lock()
	p.starts++
	name := fmt.Sprintf("%s.%d", p.base, p.starts)
	p.mu.Unlock()
	t := p.task
	t.Name, t.Log = name, filepath.Join(p.dir, name+".log")
	t.Seed += uint64(p.starts) << 32
	told, err := json.Marshal(t)
	if err != nil {
		p.scope.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		p.scope.Fatal(err)
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		p.scope.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		p.scope.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), taskVariable+"="+string(told), "GOMAXPROCS=2",
		"GORACE=halt_on_error=1") // if this is built with -race, so that it is found dead
	cmd.Stdin, cmd.ExtraFiles = stdin, []*os.File{stdout}
	p.process = child.Start(p.scope, p.dir, cmd)
	stdin.Close()
	stdout.Close()
	p.in = in
	said := make(chan string, 16)
	p.said = said
	go func() {
		defer close(said)
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	p.await(sayReady)
}

// name is that of the process that runs.
func (p *proc) name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s.%d", p.base, p.starts)
}

// alive makes sure that the process has not ended by itself.
func (p *proc) alive() {
	select {
	case <-p.process.Exited():
		p.scope.Fatalf("%s has ended:\n%s", p.name(), p.process.Log())
	default:
	}
}

func (p *proc) tell(words ...string) {
	if _, err := fmt.Fprintln(p.in, strings.Join(words, "\t")); err != nil && !errors.Is(err, unix.EPIPE) {
		p.scope.Fatal(err)
	}
}

// await waits until the process says the word.
func (p *proc) await(word string) {
	select {
	case line, open := <-p.said:
		if !open || line != word {
			p.scope.Fatalf("%s says %q, not %q:\n%s", p.name(), line, word, p.process.Log())
		}
	case <-time.After(2 * child.Wait):
		p.scope.Fatalf("%s does not say %q", p.name(), word)
	}
}

// killAt kills the process when it comes to a step, or wherever it is if it does
// not come there. It reports which.
func (p *proc) killAt(step string) (came bool) {
	p.arm(unix.SIGKILL, step)
	select {
	case <-p.process.Exited():
		came = true
	case <-time.After(trapTime):
	}
	p.again()
	return came
}

// stopAt stops the process when it comes to a step, until resume. It reports
// whether it came there.
func (p *proc) stopAt(step string) (came bool) {
	p.arm(unix.SIGSTOP, step)
	for due := time.Now().Add(trapTime); time.Now().Before(due); time.Sleep(time.Millisecond) {
		if stopped(p.process.Pid()) {
			return true
		}
	}
	return false
}

// resume lets the process go on, and sees that it does not stop any more.
func (p *proc) resume() {
	p.tell(sayDisarm)
	for {
		p.process.Resume()
		select {
		case <-p.said: // it has heard
			return
		case <-p.process.Exited():
			p.scope.Fatalf("%s has ended:\n%s", p.name(), p.process.Log())
		case <-time.After(10 * time.Millisecond): // it may have stopped just now
		}
	}
}

// trapTime is how long a process may take to come to a step.
const trapTime = 3 * time.Second

func (p *proc) arm(signal unix.Signal, step string) {
	p.tell(sayArm, fmt.Sprint(int(signal)), step)
}

func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "T")
}

// again replaces the process by a new one.
func (p *proc) again() {
	p.process.Kill()
	p.in.Close()
	p.start()
}
