package harness

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
)

// cancelRequest is what pgx sends, on a connection of its own, when it gives
// up waiting. The proxy loses it: PostgreSQL goes on.
const cancelRequest = 80877102

// Proxy is a TCP connection to PostgreSQL that can be cut.
type Proxy struct {
	Via
	listener net.Listener
	target   string

	mu    sync.Mutex // guards the fields below
	down  bool
	conns []net.Conn
}

// ThroughProxy opens another cachedpg DB through a proxy.
func ThroughProxy(f *Fixture, keys ...string) *Proxy {
	f.Helper()
	config, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	p := &Proxy{listener: l, target: net.JoinHostPort(config.Host, fmt.Sprint(config.Port))}
	var running sync.WaitGroup
	running.Go(func() { p.serve(&running) })
	f.Cleanup(func() {
		l.Close()
		p.Cut()
		running.Wait()
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	p.Via = f.With(append(keys, "host=127.0.0.1", "port="+port)...)
	return p
}

func (p *Proxy) serve(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var head [8]byte // a length, and a protocol version or what is none
		_, err = io.ReadFull(client, head[:])
		if err != nil || binary.BigEndian.Uint32(head[4:]) == cancelRequest {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		if p.down {
			client.Close()
			server.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		server.Write(head[:])
		running.Go(func() { io.Copy(server, client); server.Close() })
		running.Go(func() { io.Copy(client, server); client.Close() })
	}
}

// Cut breaks every connection and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
