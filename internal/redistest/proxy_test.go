//go:build unix

package redistest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// speaker is a server that greets with its name and then repeats every line
// with its name in front.
func speaker(t *testing.T, name string) (addr string, heard <-chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					lines <- line
					if _, err := io.WriteString(conn, name+line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String(), lines
}

type conversation struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func talk(t *testing.T, p *Proxied) *conversation {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &conversation{t, conn, bufio.NewReader(conn)}
}

func (c *conversation) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *conversation) expect(want string) {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := c.r.ReadString('\n'); err != nil || got != want+"\n" {
		c.t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// silence looks for a while: that nothing comes cannot be awaited.
func (c *conversation) silence() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if b, err := c.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("heard %q, %v; want nothing", b, err)
	}
}

func (c *conversation) closed() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("the connection is not closed: %v", err)
	}
}

func TestProxy(t *testing.T) {
	addr, heard := speaker(t, "one ")
	p := Proxy(t, addr)
	old := talk(t, p)
	old.say("a")
	old.expect("one a")
	<-heard

	p.Cut()
	old.say("b")
	fresh := talk(t, p)
	fresh.say("c")
	old.silence()
	fresh.silence()
	if len(heard) != 0 {
		t.Errorf("the server heard %q", <-heard)
	}
	p.Restore()
	old.expect("one b")
	fresh.expect("one c")
	<-heard
	<-heard

	p.CutReplies()
	old.say("d")
	if got := <-heard; got != "d\n" {
		t.Errorf("the server heard %q", got)
	}
	old.silence()
	p.Restore()
	old.expect("one d")

	const delay = 60 * time.Millisecond
	p.Delay(delay)
	began := time.Now()
	old.say("e")
	old.expect("one e")
	if took := time.Since(began); took < delay {
		t.Errorf("took %v with a delay of %v", took, delay)
	}

	p.Refuse()
	old.closed()
	fresh.closed()
	if conn, err := net.Dial("tcp", p.Addr()); err == nil {
		conn.Close()
		t.Error("the proxy accepts")
	}
	p.Restore()
	again := talk(t, p)
	again.say("f")
	again.expect("one f")

	other, _ := speaker(t, "two ")
	p.SwitchTo(other)
	again.closed()
	moved := talk(t, p)
	moved.say("g")
	moved.expect("two g")
	p.Drop()
	moved.closed()
}
