//go:build unix

package redistest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/child"
)

// Proxied is a TCP proxy that a test breaks and repairs. Its methods are safe
// for concurrent use.
type Proxied struct {
	tb   testing.TB
	addr string
	wg   sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	target   string
	links    map[*link]struct{}
	cut      [2]bool // by direction
	delay    time.Duration
	closed   bool
	change   chan struct{} // closed, and replaced, when cut or closed changes
}

const (
	requests = iota // from the client to the server
	replies
)

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	once           sync.Once
	dead           chan struct{}
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.dead)
		l.client.Close()
		if l.server != nil {
			l.server.Close()
		}
	})
}

// Proxy starts a proxy in front of addr; it ends with the test.
func Proxy(tb testing.TB, addr string) *Proxied {
	tb.Helper()
	p := &Proxied{
		tb: tb, addr: "127.0.0.1:" + strconv.Itoa(child.Port(tb)), target: addr,
		links: map[*link]struct{}{}, change: make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listenLocked()
	tb.Cleanup(p.close)
	return p
}

// Proxy starts a proxy in front of the server.
func (s *Server) Proxy() *Proxied {
	s.tb.Helper()
	return Proxy(s.tb, s.Addr())
}

// URLThrough returns the server's URL by way of a proxy.
func (s *Server) URLThrough(p *Proxied) string { return s.urlOf(p.addr) }

// Addr returns the host:port that the proxy listens on.
func (p *Proxied) Addr() string { return p.addr }

// Cut makes old and new connections hang: they stay open, and nothing comes
// through. What was sent meanwhile arrives after Restore.
func (p *Proxied) Cut() { p.set(true, true) }

// CutReplies lets requests through and makes their replies hang, so that the
// server does what nobody learns of.
func (p *Proxied) CutReplies() { p.set(false, true) }

// Refuse closes all connections and refuses new ones.
func (p *Proxied) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.dropLocked()
}

// Drop closes all connections; new ones are as before.
func (p *Proxied) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked()
}

// Restore ends Cut, CutReplies, Refuse and Delay.
func (p *Proxied) Restore() {
	p.tb.Helper()
	p.set(false, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = 0
	if p.listener == nil && !p.closed {
		p.listenLocked()
	}
}

// Delay makes every reply take so much longer.
func (p *Proxied) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// SwitchTo closes all connections; new ones go to addr.
func (p *Proxied) SwitchTo(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
	p.dropLocked()
}

func (p *Proxied) set(cutRequests, cutReplies bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = [2]bool{cutRequests, cutReplies}
	p.changedLocked()
}

func (p *Proxied) changedLocked() {
	close(p.change)
	p.change = make(chan struct{})
}

func (p *Proxied) dropLocked() {
	for l := range p.links {
		l.close()
	}
	clear(p.links)
}

func (p *Proxied) listenLocked() {
	p.tb.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Errorf("redistest: proxy: %v", err)
		return
	}
	p.listener = listener
	p.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(listener, conn) })
		}
	})
}

func (p *Proxied) close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.dropLocked()
	p.changedLocked()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxied) serve(listener net.Listener, client net.Conn) {
	l := &link{client: client, dead: make(chan struct{})}
	p.mu.Lock()
	if p.listener != listener { // refused between Accept and here
		p.mu.Unlock()
		client.Close()
		return
	}
	target := p.target
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer p.forget(l)

	if !p.open(l, requests) {
		return
	}
	server, err := net.DialTimeout("tcp", target, child.Wait)
	if err != nil {
		return
	}
	p.mu.Lock()
	if _, ok := p.links[l]; !ok {
		p.mu.Unlock()
		server.Close()
		return
	}
	l.server = server
	p.mu.Unlock()

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, requests, client, server) })
	pumps.Go(func() { p.pump(l, replies, server, client) })
	pumps.Wait()
}

func (p *Proxied) forget(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	l.close()
}

// open waits while the direction is cut. It is false when the link is closed.
func (p *Proxied) open(l *link, direction int) bool {
	for {
		p.mu.Lock()
		cut, change := p.cut[direction], p.change
		p.mu.Unlock()
		if !cut {
			return true
		}
		select {
		case <-change:
		case <-l.dead:
			return false
		}
	}
}

// chunk is what was read at once, and when it may go on.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pump copies one direction until either end is closed. It reads ahead of what
// it may write, so that a delay adds to each reply and not to their sum.
func (p *Proxied) pump(l *link, direction int, from, to net.Conn) {
	chunks := make(chan chunk, 1024)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				p.mu.Lock()
				delay := p.delay
				p.mu.Unlock()
				if direction == requests {
					delay = 0
				}
				select {
				case chunks <- chunk{buffer[:n], time.Now().Add(delay)}:
				case <-l.dead:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		l.close()
		for range chunks { // the reader ends now that its connection is closed
		}
	}()
	for c := range chunks {
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.dead:
				return
			}
		}
		if !p.open(l, direction) {
			return
		}
		if _, err := to.Write(c.bytes); err != nil {
			return
		}
	}
}
