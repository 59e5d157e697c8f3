//go:build unix

package child

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports are taken below the range from which systems take those of outgoing
// connections, and so low that PortOffset does not lead into it.
const (
	firstPort = 11000
	lastPort  = 21999
	// PortOffset is the distance of a second port that is free as well: a node
	// of a Redis Cluster listens on both.
	PortOffset = 10000
)

var ports struct {
	mu    sync.Mutex
	taken map[int]bool // by this process, for ever: a server may come back on it
}

// Port returns a port of 127.0.0.1 on which nobody listens, nor on the one
// PortOffset above it, and which it returns only once. Another process may
// still take it before the server does.
func Port(tb testing.TB) int {
	tb.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.taken == nil {
		ports.taken = map[int]bool{}
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !ports.taken[port] && free(port) && free(port+PortOffset) {
			ports.taken[port] = true
			return port
		}
	}
	tb.Fatal("found no free port")
	return 0
}

func free(port int) bool {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
