package main

import (
	"io"
	"net"
	"net/url"
	"sync"
)

// proxy stands between one process and Redis.
type proxy struct {
	listener net.Listener

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	isCut bool
}

// proxy starts one and returns the URL of Redis by way of it.
func (s *story) proxy() (p *proxy, address string) {
	u, err := url.Parse(s.redis)
	if err == nil {
		p = &proxy{}
		p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		s.err = err
		return nil, ""
	}
	target := u.Host
	go p.run(target)
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

func (p *proxy) run(target string) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", target)
		if err != nil || !p.add(client, server) {
			_ = client.Close()
			continue
		}
		for _, ends := range [][2]net.Conn{{client, server}, {server, client}} {
			go func() {
				_, _ = io.Copy(ends[1], ends[0])
				_ = ends[1].Close()
			}()
		}
	}
}

// add reports that the two may be connected.
func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isCut {
		for _, c := range conns {
			_ = c.Close()
		}
		return false
	}
	p.conns = append(p.conns, conns...)
	return true
}

// cut closes what is open; nothing comes through any more.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.cut()
}
